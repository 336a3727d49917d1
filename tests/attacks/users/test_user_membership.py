"""Who took part shows in how the broadcast model moves, and in nothing else."""

import math

import pytest
import torch
from torch import Generator, Tensor

from privfed.adversary import Prior
from privfed.attacks.users.user_membership import UserMembership
from privfed.channels.plain import Plain
from privfed.data.world import Ragged, Shape, World
from privfed.defenses.user_dp import UserDP
from privfed.guesses import Users
from privfed.interfaces import Defense, Method
from privfed.methods.bpr import BPR
from privfed.methods.pfedrec import PFedRec
from privfed.metrics.leakage.users import auc
from privfed.rounds import Setup, run
from privfed.sampling import Sampling
from privfed.views import ModelView
from tests.attacks.views import SEEDS
from tests.worlds import lay, world


def crowd(clients: int = 80, items: int = 240) -> World:
    """Popular items are had by many, as in life."""
    rng = Generator().manual_seed(2)
    weight = 1 / (1 + torch.arange(items).float())
    lists = [
        torch.multinomial(weight, 10 + k % 9, generator=rng).tolist()
        for k in range(clients)
    ]
    return world(lists, items)


def attacked(method: Method, *defenses: Defense) -> float:
    sampling = Sampling("uniform", clients_per_round=4)
    attacks = {"it": UserMembership()}
    outcome = run(
        Setup(crowd(), method, Plain(), defenses, attacks, sampling, rounds=6)
    )
    guess = outcome.guesses["it"]
    assert isinstance(guess, Users)
    assert torch.equal(guess.clients, torch.arange(80))
    return auc(guess.score, outcome.state.took_part)


@pytest.mark.parametrize(
    "method",
    [BPR(width=8), PFedRec(width=8, item_rate=0.01)],
    ids=lambda m: type(m).__name__,
)
def test_members_are_told_from_others(method: Method) -> None:
    assert attacked(method) > 0.9


@pytest.mark.slow
def test_differential_privacy_for_users_hides_them() -> None:
    assert 0.3 < attacked(BPR(width=8), UserDP(epsilon=1.0)) < 0.7


def prior_of(profiles: Ragged, items: int) -> Prior:
    shape = Shape(len(profiles.counts), items)
    return Prior(shape, SEEDS("attack"), BPR(), profiles=profiles)


def watched(prior: Prior, *tables: Tensor, groups: int = 32) -> Users:
    attack = UserMembership(groups=groups)
    memory = attack.start(prior)
    for number, table in enumerate(tables):
        view = ModelView(round=number, model={"items": table, "own.start": table})
        memory = attack.observe(memory, view)
    return attack.guess(memory, prior)


def naive(before: Tensor, after: Tensor, profiles: Ragged, groups: int) -> list[float]:
    """The evidence of one round, candidate by candidate and row by row."""
    items, width = before.shape
    change = (after - before).double()
    count = torch.bincount(profiles.item, minlength=items).tolist()
    ranked = sorted(range(items), key=lambda i: (count[i], i))
    group = {item: place * groups // items for place, item in enumerate(ranked)}
    mates = {i: [j for j in range(items) if group[j] == group[i]] for i in range(items)}
    found = []
    for client in range(len(profiles.counts)):
        pairs = profiles.of(torch.tensor([client]))
        if not len(pairs.item):
            continue
        total = 0.0
        mean = float(pairs.label.mean())
        pulls = [torch.zeros(width).double(), torch.zeros(width).double()]
        scales = [0.0, 0.0]
        for item, label in zip(pairs.item.tolist(), pairs.label.tolist(), strict=True):
            near = mates[item]
            moved = [bool((change[j] != 0).any()) for j in near]
            rate = min(max(sum(moved) / len(near), 1e-6), 1 - 1e-6)
            if (change[item] != 0).any():
                total -= math.log(rate)
            elif rate < 1 - 1e-5:
                total += math.log(1e-9 / (1 - rate))
            usual = change[near].mean(0)
            size = float((change[near] - usual).square().sum(1).mean())
            for k, weight in enumerate((1.0, label - mean)):
                pulls[k] = pulls[k] + weight / size * (change[item] - usual)
                scales[k] += weight**2 / size
        for pull, scale in zip(pulls, scales, strict=True):
            if scale > 0:
                along = float(pull.square().sum()) / scale
                total += width / 2 * math.log1p(along)
        found.append(total)
    return found


def test_the_evidence_is_that_of_a_loop() -> None:
    rng = Generator().manual_seed(4)
    plain = lay([[0, 3, 5, 7], [1, 2], [], [4, 6, 8, 9, 11]])
    labels = torch.tensor([1.0, 5, 3, 2, 4, 4, 5, 1, 2, 2, 3])
    profiles = Ragged(plain.offsets, plain.item, labels, plain.context)
    before = torch.randn(12, 3, generator=rng).double()
    moved = torch.rand(12, 1, generator=rng) < 0.7
    after = before + torch.randn(12, 3, generator=rng) * moved

    found = watched(prior_of(profiles, 12), before, after, groups=3)

    assert found.clients.tolist() == [0, 1, 3]
    expected = naive(before, after, profiles, 3)
    assert found.score.tolist() == pytest.approx(expected, rel=1e-9)


def test_a_candidate_scores_its_best_round() -> None:
    rng = Generator().manual_seed(4)
    profiles = lay([[0, 3, 5], [1, 2, 8]])
    tables = [torch.randn(12, 3, generator=rng) for _ in range(3)]
    prior = prior_of(profiles, 12)

    both = watched(prior, *tables, groups=2).score
    each = [watched(prior, *tables[k : k + 2], groups=2).score for k in range(2)]

    torch.testing.assert_close(both, torch.maximum(*each))


def test_noise_tells_nobody_from_anybody() -> None:
    rng = Generator().manual_seed(4)
    of = crowd(400)
    tables = [torch.randn(240, 8, generator=rng) for _ in range(5)]
    found = watched(prior_of(of.train, 240), *tables)
    assert found.score.isfinite().all()
    assert 0.42 < auc(found.score, torch.arange(400) % 2 == 0) < 0.58


@pytest.mark.parametrize("times", [0, 1, 3])
def test_a_model_that_stands_still_claims_nobody(times: int) -> None:
    tables = [torch.ones(12, 3)] * times
    found = watched(prior_of(lay([[0, 3], [1]]), 12), *tables)
    assert len(found.clients) == 0


def test_groups_must_be_positive() -> None:
    with pytest.raises(ValueError, match="groups"):
        UserMembership(groups=0)
