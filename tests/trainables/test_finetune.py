from __future__ import annotations

from typing import Any

import pytest
import torch
from networks import EVERY_NETWORK
from torch import Tensor, nn

from search_spaces.errors import UserError
from search_spaces.params import TrialParams
from search_spaces.studies import DESCRIPTIONS, rows_of
from trainables.backbones import BACKBONES, part_of
from trainables.finetune import FineTunedModel, build_model, make_head, model_problems, unfrozen_modules
from trainables.seeding import seeded
from trainables.weights import FoundWeights, load_pretrained

SIZE = 64
BLOCK_PARAMS = {"resnet18": (157504, 525568, 2099712, 8393728), "mobilenet_v2": (15792, 39696, 487040, 1681344)}


pytestmark = pytest.mark.usefixtures("one_thread")


def images(count: int = 4, size: int = SIZE) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(count))


def build(backbone: str, seed: int = 0, classes: int = 3, trunk_seed: int = 0, **params: Any) -> FineTunedModel:
    weights = FoundWeights(backbone=backbone, origin="random")
    return build_model(TrialParams(backbone=backbone, **params), classes, weights, SIZE, seed, trunk_seed)


def pretrained(backbone: str, depth: int, seed: int = 0) -> FineTunedModel:
    """A model whose weights count as coming from a file: only what trains is kept."""
    network = BACKBONES[backbone]
    trunk = load_pretrained(FoundWeights(backbone=backbone, origin="random"), 0, SIZE)
    torch.manual_seed(seed)
    head = make_head(network.feature_width, (), 0.0, 3)
    return FineTunedModel(network, trunk, head, unfrozen_modules(network, depth), keeps_all=False)


def gradients(module: nn.Module, prefix: str) -> list[str]:
    return [prefix + name for name, parameter in module.named_parameters() if parameter.grad is not None]


def train(model: FineTunedModel, steps: int = 3) -> None:
    optimizer = torch.optim.SGD(model.parameter_groups(0.01, 1.0), lr=0.01)
    for step in range(steps):
        loss = nn.functional.cross_entropy(model(images(4 + step)), torch.arange(4 + step) % 3)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


SMALLEST = 32
"""Pixels a side that every network takes."""


@pytest.fixture(scope="module", params=EVERY_NETWORK)
def parts(request: pytest.FixtureRequest) -> tuple[str, nn.Module]:
    backbone = BACKBONES[request.param]
    with seeded(0):
        return backbone.name, backbone.drop_classifier(backbone.network(SMALLEST))


@pytest.mark.parametrize("depth", range(5))
def test_depth_trains_the_last_blocks_and_the_frozen_rest_can_run_once(
    parts: tuple[str, nn.Module], depth: int
) -> None:
    backbone = BACKBONES[parts[0]]
    head = make_head(backbone.feature_width, (), 0.0, 3)
    model = FineTunedModel(backbone, parts[1], head, unfrozen_modules(backbone, depth), keeps_all=False).eval()
    last = [part for block in backbone.blocks[4 - depth :] for part in block]
    wanted = {name for name, _ in parts[1].named_parameters() if name.startswith(tuple(f"{part}." for part in last))}
    wanted |= {part for part in last if isinstance(part_of(parts[1], part), nn.Parameter)}
    wanted |= {"head.1.weight", "head.1.bias"}
    assert set(model.trainable_names()) == wanted

    boundary = model.forward_frozen(images(2, SMALLEST))
    before = boundary.clone()
    logits = model.forward_trained(boundary)
    assert torch.equal(boundary, before), "a tensor that a cache may share was written to"
    assert not boundary.requires_grad
    assert logits.shape == (2, 3)
    assert logits.dtype == torch.float32
    assert torch.equal(logits, model(images(2, SMALLEST)))
    logits.sum().backward()
    got = {name for part, prefix in ((model.trunk, ""), (model.head, "head.")) for name in gradients(part, prefix)}
    assert got == wanted
    model.zero_grad()


