"""Sign-PC recovers planted worlds, and real training, exactly."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator, Tensor

from privfed.attacks.sign_pc import SignPC, principal
from privfed.messages import Rows
from privfed.methods.fcf import FCF
from privfed.methods.fedavg import FedAvg
from privfed.methods.fedmr import FedMR
from privfed.methods.fedrap import FedRAP
from privfed.methods.local_sgd import LocalSGD
from privfed.methods.pfedrec import PFedRec
from tests.attacks.views import guess, prior_of, trained, truth, view_of
from tests.worlds import checkerboard, world


def planted(
    seed: int, clients: int = 5, items: int = 40, share: float = 0.2
) -> tuple[Rows, Tensor]:
    """Rows (sigmoid - label) times each client's direction, and who is positive."""
    rng = Generator().manual_seed(seed)
    label = torch.rand(clients, items, generator=rng) < share
    label[:, 0], label[:, 1:4] = True, False  # both groups, and positives the fewer
    label[:, items // 2 :] = False
    direction = torch.randn(clients, 6, generator=rng)
    size = 0.1 + torch.rand(clients, items, generator=rng)
    error = torch.where(label, -size, size)
    sender = torch.arange(clients).repeat_interleave(items)
    value = (error[..., None] * direction[:, None]).flatten(0, 1)
    return Rows(sender, torch.arange(items).repeat(clients), value), label


@given(seed=st.integers(0, 300))
def test_a_planted_world_is_recovered_exactly(seed: int) -> None:
    rows, label = planted(seed)
    clients = torch.tensor([4, 0, 7, 2, 9])

    found = guess(SignPC(), prior_of(10, 40, 4), view_of(clients, {"items": rows}))

    order = clients.argsort()
    assert torch.equal(found.clients, clients[order])
    assert torch.equal(found.chosen, label[order])
    assert (found.score[label[order]] > 0).all()
    assert (found.score[~label[order]] <= 0).all()


@given(seed=st.integers(0, 300))
def test_one_negative_a_positive_is_oriented_by_popularity(seed: int) -> None:
    rows, label = planted(seed, share=0.5)
    label = label.clone()
    mask = torch.zeros(5, 40, dtype=torch.bool)
    for client in range(5):  # as many negatives as positives
        own = label[client].nonzero()[:, 0]
        mask[client, own] = True
        mask[client, (~label[client]).nonzero()[: len(own), 0]] = True
    keep = mask[rows.sender, rows.item]
    balanced = Rows(rows.sender[keep], rows.item[keep], rows.value[keep])
    view = view_of(torch.arange(5), {"items": balanced})
    popular = label.sum(0).float() * 10 + 1

    found = guess(SignPC(), prior_of(5, 40, 1, popular), view)
    turned = guess(SignPC(), prior_of(5, 40, 1, 100 - popular), view)

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


def test_a_checkerboard_is_read_with_one_negative_and_popularity() -> None:
    of = checkerboard(3, 24)  # even items have two clients, odd items one
    method = FedAvg(width=8, epochs=1, negatives=1)
    prior = prior_of(3, 24, 1, of.popularity)

    found = guess(SignPC(), prior, *trained(method, of))

    assert torch.equal(found.chosen[[0, 2]], truth(of, torch.tensor([0, 2])))
    assert not (found.chosen[1] & truth(of, torch.tensor([1]))).any()  # misled


def test_the_table_that_is_nearest_to_rank_one_is_read() -> None:
    rows, label = planted(3)
    noise = Rows(rows.sender, rows.item, torch.randn_like(rows.value))
    for tables in ({"a": noise, "b": rows}, {"b": rows, "a": noise}):
        found = guess(SignPC(), prior_of(5, 40, 4), view_of(torch.arange(5), tables))
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


def test_items_that_were_not_sent_rank_last() -> None:
    rows, _ = planted(5, items=40)
    keep = rows.item < 30
    part = Rows(rows.sender[keep], rows.item[keep], rows.value[keep])

    found = guess(SignPC(), prior_of(5, 40, 4), view_of(torch.arange(5), {"t": part}))

    assert (found.score[:, 30:].amax(1) < found.score[:, :30].amin(1)).all()


@given(seed=st.integers(0, 300))
def test_the_axis_is_the_first_right_singular_vector(seed: int) -> None:
    rng = Generator().manual_seed(seed)
    spread = torch.tensor([4.0, 1.0, 0.5, 0.1])
    value = torch.randn(60, 4, generator=rng) * spread
    sender = torch.arange(60) // 20

    along, share = principal(Rows(sender, torch.arange(60), value), 3, power=200)

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
