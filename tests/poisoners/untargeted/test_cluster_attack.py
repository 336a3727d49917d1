"""ClusterAttack: its gradient, its number of clusters, and how long its rows are."""

from dataclasses import dataclass, replace
from math import sqrt

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator, Tensor

from privfed.interfaces import State
from privfed.messages import Uploads
from privfed.methods.bpr import BPR
from privfed.methods.metamf.method import MetaMF
from privfed.poisoners.untargeted.cluster_attack import ClusterAttack, Lengths, pull
from privfed.poisoners.untargeted.clusters import Adaptive, Bounds
from tests.poisoners.plots import plot, sortie
from tests.poisoners.untargeted.sent import ITEMS, WIDTH, some_uploads, vectors

MINE = (5, 6, 7)
PLOT = plot(BPR(), ITEMS, 5, 3, targets=())


def items(seed: int = 0) -> Tensor:
    return torch.randn(ITEMS, WIDTH, generator=Generator().manual_seed(seed))


def forged(
    poisoner: ClusterAttack, own: Uploads, model: State | None = None
) -> tuple[State, Uploads]:
    model = {"items": items()} if model is None else model
    return poisoner.forge(poisoner.start(PLOT), sortie(model, own), PLOT)


@pytest.mark.parametrize("clusters", [1, 2, 5])
def test_the_gradient_is_that_of_the_distance_to_the_nearest_centers(
    clusters: int,
) -> None:
    table = items()
    gradient, loss = pull(table, clusters, seed=3)

    found = (table - gradient * clusters / 2).round(decimals=4)
    centers = torch.unique(found, dim=0)
    assert len(centers) == clusters
    apart = torch.cdist(table.double(), centers.double())
    follows = table.clone().requires_grad_()
    near = apart.argmin(1)
    expected = (follows - centers[near]).square().sum() / clusters
    (theirs,) = torch.autograd.grad(expected, follows)

    torch.testing.assert_close(gradient, theirs, atol=1e-3, rtol=1e-3)
    assert loss == pytest.approx(expected.item(), rel=1e-3)
    for k, center in enumerate(centers):
        mean = table[near == k].mean(0)
        torch.testing.assert_close(center, mean, atol=1e-3, rtol=0)


def test_steps_of_it_leave_a_few_points() -> None:
    table = items()
    for number in range(60):
        gradient, _ = pull(table, 2, seed=number)
        table = table - 0.2 * gradient
    apart = torch.cdist(table, table)
    assert ((apart < 1e-3) | (apart > 0.3)).all()
    assert (apart < 1e-3).sum() > ITEMS


@dataclass
class Plain:
    """The released code's bookkeeping, one number at a time."""

    clusters: float
    patience: float
    inc = dec = t = 0
    average = 0.0
    last: float | None = None

    def see(self, loss: float, of: Bounds) -> None:
        fresh = of.smoothing * self.average + (1 - of.smoothing) * loss
        self.t += 1
        debiased = fresh / (1 - of.smoothing**self.t)
        if self.last is not None:
            if debiased > self.last:
                self.inc += 1
            else:
                self.dec += 1
        self.average, self.last = fresh, debiased
        grown = shrunk = False
        if self.inc - self.dec >= self.patience:
            self.clusters += sqrt(of.most - self.clusters)
            grown = True
        elif self.dec - self.inc >= self.patience:
            self.clusters -= sqrt(self.clusters - of.least)
            shrunk = True
        if grown or shrunk:
            self.clusters = min(max(round(self.clusters), of.least), of.most)
            self.inc = self.dec = self.t = 0
            self.average, self.last = 0.0, None
            self.patience *= 1 + of.growth


@given(
    losses=st.lists(st.floats(0.01, 100), max_size=80),
    patience=st.integers(1, 6),
    growth=st.sampled_from([0.0, 0.5, 1.0]),
)
@settings(max_examples=150, deadline=None)
def test_the_number_of_clusters_moves_as_released(
    losses: list[float], patience: int, growth: float
) -> None:
    bounds = Bounds(1, 20, 0.9, growth)
    ours, theirs = Adaptive(2.0, float(patience)), Plain(2.0, float(patience))
    for loss in losses:
        ours = Adaptive.load(ours.saved()).after(loss, bounds)
        theirs.see(loss, bounds)
        assert ours.clusters == theirs.clusters
        assert ours.patience == pytest.approx(theirs.patience)