@pytest.mark.parametrize("backbone", BLOCK_PARAMS)
@pytest.mark.parametrize("depth", range(5))
def test_parameters_are_counted(backbone: str, depth: int) -> None:
    model = pretrained(backbone, depth)
    head = 3 * BACKBONES[backbone].feature_width + 3
    assert model.trainable_params() == sum(BLOCK_PARAMS[backbone][4 - depth :]) + head
    assert model.total_params() == sum(BLOCK_PARAMS[backbone]) + head


def test_every_layer_that_a_study_names_exists() -> None:
    rows = [row.params for study in DESCRIPTIONS for row in rows_of(study) if row.params is not None]
    assert any(params.unfreeze_layers for params in rows)
    assert [problem for params in dict.fromkeys(rows) for problem in model_problems(params, 224)] == []


def test_named_layers_train_and_nothing_else() -> None:
    model = build("resnet18", unfreeze_depth=None, unfreeze_layers=("layer4.1.conv2", "layer3.0"))
    trunk = [name for name in model.trainable_names() if not name.startswith("head.")]
    assert trunk == [
        name for name, _ in model.trunk.named_parameters() if name.startswith(("layer3.0.", "layer4.1.conv2."))
    ]
    assert model.backbone.stages[model.frozen_stages] == "layer3"


@pytest.mark.parametrize(
    ("layer", "others", "boundary"),
    [
        ("class_token", set(), "class_token"),
        ("encoder.pos_embedding", set(), "encoder.pos_embedding"),
        ("encoder.ln", {"encoder.ln.weight", "encoder.ln.bias"}, "encoder.ln"),
        ("encoder", {"encoder.pos_embedding", "encoder.ln.weight"}, "encoder.pos_embedding"),
    ],
)
def test_parameters_train_by_their_own_names(layer: str, others: set[str], boundary: str) -> None:
    model = build("vit_b_16", unfreeze_depth=None, unfreeze_layers=(layer,))
    trains = {name for name in model.trainable_names() if not name.startswith("head.")}
    assert trains >= (others or {layer})
    assert all(name.startswith(layer) for name in trains)
    assert model.backbone.stages[model.frozen_stages] == boundary
    model(images(2)).sum().backward()
    assert set(gradients(model.trunk, "")) == trains


def test_a_layer_name_is_no_prefix_of_others() -> None:
    model = build("squeezenet1_1", unfreeze_depth=None, unfreeze_layers=("features.10",))
    assert {name.rsplit(".", 2)[0] for name in model.trainable_names() if "features" in name} == {"features.10"}


@pytest.mark.parametrize(
    ("backbone", "layer", "says"),
    [
        ("vgg16", "features.99", "no module 'features.99': did you mean"),
        ("resnet18", "layer4.2.conv1", "'layer4.1.conv1'"),
        ("resnet18", "nonsense!", "its parts are conv1, bn1"),
        ("vgg16", "features.9", "has no parameters"),
        ("resnet18", "fc", "old classifier"),
        ("mobilenet_v3_large", "classifier.0", "old classifier"),
        ("convnext_tiny", "classifier.2", "old classifier"),
    ],
)
def test_a_layer_that_cannot_train_is_refused(backbone: str, layer: str, says: str) -> None:
    params = TrialParams(backbone=backbone, unfreeze_depth=None, unfreeze_layers=(layer,))
    (problem,) = model_problems(params, 224)
    assert says in problem


def test_all_problems_of_a_model_come_together() -> None:
    params = TrialParams(backbone="vgg16", unfreeze_depth=None, unfreeze_layers=("features.99", "features.9"))
    with pytest.raises(UserError) as caught:
        build_model(params, 3, FoundWeights(backbone="vgg16", origin="random"), 31, 0)
    assert len(caught.value.problems) == 3
    assert "at least 32 px, image_size is 31" in caught.value.problems[0]


def test_convnexts_pretrained_norm_trains_with_the_last_block() -> None:
    assert {"classifier.0.weight", "classifier.0.bias"} <= set(
        build("convnext_tiny", unfreeze_depth=1).trainable_names()
    )


