"""What one epoch and one evaluation compute, on networks small enough to follow."""

import copy
import platform
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from trainables.batches import ImageBatches
from trainables.engine import EVALUATION_BATCH, Forward, evaluate, train_epoch
from trainables.losses import Loss
from trainables.optimizers import Schedule

CPU = torch.device("cpu")
CROSS_ENTROPY = Loss(kind="cross_entropy", class_count=3)
WEIGHTED = Loss(kind="cross_entropy", class_count=3, class_weight=torch.tensor([0.5, 3.0, 1.0]))
BCE = Loss(kind="binary", class_count=3)


def network(*, batch_norm=False):
    torch.manual_seed(0)
    norm = [nn.BatchNorm2d(4)] if batch_norm else []
    return nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), *norm, nn.ReLU(), nn.Flatten(), nn.Linear(36, 3))


def data(count=23, task="single_label", augment="none"):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 1, 8, 8), dtype=np.uint8)
    labels = rng.integers(0, 3, count) if task == "single_label" else rng.integers(0, 2, (count, 3)).astype(np.float32)
    return ImageBatches(images, np.arange(count), labels, CPU, augment)


def everything(batches):
    return batches.batch(np.arange(len(batches)))


@torch.no_grad()
def logits(model, images):
    return model(images)


def mean(loss, logits, labels):
    return loss.total(logits, labels) / loss.weight(labels)


def train(model, batches, *, loss=CROSS_ENTROPY, lr=0.0, batch_size=8, optimizer=None, **options):
    optimizer = optimizer or torch.optim.SGD([{"params": model.parameters(), "initial_lr": lr}], lr=lr)
    forward = Forward(model, loss, options.pop("task", "single_label"), options.pop("precision", "fp32"))
    streams = {name: torch.Generator().manual_seed(0) for name in ("shuffling", "augmentation")}
    schedule = Schedule(optimizer, "constant", 100)
    model.train()
    return train_epoch(forward, optimizer, schedule, batches, batch_size=batch_size, **options, **streams)


@pytest.mark.parametrize("loss", [CROSS_ENTROPY, WEIGHTED, BCE])
def test_training_means_are_those_of_the_whole_epoch_whatever_the_last_batch(loss):
    model, batches = network(), data()
    epoch = train(model, batches, loss=loss)
    images, labels = everything(batches)
    assert epoch.loss == pytest.approx(float(mean(loss, logits(model, images), labels)))
    assert epoch.accuracy == pytest.approx(float((logits(model, images).argmax(1) == labels).float().mean()))


def test_multi_label_accuracy_asks_for_every_label_of_an_image():
    model, batches = network(), data(task="multi_label")
    epoch = train(model, batches, loss=BCE, task="multi_label")
    images, labels = everything(batches)
    assert epoch.accuracy == pytest.approx(float(((logits(model, images) >= 0) == labels.bool()).all(1).float().mean()))


def test_missing_labels_take_no_part_in_an_epoch():
    """Nor do images, or whole batches, of which nothing is known."""
    model, batches = network(), data(task="multi_label")
    images, labels = everything(batches)
    labels = labels.clone()
    labels[torch.rand(labels.shape, generator=torch.Generator().manual_seed(1)) < 0.3] = np.nan
    labels[:9] = np.nan
    batches._labels = labels
    epoch = train(model, batches, loss=BCE, task="multi_label", batch_size=3)
    known, output = ~labels.isnan(), logits(model, images)
    loss = F.binary_cross_entropy_with_logits(output[known], labels[known])
    assert epoch.bad_step is None
    assert epoch.loss == pytest.approx(float(loss))
    right = (((output >= 0) == (labels == 1)) | ~known).all(1)[known.any(1)]
    assert epoch.accuracy == pytest.approx(float(right.float().mean()))
    assert evaluate(Forward(model, BCE, "multi_label", "fp32"), batches).loss == pytest.approx(float(loss))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_training_lowers_the_loss(precision):
    model, batches = network(batch_norm=True), data(augment="flip")
    losses = [train(model, batches, lr=0.05, precision=precision).loss for _ in range(10)]
    assert losses[-1] < 0.7 * losses[0]
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


@pytest.mark.parametrize("loss", [CROSS_ENTROPY, WEIGHTED, BCE])
@pytest.mark.parametrize("micro_batch", [None, 3])
def test_whole_batches_and_parts_give_the_gradient_of_the_mean_loss(loss, micro_batch):
    model, expected, batches = network(), network(), data()
    images, labels = everything(batches)
    mean(loss, expected(images), labels).backward()
    epoch = train(model, batches, loss=loss, batch_size=23, micro_batch=micro_batch)
    assert epoch.micro_batch == micro_batch
    for found, wanted in zip(model.parameters(), expected.parameters(), strict=True):
        assert torch.allclose(found.grad, wanted.grad, atol=1e-6)


class SmallMemory(nn.Module):
    """A network that runs out of memory on more than ``room`` images at once."""

    def __init__(self, room):
        super().__init__()
        self.inner, self.room, self.tried = network(), room, []

    def forward(self, images):
        self.tried.append(len(images))
        if len(images) > self.room:
            raise torch.OutOfMemoryError("out of memory")
        return self.inner(images)