def test_a_rising_loss_makes_more_clusters_and_a_falling_one_fewer() -> None:
    rising, falling = Adaptive(10.0, 5.0), Adaptive(10.0, 5.0)
    for number in range(6):
        rising = rising.after(1.0 + number, Bounds())
        falling = falling.after(9.0 - number, Bounds())
    assert (rising.clusters, falling.clusters) == (16.0, 7.0)
    assert rising.patience == 10.0


def test_rows_are_as_long_as_usual_and_point_to_the_centers() -> None:
    own = some_uploads(MINE)
    _, found = forged(ClusterAttack(), own)

    length = vectors(own)[:, : ITEMS * WIDTH].reshape(-1, WIDTH).norm(dim=1)
    mean, deviation = length.mean(), length.std()
    assert Lengths.of(own.rows["items"], 3, ITEMS).mean == pytest.approx(float(mean))
    rows = found.rows["items"]
    assert len(rows.item) == 3 * ITEMS
    size = rows.value.norm(dim=1)
    assert (size > mean * 0.999).all()
    assert (size < (mean + 3 * deviation) * 1.001).all()
    assert size.std() > 0.1 * deviation
    seed = int(sortie({}, own).stream.of("centers").key % 2**32)
    gradient, _ = pull(items(), 2, seed)
    cosine = torch.cosine_similarity(rows.value, gradient[rows.item])
    torch.testing.assert_close(cosine, torch.full_like(cosine, -1.0))


def test_without_spread_every_row_is_of_mean_length() -> None:
    own = some_uploads(MINE)
    _, found = forged(ClusterAttack(spread=0.0, sampled=1), own)

    first = vectors(own)[0, : ITEMS * WIDTH].view(-1, WIDTH).norm(dim=1).mean()
    size = found.rows["items"].value.norm(dim=1)
    torch.testing.assert_close(size, first.expand_as(size))


def test_what_is_no_item_row_is_sent_as_trained() -> None:
    own = some_uploads(MINE)
    _, found = forged(ClusterAttack(), own)
    assert torch.equal(found.dense["out.weight"], own.dense["out.weight"])


def test_several_tables_are_clustered_as_one() -> None:
    own = some_uploads(MINE)
    two = replace(own, rows={"a": own.rows["items"], "b": own.rows["items"]})
    memory, found = forged(ClusterAttack(), two, {"a": items(1), "b": items(2)})

    seed = int(sortie({}, own).stream.of("centers").key % 2**32)
    both = torch.cat([items(1), items(2)], 1)
    gradient, loss = pull(both, 2, seed)
    for name, part in zip("ab", gradient.split(WIDTH, 1), strict=True):  # type: ignore[no-untyped-call]
        rows = found.rows[name]
        cosine = torch.cosine_similarity(rows.value, part[rows.item])
        torch.testing.assert_close(cosine, torch.full_like(cosine, -1.0))
    assert float(memory["last"]) == pytest.approx(loss)


def test_a_table_of_equal_rows_is_one_cluster() -> None:
    _, found = forged(
        ClusterAttack(clusters=4),
        some_uploads(MINE),
        {"items": torch.ones(ITEMS, WIDTH)},
    )
    assert not found.rows["items"].value.any()


def test_a_method_whose_server_makes_the_rows_is_none_of_its() -> None:
    assert "item table" in ClusterAttack().misfit(MetaMF())
    assert not ClusterAttack().misfit(BPR())


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="most must be at least clusters"):
        ClusterAttack(clusters=9, most=8)
    with pytest.raises(ValueError, match="smoothing must be below 1"):
        ClusterAttack(smoothing=1.0)
    with pytest.raises(ValueError, match="spread must be 0 or more"):
        ClusterAttack(spread=-1.0)
