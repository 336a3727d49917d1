"""Membership of interactions, by how likely rows are among those of shadow users."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from privfed.adversary import Prior
from privfed.attacks.items.densities import Blend, Student
from privfed.attacks.items.likelihood_ratio import LikelihoodRatio
from privfed.attacks.items.row_features import features
from privfed.channels.plain import Plain
from privfed.data.splits import leave_one_out
from privfed.data.world import World
from privfed.data.worlds import demo
from privfed.defenses.gaussian import Gaussian
from privfed.guesses import Interactions
from privfed.interfaces import Defense, Method, Round
from privfed.machine import Machine
from privfed.messages import Rows
from privfed.methods.bpr import BPR
from privfed.methods.fcf import FCF
from privfed.methods.fedncf import FedNCF
from privfed.methods.neural_avg import NeuralAvg
from privfed.metrics.leakage import judge
from privfed.metrics.leakage.interactions import Ranked
from privfed.metrics.leakage.judged import Judged, Truth
from privfed.rounds import Setup, run
from privfed.seeds import Seeds
from privfed.shadows import shadows
from privfed.views import ServerView, View
from tests.worlds import opening, shards, uneven

DEMO = leave_one_out(demo())
LINEAR = FCF(width=8, epochs=1, item_rate=80.0, item_std=1.0)
FEW = LikelihoodRatio(sizes=4, shadows=8, starts=2)


def attacked(
    method: Method, *defenses: Defense, world: World = DEMO, attack: object = FEW
) -> tuple[Judged, Interactions]:
    """One round, and what the attack makes of it."""
    setup = Setup(
        world,
        method,
        Plain(),
        defenses,
        {"lr": attack},  # type: ignore[dict-item]
        rounds=1,
    )
    out = run(setup, Machine(workers=1))
    guess, state = out.guesses["lr"], out.state
    assert isinstance(guess, Interactions)
    truth = Truth(world, state.model, state.private, state.took_part)
    found = judge(guess, truth, out.priors["lr"])
    assert isinstance(found, Judged)
    return found, guess


def value(found: Judged, key: str) -> float:
    return found.scores[key].mean()


NCF = FedNCF(width=16, learning_rate=0.5, item_rate=10.0, item_std=0.3)


@pytest.mark.parametrize(
    "method",
    [LINEAR, BPR(width=8), replace(NCF, epochs=1), NeuralAvg(learning_rate=0.05)],
    ids=lambda m: type(m).__name__,
)
def test_raw_uploads_give_every_interaction_away(method: Method) -> None:
    found, _ = attacked(method)

    assert value(found, "auc") > 0.995
    assert value(found, "tpr@fpr_1e-2") > 0.95
    assert value(found, "coverage") == 1.0
    low, high = found.advantage().interval(Seeds(0)("b"))  # type: ignore[union-attr]
    assert 0.2 < low < high


def test_log_odds_are_calibrated_enough_to_decide_by() -> None:
    _, guess = attacked(LINEAR)
    real = torch.zeros(DEMO.shape.clients, DEMO.shape.items, dtype=torch.bool)
    real[DEMO.train.owner, DEMO.train.item] = True

    right = (guess.score > 0) == real[guess.clients[guess.sender], guess.item]

    assert float(right.float().mean()) > 0.99


def flat(world: World) -> World:
    """The same clients with items that all are equally popular."""
    rng = torch.Generator().manual_seed(0)
    key = torch.rand(world.shape.clients, world.shape.items, generator=rng)
    place = torch.cat([torch.arange(int(n)) for n in world.train.counts])
    item = key.argsort(1)[world.train.owner, place]
    return replace(world, train=replace(world.train, item=item))


def test_where_noise_drowns_all_it_falls_back_on_popularity() -> None:
    loud = Gaussian(variance=1e4)
    found, _ = attacked(LINEAR, loud)
    assert value(found, "auc") == pytest.approx(found.floor["auc"].mean(), abs=0.03)
    assert value(found, "auc_by_client") > 0.6

    nothing, _ = attacked(LINEAR, loud, world=flat(DEMO))
    assert value(nothing, "auc") == pytest.approx(0.5, abs=0.05)


def test_noise_weakens_it_step_by_step() -> None:
    found = [
        value(attacked(LINEAR, Gaussian(variance=v, rows="touched"))[0], "auc")
        for v in (0.0, 1e-5, 1e-4, 1e-1)
    ]

    assert found == sorted(found, reverse=True)
    assert found[0] - found[-1] > 0.2


def test_knowing_the_noise_pays() -> None:
    """The same uploads, read by one who is told of the noise and one who is not."""
    noise = Gaussian(variance=3e-5, rows="touched")
    _, told = attacked(LINEAR, noise)

    class Deaf(LikelihoodRatio):
        def guess(self, memory: Mapping[str, Tensor], prior: Prior) -> Interactions:
            return super().guess(memory, replace(prior, defenses=()))

    _, untold = attacked(LINEAR, noise, attack=Deaf(sizes=4, shadows=8, starts=2))
    real = torch.zeros(DEMO.shape.clients, DEMO.shape.items, dtype=torch.bool)
    real[DEMO.train.owner, DEMO.train.item] = True

    def auc(guess: Interactions) -> float:
        yes = real[guess.clients[guess.sender], guess.item]
        return Ranked.of(guess, yes).area(torch.arange(len(guess.clients)))

    assert auc(told) > auc(untold) + 0.01


def views(order: int = 1) -> list[View]:
    world, seeds = uneven(), Seeds(6)
    model, private = LINEAR.init(world.shape, seeds("init"))
    channel, found = Plain(), []
    opened = channel.open(opening(world.shape))
    for cohort in shards(world, 3):
        now = Round(0, seeds("train"), seeds("once"))
        up = LINEAR.train(model, private, cohort, now).uploads
        opened, view = channel.send(opened, up)
        found.append(view)
    return [ServerView(round=0, model=model), *found[::order]]


def guessed(attack: LikelihoodRatio, order: int = 1) -> Interactions:
    prior = Prior(uneven().shape, Seeds(1)("attack"), LINEAR)
    memory = attack.start(prior)
    for view in views(order):
        memory = attack.observe(memory, view)
    return attack.guess(memory, prior)


def test_the_order_of_shards_changes_nothing() -> None:
    found, turned = guessed(FEW), guessed(FEW, -1)

    for name in ("clients", "sender", "item", "score"):
        assert torch.equal(getattr(found, name), getattr(turned, name)), name


def test_without_views_nothing_is_claimed() -> None:
    prior = Prior(uneven().shape, Seeds(1)("attack"), LINEAR)

    assert len(FEW.guess(FEW.start(prior), prior).score) == 0


def test_so_many_victims_are_judged() -> None:
    some, every = guessed(replace(FEW, victims=3)), guessed(FEW)

    assert len(some.clients) == 3
    assert set(some.clients.tolist()) < set(every.clients.tolist())


def test_rounds_bounds_what_it_reads() -> None:
    prior = Prior(uneven().shape, Seeds(1)("attack"), LINEAR)
    memory = FEW.start(prior)
    for view in views():
        memory = FEW.observe(memory, replace(view, round=1))

    assert len(FEW.guess(memory, prior).score) == 0


def test_features_are_those_of_a_singular_value_decomposition() -> None:
    rng = torch.Generator().manual_seed(0)
    sender = torch.tensor([0] * 5 + [1] * 3)
    item = torch.tensor([1, 3, 4, 7, 8, 0, 3, 5])
    direction = torch.randn(2, 4, generator=rng)
    along = torch.randn(8, 1, generator=rng) * 3
    rows = along * direction[sender] + 0.05 * torch.randn(8, 4, generator=rng)
    table = torch.randn(10, 4, generator=rng)

    found = features({"items": Rows(sender, item, rows)}, {"items": table}, 2, 10)

    assert torch.equal(found.item, item)
    for k in range(2):
        mine = sender == k
        own = rows[mine].double().numpy()
        _, size, axes = np.linalg.svd(own, full_matrices=False)
        axis = axes[0] * np.sign(axes[0] @ own[0] * found.value[mine, 0, 0][0].item())
        usual = np.sqrt((own**2).sum(1).mean())
        length = np.linalg.norm(own, axis=1)
        before = table[item[mine]].double().numpy() @ axis / float(table.std())
        expected = np.stack(
            [own @ axis / usual, own @ axis / length, before, length / usual], 1
        )
        assert found.value[mine, 0].numpy() == pytest.approx(expected, abs=1e-4)
        told = [np.log1p(len(own)), np.log(usual), size[0] ** 2 / (size**2).sum()]
        assert found.client[k].numpy() == pytest.approx(told, abs=1e-5)


def test_an_item_missing_from_a_table_has_a_zero_row_there() -> None:
    one = Rows(torch.tensor([0, 0]), torch.tensor([2, 5]), torch.ones(2, 3))
    other = Rows(torch.tensor([0]), torch.tensor([5]), torch.ones(1, 3))
    tables = {"a": torch.rand(6, 3), "b": torch.rand(6, 3)}

    found = features({"a": one, "b": other}, tables, 1, 6)

    assert found.item.tolist() == [2, 5]
    assert not bool(found.value[0, 1].any())
    assert bool(found.value[1, 1].any())


def test_a_density_is_scipys_t_with_the_examples_moments() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 3)) @ rng.normal(size=(3, 3)) + 2
    spread = np.cov(x.T, bias=True)
    spread += np.diag(1e-3 * spread.diagonal() + 1e-4)
    expected = stats.multivariate_t(x.mean(0), spread / 2, df=4).logpdf(x)

    found = Student.fit(torch.from_numpy(x)).log_density(torch.from_numpy(x))

    assert found.numpy() == pytest.approx(expected)


def test_a_blend_weighs_groups_by_their_examples() -> None:
    rng = torch.Generator().manual_seed(0)
    one, other = torch.randn(30, 2, generator=rng), torch.randn(10, 2, generator=rng)
    at = torch.randn(5, 2, generator=rng)

    found = Blend.fit([one, other, one[:0]]).log_density(at).exp()
    parts = [Student.fit(group).log_density(at).exp() for group in (one, other)]

    torch.testing.assert_close(found, 0.75 * parts[0] + 0.25 * parts[1])
    assert bool(Blend.fit([one[:0]]).log_density(at).isfinite().all())


def test_shadows_are_trained_and_defended_and_see_no_real_user() -> None:
    world = uneven()
    model, _ = LINEAR.init(world.shape, Seeds(6)("init"))
    prior = Prior(world.shape, Seeds(1)("a"), LINEAR, [Gaussian(variance=1e-3)])
    rng = torch.Generator().manual_seed(0)
    taken = torch.rand(6, world.shape.items, generator=rng) < 0.1
    taken[:, 0] = True

    found = shadows(prior, model, 0, taken, prior.stream)

    assert len(found.uploads.rows["items"].item) == 6 * world.shape.items
    mine = torch.zeros_like(taken)
    mine[found.trained["items"].sender, found.trained["items"].item] = True
    assert not bool((found.taken & ~mine).any())
    drawn = (mine & ~found.taken).sum(1)
    assert bool((drawn <= LINEAR.negatives * found.taken.sum(1)).all())
    assert sorted(found.taken.sum(1).tolist()) == sorted(taken.sum(1).tolist())


@pytest.mark.parametrize("name", ["sizes", "shadows", "starts", "victims", "rounds"])
def test_settings_that_cannot_be(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        LikelihoodRatio(**{name: 0})