def test_out_of_memory_is_answered_by_smaller_parts_with_the_same_result():
    plenty, little = network(), SmallMemory(room=3)
    expected = train(plenty, data(), lr=0.1)
    epoch = train(little, data(), lr=0.1)
    assert little.tried[:4] == [8, 4, 2, 2]
    assert epoch.micro_batch == 2
    assert epoch.loss == pytest.approx(expected.loss, rel=1e-5)
    for one, other in zip(plenty.parameters(), little.inner.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_out_of_memory_on_a_single_image_is_raised():
    with pytest.raises(torch.OutOfMemoryError):
        train(SmallMemory(room=0), data())


def test_evaluation_out_of_memory_goes_on_in_smaller_batches_and_in_order():
    little = SmallMemory(room=5)
    found = evaluate(Forward(little, CROSS_ENTROPY, "single_label", "fp32"), data())
    expected = evaluate(Forward(little.inner, CROSS_ENTROPY, "single_label", "fp32"), data())
    assert np.allclose(found.probabilities, expected.probabilities, atol=1e-6)
    assert found.loss == pytest.approx(expected.loss)


@pytest.mark.parametrize("batch_size", [1, 7, 100])
@pytest.mark.parametrize("loss", [CROSS_ENTROPY, WEIGHTED])
def test_evaluation_is_of_the_whole_split_whatever_the_batch(batch_size, loss, monkeypatch):
    monkeypatch.setitem(EVALUATION_BATCH, "cpu", batch_size)
    model, batches = network(batch_norm=True), data()
    found = evaluate(Forward(model, loss, "single_label", "fp32"), batches)
    images, labels = everything(batches)
    model.eval()
    assert found.loss == pytest.approx(float(mean(loss, logits(model, images), labels)), rel=1e-5)
    assert np.allclose(found.probabilities, logits(model, images).softmax(1).detach().numpy(), atol=1e-6)
    assert found.probabilities.dtype == np.float32


def test_evaluation_changes_nothing_in_the_network():
    model = nn.Sequential(network(batch_norm=True), nn.Dropout(0.5)).train()
    before = copy.deepcopy(model.state_dict())
    first, second = (evaluate(Forward(model, CROSS_ENTROPY, "single_label", "fp32"), data()) for _ in range(2))
    assert (first.probabilities == second.probabilities).all()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_multi_label_probabilities_are_sigmoids():
    model, batches = network(), data(task="multi_label")
    found = evaluate(Forward(model, BCE, "multi_label", "fp32"), batches)
    images, labels = everything(batches)
    assert np.allclose(found.probabilities, logits(model, images).sigmoid().detach().numpy(), atol=1e-6)
    assert found.loss == pytest.approx(
        float(F.binary_cross_entropy_with_logits(logits(model, images), labels)), rel=1e-5
    )


@pytest.mark.parametrize("bad", [1, 2, 3])
def test_a_loss_that_is_no_number_ends_the_epoch_and_names_its_step(bad):
    class Breaking(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.calls = network(), 0

        def forward(self, images):
            self.calls += 1
            return self.inner(images) * (float("nan") if self.calls == bad else 1)

    model = Breaking()
    assert train(model, data()).bad_step == bad
    assert model.calls == min(bad + 1, 3)


def test_what_is_called_between_steps_may_end_the_epoch():
    calls = []

    def stop():
        calls.append(1)
        if len(calls) == 2:
            raise TimeoutError("enough")

    with pytest.raises(TimeoutError, match="enough"):
        train(network(), data(), between_steps=stop)


@pytest.mark.parametrize(("autotune", "expected"), [(True, [True, True, False]), (False, [False, False, False])])
def test_algorithms_are_tried_for_whole_batches_of_training_alone(autotune, expected):
    """Trying them for the last batch of an epoch, or for validation, took a GPU longer than the epoch."""
    model, batches, seen = network(), data(), []
    watch = model.register_forward_pre_hook(lambda *_: seen.append(torch.backends.cudnn.benchmark))
    train(model, batches, autotune=autotune)
    evaluate(Forward(model, CROSS_ENTROPY, "single_label", "fp32"), batches)
    assert seen == [*expected, False]
    watch.remove()
    model.register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train(model, batches, autotune=autotune)
    assert not torch.backends.cudnn.benchmark


PAGES = """
import resource, torch
from trainables.engine import give_back_memory, set_up_cpu

def filled():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        torch.ones(2**24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

filled()
as_it_is = filled()
set_up_cpu(1)
filled()
kept = filled()
give_back_memory()
print(as_it_is, kept, filled())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left as they are")
def test_freed_memory_is_filled_with_zeros_once_until_it_is_given_back():
    """Pages that the system had to fill for four blocks of 64 MB, one after the other."""
    said = subprocess.run([sys.executable, "-c", PAGES], capture_output=True, text=True, check=True).stdout
    as_it_is, kept, given_back = map(int, said.split())
    assert 10 * kept < as_it_is
    assert 10 * kept < given_back
    assert given_back < as_it_is
