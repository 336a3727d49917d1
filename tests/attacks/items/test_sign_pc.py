"""Sign-PC recovers planted worlds, and real training, exactly."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator, Tensor

from privfed.adversary import Attack, Prior
from privfed.attacks.items.sign_pc import SignPC
from privfed.attacks.reading.axis import principal
from privfed.data.world import Shape
from privfed.guesses import Items
from privfed.interfaces import Method
from privfed.messages import Rows, every
from privfed.methods.bpr import BPR
from privfed.methods.fcf import FCF
from privfed.methods.fcf_original import FCFOriginal
from privfed.methods.fedavg import FedAvg
from privfed.methods.fedmr import FedMR
from privfed.methods.fedrap import FedRAP
from privfed.methods.local_sgd import LocalSGD
from privfed.methods.pfedrec import PFedRec
from privfed.metrics.leakage.items import score
from privfed.seeds import Seeds
from privfed.surfaces import Known
from privfed.views import ModelView, UploadsView, View
from tests.attacks.views import guess, prior_of, trained, truth, view_of
from tests.worlds import checkerboard, uneven, world

ALL = SignPC(uploads="all")


def planted(seed: int, items: int = 120, negatives: int = 4) -> tuple[Rows, Tensor]:
    """Rows (sigmoid - label) times each client's direction, and who is positive.

    Five clients with 2 to 6 interactions, and ``negatives`` sent rows for each.
    """
    rng = Generator().manual_seed(seed)
    order = torch.rand(5, items, generator=rng).argsort(1)
    many = torch.arange(2, 7)[:, None]
    place = torch.empty_like(order).scatter_(
        1, order, torch.arange(items).expand(5, -1)
    )
    label, sent = place < many, place < many * (1 + negatives)
    direction = torch.randn(5, 6, generator=rng)
    size = 0.1 + torch.rand(5, items, generator=rng)
    error = torch.where(label, -size, size)
    sender, item = sent.nonzero(as_tuple=True)
    return Rows(sender, item, error[sent][:, None] * direction[sender]), label


@pytest.mark.parametrize("uploads", ["first", "all"])
@given(seed=st.integers(0, 300))
def test_a_planted_world_is_recovered_exactly(
    uploads: Literal["first", "all"], seed: int
) -> None:
    rows, label = planted(seed)
    clients = torch.tensor([4, 0, 7, 2, 9])

    found = guess(
        SignPC(uploads), prior_of(10, 120, 4), view_of(clients, {"items": rows})
    )

    order = clients.argsort()
    assert torch.equal(found.clients, clients[order])
    assert torch.equal(found.chosen, label[order])
    assert (found.score[label[order]] > 0).all()
    assert (found.score[~label[order]] <= 0).all()


@given(seed=st.integers(0, 300))
def test_one_negative_a_positive_is_oriented_by_popularity(seed: int) -> None:
    rows, label = planted(seed, negatives=1)
    real = label.any(0)
    clear = label[rows.sender, rows.item] | ~real[rows.item]
    sent = Rows(rows.sender[clear], rows.item[clear], rows.value[clear])
    view = view_of(torch.arange(5), {"items": sent})

    found, turned = (
        guess(SignPC(), prior_of(5, 120, 1, liked * 1000.0), view)
        for liked in (real, ~real)
    )

    assert torch.equal(found.chosen, label)
    assert not (turned.chosen & label).any()


@pytest.mark.parametrize(
    "method",
    [
        FedAvg(width=8, epochs=1),
        FCF(width=8, epochs=1, item_rate=0.01),
        PFedRec(width=8, item_rate=0.01),
        FedRAP(width=8, epochs=1, item_rate=0.01),
    ],
    ids=lambda m: type(m).__name__,
)
def test_real_training_gives_every_interaction_away(method: LocalSGD) -> None:
    """4 negatives a positive and no defense: each client's items are read exactly."""
    rng = Generator().manual_seed(8)
    of = world([torch.randperm(80, generator=rng)[:8].tolist() for _ in range(9)], 80)

    found = guess(SignPC(), prior_of(9, 80, 4), *trained(method, of))

    assert torch.equal(found.chosen, truth(of, found.clients))
    assert len(found.clients) == 9


def test_draws_that_meet_tell_the_side_where_popularity_misleads() -> None:
    """Of 12 interactions and 12 draws with repeats, the larger side is real."""
    of = checkerboard(3, 24)  # even items have two clients, odd items one
    method = FedAvg(width=8, epochs=1, negatives=1)
    prior = prior_of(3, 24, 1, of.popularity)

    found = guess(SignPC(), prior, *trained(method, of))

    assert torch.equal(found.chosen, truth(of, found.clients))


