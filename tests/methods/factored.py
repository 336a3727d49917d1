"""What the tests of matrix factorization share: worlds, and a round of them."""

from dataclasses import replace

import torch
from torch import Generator, Tensor

from privfed.channels.plain import Plain
from privfed.data.world import World
from privfed.interfaces import Channel, FromTotal, Method, Round, State
from privfed.messages import Total
from privfed.seeds import Seeds
from tests.worlds import opening, shards, uneven

SEEDS = Seeds(7)
MANY = (0, 4, 4, 7, 12, 13, 9, 16, 15, 30, 31, 29, 26, 27, 25, 32, 28, 6)


def round_of(number: int) -> Round:
    return Round(number, SEEDS("train", number), SEEDS("once"))


def rated(of: World | None = None) -> World:
    """A world with stars from 1 to 5 on its training interactions."""
    of = of or uneven()
    rng = Generator().manual_seed(3)
    stars = torch.randint(1, 6, of.train.label.shape, generator=rng).float()
    return replace(of, train=replace(of.train, label=stars), task="rating")


def shaken(method: Method, of: World, size: float = 0.3) -> tuple[State, State]:
    """A first state in which no two clients and no two items are alike."""
    rng = Generator().manual_seed(11)

    def shake(state: State) -> State:
        return {
            n: v if n.startswith("server.") else v + size * _normal(v, rng)
            for n, v in state.items()
        }

    model, private = method.init(of.shape, SEEDS("init"))
    return shake(model), shake(private)


def _normal(like: Tensor, rng: Generator) -> Tensor:
    return torch.randn(like.shape, generator=rng)


def one_round(
    method: Method,
    model: State,
    private: State,
    of: World,
    size: int = 100,
    number: int = 3,
    channel: Channel | None = None,
) -> tuple[Total, dict[str, Tensor]]:
    """A round's total and the private state after it, trained in shards."""
    carrier = channel or Plain()
    opened = carrier.open(opening(of.shape))
    after = {n: v.clone() for n, v in private.items()}
    for cohort in shards(of, size):
        trained = method.train(model, private, cohort, round_of(number))
        for n, value in trained.private.items():
            after[n][cohort.clients] = value
        opened, _ = carrier.send(opened, trained.uploads)
    return carrier.close(opened).total, after


def own(of: World, client: int) -> tuple[Tensor, Tensor]:
    """A client's training items and labels."""
    part = slice(int(of.train.offsets[client]), int(of.train.offsets[client + 1]))
    return of.train.item[part], of.train.label[part].double()


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual.double(), expected, rtol=2e-4, atol=2e-5)


def bits(method: Method, of: World, number: int = 3) -> None:
    """Assert that no shard size changes a bit of a round."""
    model, private = shaken(method, of)
    whole, kept = one_round(method, model, private, of, number=number)
    for size in (1, 3, 7):
        total, after = one_round(method, model, private, of, size, number)
        for name, value in whole.tables.items():
            assert torch.equal(total.tables[name], value), name
            assert torch.equal(total.senders[name], whole.senders[name]), name
        for name, value in kept.items():
            assert torch.equal(after[name], value), name


def leaves_alone(method: Method, of: World) -> None:
    """Assert that a round changes nothing that it was given."""
    assert isinstance(method, FromTotal)
    model, private = shaken(method, of)
    before = {n: v.clone() for n, v in {**model, **private}.items()}

    total, _ = one_round(method, model, private, of)
    method.apply(model, total)

    for n, value in {**model, **private}.items():
        assert torch.equal(value, before[n]), n
