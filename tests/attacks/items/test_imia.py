"""IMIA's rule against a loop as it was released, and what it can and cannot find."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from privfed.adversary import Prior
from privfed.attacks.items.imia import Imia, Rule
from privfed.channels.plain import Plain
from privfed.data.splits import leave_one_out
from privfed.data.worlds import demo
from privfed.guesses import Items
from privfed.interfaces import Round
from privfed.machine import Machine
from privfed.methods.bpr import BPR
from privfed.methods.fedncf import FedNCF
from privfed.metrics.leakage import items
from privfed.rounds import Setup, run
from privfed.seeds import Seeds
from privfed.views import ModelView, UploadsView
from tests.worlds import opening, shards, uneven

STREAM = Seeds(3)("labels")


def padded(counts: list[int], seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Candidates of clients, rows of width 1, and true labels: a fifth of them."""
    rng = torch.Generator().manual_seed(seed)
    size = (len(counts), max(counts))
    real = torch.arange(size[1]) < torch.tensor(counts)[:, None]
    value = torch.randn(*size, 1, generator=rng)
    truth = torch.rand(size, generator=rng).masked_fill(~real, 2.0)
    order = truth.argsort(1).argsort(1)
    yes = order < (torch.tensor(counts)[:, None] / 5).floor()
    return value, real, yes & real


def released(
    count: int,
    share: float,
    keep: float,
    gap: Callable[[list[int]], list[float]],
    keys: Callable[[int, int], float],
) -> set[int]:
    """IMIA_for_one_user of the released code, with its draws and distances given."""
    every = list(range(count))
    aim = int(share * count)
    confirmed_pos: list[int] = []
    confirmed_neg: list[int] = []

    def shuffled(among: list[int], turn: int) -> list[int]:
        return sorted(among, key=lambda i: keys(turn, i))

    open_, turn = shuffled(every, 0), 0
    selected, others = open_[:aim], open_[aim:]
    while len(confirmed_pos) < aim or len(open_) > aim:
        distance = gap(selected)
        num = 0
        for item in sorted(every, key=lambda i: (distance[i], i)):
            if item not in confirmed_neg and item not in confirmed_pos:
                (confirmed_pos if item in selected else confirmed_neg).append(item)
                num += 1
            if num > int(keep * count):
                break
        open_ = [i for i in every if i not in confirmed_pos + confirmed_neg]
        if len(confirmed_pos) >= aim:
            break
        turn += 1
        open_ = shuffled(open_, turn)
        missing = aim - len(confirmed_pos)
        selected = confirmed_pos + open_[:missing]
        others = confirmed_neg + open_[missing:]
    assert len(selected) + len(others) <= count
    return set(confirmed_pos)


@given(
    st.lists(st.integers(5, 40), min_size=1, max_size=4),
    st.sampled_from([0.2, 0.35]),
    st.sampled_from([0.1, 0.35, 0.5, 0.9]),
    st.integers(0, 100),
)
def test_it_believes_what_the_released_loop_believes(
    counts: list[int], share: float, keep: float, seed: int
) -> None:
    value, real, truth = padded(counts, seed)
    of = torch.arange(len(counts)) + 7
    slot = torch.arange(max(counts))
    noise = torch.rand(truth.shape, generator=torch.Generator().manual_seed(seed))

    def distances(label: Tensor) -> Tensor:
        return (label != truth) * 0.5 + noise

    found = Rule(share, keep, STREAM).believed(
        lambda label: value + distances(label)[..., None], value, real, of
    )

    for k, count in enumerate(counts):

        def gap(selected: list[int], k: int = k) -> list[float]:
            label = torch.zeros_like(truth)
            label[k, selected] = True
            moved = value + distances(label)[..., None] - value
            return moved[k, :, 0].abs().tolist()

        def key(turn: int, item: int, k: int = k) -> float:
            draws = STREAM.of("turn", turn).uniform(of[k], slot)
            return float(draws[item])

        expected = released(count, share, keep, gap, key)
        assert set(found[k].nonzero()[:, 0].tolist()) == expected
        assert len(expected) == int(share * count)