@pytest.mark.parametrize(
    ("widths", "kinds"),
    [
        ((), "Dropout Linear"),
        ((7,), "Linear ReLU Dropout Linear"),
        ((7, 5), "Linear ReLU Dropout Linear ReLU Dropout Linear"),
    ],
)
def test_the_head_has_the_widths_asked_for(widths: tuple[int, ...], kinds: str) -> None:
    model = build("squeezenet1_1", head_widths=widths, dropout=0.25, classes=4)
    assert " ".join(type(layer).__name__ for layer in model.head) == kinds
    linear = [(layer.in_features, layer.out_features) for layer in model.head if isinstance(layer, nn.Linear)]
    assert linear == list(zip((512, *widths), (*widths, 4), strict=True))
    assert {layer.p for layer in model.head if isinstance(layer, nn.Dropout)} == {0.25}


def test_the_same_seeds_build_the_same_model_and_leave_the_global_generator_alone() -> None:
    state = torch.random.get_rng_state()
    first, again = (build("mobilenet_v2", seed=5, trunk_seed=7).trained_state() for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_a_head_follows_from_its_own_seed_and_a_random_trunk_from_another() -> None:
    first, head, trunk = (build("mobilenet_v2", seed=s, trunk_seed=t) for s, t in ((5, 7), (6, 7), (5, 8)))
    states = [model.trained_state() for model in (first, head, trunk)]
    for name in ("head.1.weight", "features.0.0.weight"):
        same = [torch.equal(states[0][name], state[name]) for state in states[1:]]
        assert same == ([False, True] if name.startswith("head") else [True, False])


def statistics(model: FineTunedModel, block: int) -> dict[str, Tensor]:
    return {
        name: tensor.clone()
        for name, tensor in model.trunk.named_buffers()
        if name.startswith(tuple(f"{module}." for module in model.backbone.blocks[block - 1]))
    }


def test_frozen_statistics_stay_bitwise_and_trained_ones_move() -> None:
    model = pretrained("mobilenet_v2", depth=1)
    before, frozen = [statistics(model, block) for block in range(1, 5)], model.frozen_sha256()
    train(model)
    for block in (1, 2, 3):
        after = statistics(model, block)
        assert after
        assert all(torch.equal(after[name], tensor) for name, tensor in before[block - 1].items())
    assert not any(torch.equal(statistics(model, 4)[name], tensor) for name, tensor in before[3].items())
    assert model.frozen_sha256() == frozen


def test_a_plain_train_mode_would_move_frozen_statistics() -> None:
    model = pretrained("mobilenet_v2", depth=1)
    frozen = model.frozen_sha256()
    nn.Module.train(model)
    train(model, steps=1)
    assert model.frozen_sha256() != frozen
    model = pretrained("mobilenet_v2", depth=1)
    model.train()  # Ours.
    train(model, steps=1)
    assert model.frozen_sha256() == frozen


def test_a_batchnorm_beside_a_trained_convolution_stays_frozen() -> None:
    model = build("resnet18", unfreeze_depth=None, unfreeze_layers=("layer4.1.conv2",))
    assert not any(module.training for module in model.trunk.modules() if isinstance(module, nn.BatchNorm2d))
    model = build("resnet18", unfreeze_depth=None, unfreeze_layers=("layer4.1.conv2", "layer4.1.bn2"))
    training = {
        name for name, module in model.trunk.named_modules() if isinstance(module, nn.BatchNorm2d) and module.training
    }
    assert training == {"layer4.1.bn2"}


@pytest.mark.parametrize(
    ("backbone", "kind"),
    [(name, "StochasticDepth") for name in ("efficientnet_b0", "convnext_tiny", "efficientnet_v2_s", "swin_t")],
)
def test_randomness_starts_with_the_first_module_that_trains(backbone: str, kind: str) -> None:
    model = build(backbone, unfreeze_depth=2, dropout=0.5)
    third = BACKBONES[backbone].blocks[2][0]
    for name, module in model.trunk.named_modules():
        if type(module).__name__ == kind:
            assert module.training == (int(name.split(".")[1]) >= int(third.split(".")[1])), name
    assert model.head.training
    model.eval()
    assert not any(module.training for module in model.modules())
    model.train()
    assert torch.equal(model.forward_frozen(images()), model.forward_frozen(images()))
    assert not torch.equal(model(images()), model(images()))


def test_head_and_backbone_have_learning_rates_of_their_own() -> None:
    model = pretrained("resnet18", depth=1)
    head, backbone = model.parameter_groups(0.1, 0.01)
    assert (head["lr"], backbone["lr"]) == (0.1, pytest.approx(0.001))
    assert (
        sum(parameter.numel() for group in (head, backbone) for parameter in group["params"])
        == model.trainable_params()
    )
    assert [group["lr"] for group in pretrained("resnet18", depth=0).parameter_groups(0.1, 0.01)] == [0.1]


def test_trained_state_brings_another_model_to_the_same_function() -> None:
    trained, fresh = pretrained("mobilenet_v2", depth=1, seed=1), pretrained("mobilenet_v2", depth=1, seed=2)
    train(trained)
    state = trained.trained_state()
    assert "features.18.1.running_mean" in state
    assert "features.0.0.weight" not in state
    assert set(trained.trainable_names()) < set(state)
    fresh.load_trained_state(state)
    assert torch.equal(fresh.eval()(images()), trained.eval()(images()))
    train(trained)
    assert not torch.equal(state["head.1.weight"], trained.trained_state()["head.1.weight"]), "the state is a copy"


def test_random_weights_are_kept_whole() -> None:
    model = build("squeezenet1_1", unfreeze_depth=0)
    assert set(model.trained_state()) == {
        *(name for name, _ in model.trunk.named_parameters()),
        "head.1.weight",
        "head.1.bias",
    }
    other = build("squeezenet1_1", trunk_seed=9)
    assert other.frozen_sha256() != model.frozen_sha256()
    other.load_trained_state(model.trained_state())
    assert other.frozen_sha256() == model.frozen_sha256()


def test_saved_weights_of_another_model_are_refused_with_all_reasons() -> None:
    state = pretrained("squeezenet1_1", depth=1).trained_state()
    state["head.1.weight"] = torch.zeros(4, 512)
    state["features.0.weight"] = state.pop("features.11.squeeze.weight")
    before = pretrained("squeezenet1_1", depth=1)
    kept = before.trained_state()
    with pytest.raises(UserError) as caught:
        before.load_trained_state(state)
    assert len(caught.value.problems) == 3
    assert "head.1.weight has shape [4, 512] instead of [3, 512]" in str(caught.value)
    assert all(torch.equal(tensor, kept[name]) for name, tensor in before.trained_state().items())


@pytest.mark.parametrize("backbone", ["mobilenet_v2", "efficientnet_b0", "convnext_tiny"])
def test_depthwise_convolutions_train_in_float32_under_a_cpus_autocast(backbone: str) -> None:
    """And in no other case: what is frozen, validated, or in single precision is as torch has it."""
    trunk = build(backbone, unfreeze_depth=4).trunk
    mine = next(one for one in trunk.modules() if isinstance(one, nn.Conv2d) and one.groups == one.in_channels > 1)
    plain = nn.Conv2d(
        mine.in_channels, mine.out_channels, mine.kernel_size, mine.stride, mine.padding, groups=mine.groups, bias=False
    )
    plain.weight, plain.bias = mine.weight, mine.bias
    inputs = torch.rand(2, mine.in_channels, 8, 8)
    assert torch.equal(mine(inputs), plain(inputs))
    with torch.autocast("cpu", torch.bfloat16):
        rounded = inputs.bfloat16()
        trained = mine(rounded)
        with torch.no_grad():
            assert torch.equal(mine(rounded), plain(rounded))
    assert torch.equal(trained, plain(rounded.float()).bfloat16())
    trained.float().square().sum().backward()  # type: ignore[no-untyped-call]
    assert mine.weight.grad is not None


def test_a_model_needs_the_weights_of_its_own_backbone() -> None:
    params = TrialParams(backbone="resnet18")
    with pytest.raises(AssertionError):
        build_model(params, 3, FoundWeights(backbone="vgg16", origin="random"), SIZE, 0)
