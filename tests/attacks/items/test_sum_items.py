"""Interacted items come out of sums, the more so the smaller the cohorts."""

from dataclasses import replace

import pytest
import torch
from torch import Generator, Tensor

from privfed.adversary import Prior
from privfed.attacks.items.sign_pc import SignPC
from privfed.attacks.items.sum_items import SumItems
from privfed.attacks.reading.cohorts import came, cohorts, nobody
from privfed.channels.masked.channel import Masked
from privfed.channels.plain import Plain
from privfed.data.world import Shape, World
from privfed.defenses.gaussian import Gaussian
from privfed.guesses import Items
from privfed.interfaces import Channel, Defense, Method
from privfed.messages import Total
from privfed.methods.bpr import BPR
from privfed.methods.fedmf import FedMF
from privfed.methods.pfedrec import PFedRec
from privfed.metrics.leakage import judge
from privfed.metrics.leakage.judged import Judged, Truth
from privfed.rounds import Setup, run
from privfed.sampling import Sampling
from privfed.views import ModelView, RoundView, TotalView
from tests.attacks.views import SEEDS, truth
from tests.worlds import world


def crowd(clients: int = 60, items: int = 200) -> World:
    """Popular items are had by many, as in life."""
    rng = Generator().manual_seed(2)
    weight = 1 / (4 + torch.arange(items).float())
    lists = [
        torch.multinomial(weight, 12 + k % 9, generator=rng).tolist()
        for k in range(clients)
    ]
    return world(lists, items)


def attacked(
    cohort: int,
    rounds: int,
    *defenses: Defense,
    method: Method | None = None,
    channel: Channel | None = None,
    kind: str = "queue",
) -> tuple[Items, Judged]:
    of = crowd()
    sampling = Sampling(kind, clients_per_round=cohort)  # type: ignore[arg-type]
    setup = Setup(
        of,
        method or BPR(width=16),
        channel or Plain(),
        defenses,
        {"it": SumItems()},
        sampling,
        rounds=rounds,
    )
    outcome = run(setup)
    guess = outcome.guesses["it"]
    assert isinstance(guess, Items)
    facts = Truth(of, {}, {}, outcome.state.took_part)
    found = judge(guess, facts, outcome.priors["it"])
    assert isinstance(found, Judged)
    return guess, found


def auc(found: Judged) -> float:
    return found.scores["auc"].mean()


@pytest.mark.parametrize(
    "method",
    [BPR(width=16), PFedRec(width=8, item_rate=0.001)],
    ids=lambda m: type(m).__name__,
)
def test_a_cohort_of_one_is_an_upload(method: Method) -> None:
    guess, found = attacked(1, 60, method=method)
    assert auc(found) > 0.99
    assert found.scores["f1"].mean() > 0.95
    assert torch.equal(guess.clients, torch.arange(60))