def test_with_nine_in_ten_believed_one_shadow_is_trained() -> None:
    value, real, truth = padded([50, 30])
    trained = []

    def train(label: Tensor) -> Tensor:
        trained.append(label)
        return value + (label != truth)[..., None]

    Rule(0.2, 0.9, STREAM).believed(train, value, real, torch.arange(2))

    assert len(trained) == 1


def test_a_distance_that_never_errs_gains_little_at_nine_in_ten_and_much_at_one() -> (
    None
):
    value, real, truth = padded([1000] * 20)
    ties = torch.Generator().manual_seed(1)

    def precision(keep: float) -> float:
        def train(label: Tensor) -> Tensor:
            gap = (label != truth) + torch.rand(truth.shape, generator=ties) / 2
            return value + gap[..., None]

        yes = Rule(0.2, keep, STREAM).believed(train, value, real, torch.arange(20))
        return float((yes & truth).sum() / yes.sum())

    assert precision(0.9) == pytest.approx((0.2 * 0.2 + 0.05 * 0.5) / 0.2, abs=0.02)
    assert precision(0.1) > 0.85


def test_rows_that_tell_nothing_leave_chance() -> None:
    value, real, truth = padded([1000] * 20)

    yes = Rule(0.2, 0.5, STREAM).believed(
        lambda label: torch.zeros(*label.shape, 1), value, real, torch.arange(20)
    )

    assert float((yes & truth).sum() / yes.sum()) == pytest.approx(0.2, abs=0.02)


def views(order: int) -> list[ModelView | UploadsView]:
    """One round of FedNCF on an uneven world; ``order`` is of the shards."""
    world, seeds = uneven(), Seeds(6)
    method = FedNCF(width=8, epochs=4)
    model, private = method.init(world.shape, seeds("init"))
    channel = Plain()
    opened = channel.open(opening(world.shape))
    found: list[ModelView | UploadsView] = []
    for cohort in shards(world, 3):
        now = Round(0, seeds("train"), seeds("once"))
        up = method.train(model, private, cohort, now).uploads
        opened, view = channel.send(opened, up)
        assert isinstance(view, UploadsView)
        found.append(view)
    return [ModelView(round=0, model=model), *found[::order]]


def claimed(attack: Imia, order: int = 1) -> Items:
    prior = Prior(uneven().shape, Seeds(1)("attack"), FedNCF(width=8, epochs=4))
    memory = attack.start(prior)
    for view in views(order):
        memory = attack.observe(memory, view)
    return attack.guess(memory, prior)


def test_the_order_of_shards_changes_nothing() -> None:
    found, turned = claimed(Imia(keep=0.3)), claimed(Imia(keep=0.3), -1)

    assert torch.equal(found.chosen, turned.chosen)
    assert torch.equal(found.score, turned.score)
    assert torch.equal(found.clients, turned.clients)


def test_it_claims_a_share_of_what_was_sent_of_so_many_victims() -> None:
    found = claimed(Imia(victims=3))
    sent = found.score > 0

    assert len(found.clients) == 3
    assert torch.equal(found.chosen.sum(1), (0.2 * sent.sum(1).double()).long())
    assert not bool((found.chosen & ~sent).any())


def test_it_beats_chance_on_fedncf() -> None:
    world = leave_one_out(demo())
    setup = Setup(
        world,
        FedNCF(learning_rate=0.5, item_rate=10.0, item_std=0.3),
        Plain(),
        attacks={"imia": Imia(victims=300)},
        rounds=1,
    )
    guess = run(setup, Machine(workers=1)).guesses["imia"]
    assert isinstance(guess, Items)
    scores = items.score(guess, world.train)
    sent = (guess.score > 0).sum(1)
    share = world.train.counts[guess.clients] / sent
    gain = scores["precision"] - share

    assert float(gain.mean()) > 3 * float(gain.std()) / len(gain) ** 0.5


def test_a_method_without_a_recipe_is_told_so() -> None:
    assert "cannot repeat" in Imia().misfit(BPR())
    assert not Imia().misfit(FedNCF())


@pytest.mark.parametrize(
    ("name", "value"), [("share", 0.0), ("share", 1.0), ("keep", 1.5), ("victims", 0)]
)
def test_settings_that_cannot_be(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        Imia(**{name: value})  # type: ignore[arg-type]
