"""The support attack claims exactly what was sent."""

from dataclasses import fields

import torch

from privfed.attacks.items.support import Support
from privfed.messages import Rows
from privfed.methods.fedavg import FedAvg
from privfed.views import ItemsView, UploadsView
from tests.attacks.views import guess, prior_of, trained, truth, view_of
from tests.worlds import uneven

WORLD = uneven()


def test_claims_are_the_set_of_items_sent() -> None:
    views = list(trained(FedAvg(width=4), WORLD))
    found = guess(Support(), prior_of(8, 60, 4), *views)

    sent: dict[int, set[int]] = {c: set() for c in range(8)}
    for view in views:
        sender, item = view.items["items"]
        for s, i in zip(sender.tolist(), item.tolist(), strict=True):
            sent[int(view.clients[s])].add(i)
    assert found.clients.tolist() == list(range(8))
    for client, row in enumerate(found.chosen):
        assert set(row.nonzero()[:, 0].tolist()) == sent[client]
    assert torch.equal(found.score > 0, found.chosen)


def test_every_interaction_is_among_the_claims() -> None:
    found = guess(Support(), prior_of(8, 60, 4), *trained(FedAvg(width=4), WORLD))
    assert found.chosen[truth(WORLD, found.clients)].all()


def test_all_tables_count() -> None:
    one, two = (
        Rows(torch.tensor([0]), torch.tensor([i]), torch.zeros(1, 2)) for i in (1, 3)
    )
    view = view_of(torch.tensor([2]), {"a": one, "b": two})

    found = guess(Support(), prior_of(4, 5, 1), view)

    assert found.clients.tolist() == [2]
    assert found.chosen.tolist() == [[False, True, False, True, False]]


def one_item(round: int) -> UploadsView:
    """Client 0 sends the item that has the round's number."""
    rows = Rows(torch.tensor([0]), torch.tensor([round]), torch.zeros(1, 2))
    return view_of(torch.tensor([0]), {"a": rows}, round)


def test_parts_of_a_history_add_up() -> None:
    every = Support(uploads="all")
    found = guess(every, prior_of(1, 3, 1), *map(one_item, (0, 1, 1, 1)))
    assert found.chosen.tolist() == [[True, True, False]]
    assert found.score.tolist() == [[0.25, 0.75, 0.0]]


def test_the_first_upload_alone_counts() -> None:
    found = guess(Support(), prior_of(1, 3, 1), *map(one_item, (0, 1)))
    assert found.chosen.tolist() == [[True, False, False]]


def test_without_views_there_is_no_claim() -> None:
    found = guess(Support(), prior_of(3, 4, 1))
    assert found.score.shape == found.chosen.shape == (0, 4)


def test_it_is_shown_no_value() -> None:
    assert Support.sees == (ItemsView,)
    assert {f.name for f in fields(ItemsView)} == {
        "round",
        "clients",
        "bytes_up",
        "items",
    }