def test_the_table_that_is_nearest_to_rank_one_is_read() -> None:
    rows, label = planted(3)
    noise = Rows(rows.sender, rows.item, torch.randn_like(rows.value))
    for tables in ({"a": noise, "b": rows}, {"b": rows, "a": noise}):
        found = guess(SignPC(), prior_of(5, 120, 4), view_of(torch.arange(5), tables))
        assert torch.equal(found.chosen, label)


def test_fedmrs_uploads_give_finite_guesses_better_than_the_support() -> None:
    rng = Generator().manual_seed(8)
    lists = [torch.randperm(80, generator=rng)[:8].tolist() for _ in range(9)]
    features = {"image": torch.randn(80, 8, generator=rng)}
    of = world(lists, 80, features=features)
    method = FedMR(width=8, id_width=16, epochs=1, item_rate=0.01)

    found = guess(SignPC(), prior_of(9, 80, 4), *trained(method, of))
    right = found.chosen & truth(of, found.clients)

    assert found.score.isfinite().all()
    assert right.sum() / found.chosen.sum() > 0.9


@pytest.mark.parametrize("case", ["zeros", "no rows", "equal rows"])
def test_degenerate_uploads_give_finite_guesses(case: str) -> None:
    rows = Rows(torch.tensor([0, 0, 1]), torch.tensor([1, 2, 0]), torch.zeros(3, 4))
    if case == "no rows":
        rows = Rows(rows.sender[:0], rows.item[:0], rows.value[:0])
    if case == "equal rows":
        rows = Rows(rows.sender, rows.item, torch.ones(3, 4))
    view = view_of(torch.arange(3), {"items": rows})

    found = guess(SignPC(), prior_of(3, 5, 4), view)

    assert found.score.shape == (3, 5)
    assert found.score.isfinite().all()
    assert not found.chosen[2].any()


def test_without_views_there_is_no_claim() -> None:
    found = guess(SignPC(), prior_of(3, 4, 1))
    assert found.score.shape == found.chosen.shape == (0, 4)


def test_items_that_were_not_sent_rank_last_by_one_upload() -> None:
    rows, _ = planted(5)
    sent = torch.zeros(5, 120, dtype=torch.bool)
    sent[rows.sender, rows.item] = True
    found = guess(SignPC(), prior_of(5, 120, 4), view_of(torch.arange(5), {"t": rows}))

    least = found.score.masked_fill(~sent, torch.inf).amin(1)
    assert (found.score.masked_fill(sent, -torch.inf).amax(1) < least).all()


@given(seed=st.integers(0, 300))
def test_the_axis_is_the_first_right_singular_vector(seed: int) -> None:
    rng = Generator().manual_seed(seed)
    spread = torch.tensor([4.0, 1.0, 0.5, 0.1])
    value = torch.randn(60, 4, generator=rng) * spread
    sender = torch.arange(60) // 20

    along, _, share = principal(Rows(sender, torch.arange(60), value), 3, power=200)

    for client in range(3):
        own = value[sender == client]
        _, s, vh = torch.linalg.svd(own, full_matrices=False)
        expected = own @ vh[0]
        found = along[sender == client]
        sign = torch.sign((found * expected).sum())
        torch.testing.assert_close(sign * found, expected, rtol=1e-2, atol=2e-2)
        assert share[client].item() == pytest.approx(
            (s[0] ** 2 / s.square().sum()).item(), rel=1e-3
        )


# What is known of a row is taken off first.


def ready(attack: Attack, method: Method, shape: Shape, views: list[View]) -> Items:
    """The guess of an attack that was told the method."""
    prior = Prior(shape, Seeds(0)("attack"), method)
    found = guess(attack.prepare(prior), prior, *views)
    assert isinstance(found, Items)
    return found


def regular(seed: int, decay: float, longest: float) -> tuple[Rows, Tensor, Tensor]:
    """Planted rows less ``decay`` times a table, then cut; the table, who is real."""
    rows, label = planted(seed)
    rng = Generator().manual_seed(seed + 1)
    table = torch.randn(120, 6, generator=rng)
    value = rows.value - decay * table[rows.item]
    length = value.norm(dim=1, keepdim=True)
    value = value * (longest / length).clamp_max(1.0)
    return Rows(rows.sender, rows.item, value), table, label