def test_a_larger_cohort_tells_less_and_everybody_no_more_than_popularity() -> None:
    one, few, many = (auc(attacked(n, 60 // n)[1]) for n in (1, 3, 20))
    _, all_of_them = attacked(60, 1)
    assert one > few > many
    assert few > attacked(3, 20)[1].floor["auc"].mean() + 0.05
    popularity = all_of_them.floor["auc"].mean()
    assert auc(all_of_them) == pytest.approx(popularity, abs=0.02)


@pytest.mark.parametrize("channel", [Plain(), Masked(min_cohort=3)])
def test_changing_cohorts_are_differenced(channel: Channel) -> None:
    """Who came tells a sum's clients apart, more so with every round."""
    few, many = (
        auc(attacked(8, rounds, channel=channel, kind="uniform")[1])
        for rounds in (8, 60)
    )
    assert many > max(few, 0.97)


def test_noise_leaves_popularity() -> None:
    _, found = attacked(3, 20, Gaussian(variance=1.0))
    assert auc(found) == pytest.approx(found.floor["auc"].mean(), abs=1e-6)


def planted(
    cohort: list[list[int]], has: Tensor, share: Tensor
) -> tuple[Prior, list[TotalView | RoundView | ModelView]]:
    """Rounds of counts alone: every row of a sum says how many sent it."""
    clients, items = has.shape
    shape, method = Shape(clients, items), FedMF()
    prior = Prior(shape, SEEDS("attack"), method, popularity=share * clients)
    views: list[TotalView | RoundView | ModelView] = []
    for number, came_now in enumerate(cohort):
        who = torch.tensor(came_now)
        count = has[who].sum(0)
        table = count[:, None] * torch.ones(1, 4)
        total = Total({"items": table}, {"items": count}, {}, len(who), len(who))
        views += [
            ModelView(round=number, model={}),
            RoundView(round=number, clients=who[:1], bytes_up=who[:1]),
            RoundView(round=number, clients=who[1:], bytes_up=who[1:]),
            TotalView(round=number, clients=len(who), total=total),
        ]
    return prior, views


def told(
    attack: SumItems, prior: Prior, views: list[TotalView | RoundView | ModelView]
) -> Items:
    memory = attack.start(prior)
    for view in views:
        memory = attack.observe(memory, view)
    found = attack.guess(memory, prior)
    assert isinstance(found, Items)
    return found


def test_counts_of_enough_cohorts_are_solved_for() -> None:
    """Four clients in pairs: six equations tell each one's items."""
    rng = Generator().manual_seed(1)
    has = (torch.rand(4, 30, generator=rng) < 0.4).long()
    pairs = [[0, 1], [1, 2], [2, 3], [0, 3], [0, 2], [1, 3]]
    prior, views = planted(pairs, has, has.double().mean(0))

    found = told(SumItems(ridge=1e-6), prior, views)

    assert torch.equal(found.score > 0.5, has.bool())


def test_the_score_is_the_ridge_solution_less_what_is_ruled_out() -> None:
    rng = Generator().manual_seed(3)
    has = (torch.rand(5, 40, generator=rng) < 0.3).long()
    rounds = [[0, 1, 2], [1, 3], [0, 4, 3], [2, 4]]
    share = torch.rand(40, generator=rng).double()
    prior, views = planted(rounds, has, share)

    found = told(SumItems(ridge=0.7), prior, views)

    member = torch.zeros(4, 5).double()
    for row, who in enumerate(rounds):
        member[row, who] = 1
    count = member @ has.double()
    for item in range(40):
        target = count[:, item] - member @ share[item].expand(5)
        system = member.T @ member + 0.7 * torch.eye(5).double()
        moved = torch.linalg.solve(system, member.T @ target)
        for client in range(5):
            own = member[:, client] > 0
            ruled_out = float((count[own, item] == 0).double().mean())
            expected = float(share[item] + moved[client]) - ruled_out
            assert float(found.score[client, item]) == pytest.approx(expected, abs=1e-5)


def test_views_of_a_round_in_any_order_change_nothing() -> None:
    rng = Generator().manual_seed(3)
    has = (torch.rand(5, 40, generator=rng) < 0.3).long()
    prior, views = planted([[0, 1, 2], [1, 3], [0, 4, 3]], has, has.double().mean(0))
    turned = [
        view for at in (0, 4, 8) for view in (views[at], *views[at + 1 : at + 4][::-1])
    ]
    one, other = (told(SumItems(), prior, list(v)) for v in (views, turned))
    assert torch.equal(one.score, other.score)


def test_only_so_many_rounds_are_read() -> None:
    has = torch.eye(5, 40).long()
    prior, views = planted([[0, 1], [2, 3]], has, has.double().mean(0))
    assert told(SumItems(rounds=1), prior, views).clients.tolist() == [0, 1]


def test_without_views_there_is_no_claim() -> None:
    prior, _ = planted([], torch.eye(5, 40).long(), torch.ones(40).double())
    assert told(SumItems(), prior, []).score.shape == (0, 40)


def test_cohorts_are_remembered_shard_by_shard() -> None:
    memory = nobody()
    for number, who in ((7, [4, 1]), (2, [1]), (7, [9]), (3, [5])):
        part = torch.tensor(who)
        memory = came(memory, RoundView(round=number, clients=part, bytes_up=part))

    clients, member = cohorts(memory, torch.tensor([7, 2]))

    assert clients.tolist() == [1, 4, 9]
    assert member.tolist() == [[1, 1, 1], [1, 0, 0]]


@pytest.mark.parametrize("name", ["lines", "rounds", "ridge"])
def test_settings_must_be_positive(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        replace(SumItems(), **{name: 0})


def test_one_upload_tells_it_as_much_as_it_tells_sign_pc() -> None:
    """A plain server sees both, and a sum of one is the upload."""
    of = crowd()
    setup = Setup(
        of,
        BPR(width=16),
        Plain(),
        attacks={"sum": SumItems(), "single": SignPC()},
        sampling=Sampling("queue", clients_per_round=1),
        rounds=60,
    )
    guesses = run(setup).guesses
    for one in guesses.values():
        assert isinstance(one, Items)
        assert (one.chosen == truth(of, one.clients)).double().mean() > 0.99
