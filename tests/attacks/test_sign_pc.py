"""Sign-PC recovers planted worlds, and real training, exactly."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator, Tensor

from privfed.attacks.axis import principal
from privfed.attacks.sign_pc import SignPC
from privfed.messages import Rows
from privfed.methods.fcf import FCF
from privfed.methods.fedavg import FedAvg
from privfed.methods.fedmr import FedMR
from privfed.methods.fedrap import FedRAP
from privfed.methods.local_sgd import LocalSGD
from privfed.methods.pfedrec import PFedRec
from tests.attacks.views import guess, prior_of, trained, truth, view_of
from tests.worlds import checkerboard, world


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


@given(seed=st.integers(0, 300))
def test_a_planted_world_is_recovered_exactly(seed: int) -> None:
    rows, label = planted(seed)
    clients = torch.tensor([4, 0, 7, 2, 9])

    found = guess(SignPC(), prior_of(10, 120, 4), view_of(clients, {"items": rows}))

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
    attack = SignPC(uploads="first")

    found = guess(attack, prior_of(5, 120, 4), view_of(torch.arange(5), {"t": rows}))

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