@pytest.mark.parametrize("longest", [inf, 3.0])
def test_weight_decay_hides_nothing_from_who_knows_it(longest: float) -> None:
    """Rows of decay 3 are mostly decay; cut to 3, most are cut."""

    @dataclass(frozen=True)
    class Decayed(BPR):
        def known_parts(self) -> Mapping[str, Sequence[Known]]:
            return {"items": [Known("items", factor=-3.0)]}

        def longest_row(self) -> float:
            return longest

    right, blind = 0, 0
    for seed in range(10):
        rows, table, label = regular(seed, 3.0, longest)
        model = ModelView(round=0, model={"items": table})
        views = [model, view_of(torch.arange(5), {"items": rows})]
        method = Decayed(width=6, negatives=4)
        found = ready(SignPC(), method, Shape(5, 120), views)
        right += int((found.chosen == label).all(1).sum())
        raw = guess(SignPC(), prior_of(5, 120, 4), *views)
        blind += int((raw.chosen == label).all(1).sum())

    assert right == 50 if longest == inf else right >= 40
    assert blind < 10


@given(seed=st.integers(0, 100))
def test_an_unknown_factor_of_a_known_part_is_fitted(seed: int) -> None:
    class Lasso(FedRAP):
        def known_parts(self) -> Mapping[str, Sequence[Known]]:
            return {"items": [Known("items", signs=True), Known("items")]}

    rows, label = planted(seed)
    rng = Generator().manual_seed(seed + 1)
    table = torch.randn(120, 6, generator=rng)
    own = 0.2 + torch.rand(5, 1, generator=rng)[rows.sender]
    value = rows.value - own * table[rows.item].sign() + own / 2 * table[rows.item]
    sent = view_of(torch.arange(5), {"items": Rows(rows.sender, rows.item, value)})
    views = [ModelView(round=0, model={"items": table}), sent]

    found = ready(SignPC(), Lasso(width=6), Shape(5, 120), views)

    right = (found.chosen == label).all(1)
    assert right[1:].all()  # the first has 10 rows, for 6 + 2 unknowns


# Many uploads.


def test_no_order_of_uploads_or_shards_changes_a_bit() -> None:
    views = list(trained(PFedRec(width=8, item_rate=0.01), uneven(), 4))
    prior = prior_of(8, 60, 4, uneven().popularity)

    found, turned = (guess(ALL, prior, *v) for v in (views, views[::-1]))

    assert torch.equal(found.score, turned.score)
    assert torch.equal(found.chosen, turned.chosen)


def noised(views: list[UploadsView], spread: float) -> list[UploadsView]:
    """The views with noise on every number, of no row that was not sent."""
    rng, found = Generator().manual_seed(5), []
    for view in views:
        rows = {
            name: replace(
                r, value=r.value + spread * torch.randn(r.value.shape, generator=rng)
            )
            for name, r in view.uploads.rows.items()
        }
        found.append(replace(view, uploads=replace(view.uploads, rows=rows)))
    return found


def test_uploads_add_up_where_noise_on_touched_rows_hides_a_single_one() -> None:
    rng = Generator().manual_seed(8)
    of = world(
        [torch.randperm(150, generator=rng)[:12].tolist() for _ in range(9)], 150
    )
    method = FedAvg(width=8, epochs=1)
    views = noised(list(trained(method, of, 8)), 0.01)
    shards = len(views) // 8
    prior = prior_of(9, 150, 4)

    one, all_of_them = (guess(ALL, prior, *v) for v in (views[:shards], views))

    first, last = (score(g, of.train)["f1"].mean() for g in (one, all_of_them))
    assert last > 0.9 > 0.6 > first


def test_a_row_that_was_sent_and_did_not_move_is_claimed() -> None:
    """Its sigmoid is 1 in single precision; that of a negative is never 0."""
    rows, label = planted(1)
    real = label[rows.sender, rows.item]
    last = real & (torch.arange(len(real)) == real.nonzero()[-1, 0])
    still = Rows(rows.sender, rows.item, rows.value.masked_fill(last[:, None], 0.0))

    found = guess(ALL, prior_of(5, 120, 4), view_of(torch.arange(5), {"items": still}))

    assert torch.equal(found.chosen, label)


def test_noise_alone_is_read_as_popularity() -> None:
    rng = Generator().manual_seed(3)
    rows = every(torch.randn(6, 200, 8, generator=rng))
    popular = torch.arange(200.0) + 1

    found = guess(
        ALL, prior_of(6, 200, 4, popular), view_of(torch.arange(6), {"t": rows})
    )

    each = torch.stack(
        [
            torch.corrcoef(torch.stack([s, popular.double().log()]))[0, 1]
            for s in found.score
        ]
    )
    assert each.mean() > 0.8


def test_fcf_is_left_to_its_own_attack() -> None:
    assert "fcf_dense" in SignPC().misfit(FCFOriginal())
