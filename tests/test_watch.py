"""Attacks are shown the views they declare, and nothing more of them."""

from dataclasses import dataclass, fields, replace

import torch

from privfed.adversary import Attack, Knowledge, NotApplicable, Prior
from privfed.guesses import Items
from privfed.interfaces import State
from privfed.messages import Total, Uploads
from privfed.methods.fedavg import FedAvg
from privfed.seeds import Seeds
from privfed.views import (
    ItemsView,
    ModelView,
    RoundView,
    TotalView,
    UploadsView,
    View,
)
from privfed.watch import Watch, narrow
from tests.worlds import uneven

WORLD = uneven()
SHOWN: list[View] = []


@dataclass(frozen=True)
class Notes(Attack):
    """Writes down every view that it is handed."""

    paper = "none"

    def start(self, prior: Prior) -> State:
        return {}

    def observe(self, memory: State, view: View) -> State:
        SHOWN.append(view)
        return memory

    def guess(self, memory: State, prior: Prior) -> Items:
        nothing = torch.zeros(0, prior.items)
        return Items(torch.arange(0), nothing, nothing.bool())


class Ids(Notes):
    sees = (ItemsView,)


class Sums(Notes):
    sees = (TotalView,)
    knows = Knowledge(popularity=True, features=True)


def full_view() -> UploadsView:
    clients = torch.arange(2)
    return UploadsView(
        round=3,
        clients=clients,
        bytes_up=torch.tensor([8, 16]),
        items={"items": (clients, clients)},
        uploads=Uploads(clients),
    )


def watch(given: tuple[type[View], ...]) -> Watch:
    return Watch.of(
        {"ids": Ids(), "sums": Sums()}, given, WORLD, FedAvg(), (), Seeds(0)
    )


def test_a_view_is_cut_down_to_what_the_attack_declared() -> None:
    SHOWN.clear()
    watching = watch((UploadsView,))

    watching.show(watching.start(), full_view(), {})

    assert [type(view) for view in SHOWN] == [ItemsView]
    assert not hasattr(SHOWN[0], "uploads")


def test_narrowing_keeps_the_fields_of_the_weaker_view() -> None:
    whole = full_view()
    for kind in (RoundView, ItemsView, UploadsView):
        less = narrow(whole, kind)
        assert {f.name for f in fields(less)} == {f.name for f in fields(kind)}
        assert all(
            getattr(less, f.name) is getattr(whole, f.name) for f in fields(kind)
        )


def test_an_attack_that_needs_more_than_the_channel_shows_is_a_result() -> None:
    watching = watch((TotalView, ModelView))

    found = watching.guesses(watching.start(), {})

    assert isinstance(found["sums"], Items)
    refused = found["ids"]
    assert isinstance(refused, NotApplicable)
    assert "ItemsView" in refused.reason
    assert "TotalView, ModelView" in refused.reason


def test_views_that_an_attack_did_not_ask_for_are_kept_from_it() -> None:
    SHOWN.clear()
    watching = watch((UploadsView, TotalView))
    memory = watching.start()

    watching.show(memory, ModelView(round=0, model={}), {})
    assert not SHOWN
    watching.show(
        memory, TotalView(round=0, clients=2, total=Total({}, {}, {}, 2.0, 2)), {}
    )
    assert [type(view) for view in SHOWN] == [TotalView]


def test_a_prior_holds_what_the_threat_model_grants() -> None:
    priors = watch((UploadsView,)).priors

    assert priors["ids"].popularity is None
    assert not priors["ids"].features
    assert priors["sums"].popularity is not None
    assert torch.equal(priors["sums"].popularity, WORLD.popularity)
    assert set(priors["sums"].features) == {"image", "text"}
    assert priors["ids"].stream != priors["sums"].stream


class Ranked(Notes):
    sees = (TotalView,)
    tasks = ("ranking",)


def test_an_attack_on_another_task_is_not_applicable() -> None:
    rated = replace(WORLD, task="rating")
    watch = Watch.of({"it": Ranked()}, [TotalView], rated, FedAvg(), (), Seeds(0))

    assert "reads uploads of ranking methods" in watch.refused["it"].reason
    assert watch.start() == {}
    same = Watch.of({"it": Ranked()}, [TotalView], WORLD, FedAvg(), (), Seeds(0))
    assert not same.refused
