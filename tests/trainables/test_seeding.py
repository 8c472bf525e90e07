"""A trial's random numbers are its own."""

import torch

from trainables.seeding import PURPOSES, Randomness, set_determinism

CPU = torch.device("cpu")


def dropout_draws(random, count=3):
    with random.for_dropout():
        return torch.rand(count)


def test_the_same_seed_and_number_give_the_same_streams_and_others_give_others():
    first, again = Randomness(1, 2, CPU), Randomness(1, 2, CPU)
    others = [Randomness(1, 3, CPU), Randomness(2, 2, CPU), Randomness(2, 1, CPU)]
    assert first.weights_seed == again.weights_seed
    assert torch.equal(dropout_draws(first), dropout_draws(again))
    assert len({one.weights_seed for one in [first, *others]}) == 4
    assert len({float(torch.rand(1, generator=one.shuffling)) for one in [first, *others]}) == 4


def test_the_streams_of_one_trial_differ():
    random = Randomness(0, 0, CPU)
    drawn = {float(torch.rand(1, generator=one)) for one in (random.shuffling, random.augmentation)}
    drawn |= {float(dropout_draws(random)[0]), float(torch.rand(1, generator=torch.Generator().manual_seed(0)))}
    assert len(drawn) == len(PURPOSES)


def test_dropout_neither_reads_nor_moves_the_state_of_the_process():
    random, alone = Randomness(0, 0, CPU), Randomness(0, 0, CPU)
    before = torch.get_rng_state()
    first = dropout_draws(random)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(5)
    assert torch.equal(torch.stack([first, dropout_draws(random)]), dropout_draws(alone, 6).view(2, 3))


def test_every_stream_goes_on_from_its_state():
    random, restored = Randomness(0, 0, CPU), Randomness(7, 7, CPU)
    torch.rand(3, generator=random.shuffling), torch.rand(4, generator=random.augmentation), dropout_draws(random)
    restored.load_state_dict({name: state.clone() for name, state in random.state_dict().items()})
    assert torch.equal(torch.rand(2, generator=random.shuffling), torch.rand(2, generator=restored.shuffling))
    assert torch.equal(torch.rand(2, generator=random.augmentation), torch.rand(2, generator=restored.augmentation))
    assert torch.equal(dropout_draws(random), dropout_draws(restored))


def test_determinism_is_switched_on_and_off():
    try:
        set_determinism(True)
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        set_determinism(False)
    assert not torch.are_deterministic_algorithms_enabled()
