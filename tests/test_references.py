"""The trivial rankers, by hand and on the published splits."""

import os
from pathlib import Path

import pandas as pd
import pytest
import torch

from privfed.data.world import Ragged, Shape, World, ragged
from privfed.evaluation.protocol import Protocol
from privfed.evaluation.ranking import rank_scores, reached
from privfed.metrics.score import means
from privfed.references import popularity, unseen_first
from privfed.seeds import Seeds


def part(clients: int, rows: pd.DataFrame) -> Ragged:
    owner = torch.from_numpy(rows["user"].to_numpy(copy=True))
    item = torch.from_numpy(rows["item"].to_numpy(copy=True))
    return ragged(clients, owner, item, torch.ones(len(rows)))


def world_of(frame: pd.DataFrame) -> World:
    """A world from columns user, item and part (0 train, 1 validation, 2 test)."""
    clients, items = int(frame["user"].max()) + 1, int(frame["item"].max()) + 1
    train, validation, test = (
        part(clients, frame[frame["part"] == k]) for k in range(3)
    )
    return World("frame", Shape(clients, items), train, validation, test)


def figures(
    world: World, scores: torch.Tensor, protocol: Protocol, held: Ragged
) -> dict[str, float]:
    marks = reached(world, scores, protocol.candidates(world, Seeds(0)), held)
    return means([*rank_scores(marks, protocol.at).items()])


SMALL = world_of(
    pd.DataFrame(
        {
            "user": [0, 0, 1, 1, 2, 2, 0],
            "item": [0, 1, 1, 4, 1, 0, 3],
            "part": [0, 0, 0, 0, 0, 0, 2],
        }
    )
)


def test_popularity_counts_training_interactions_only() -> None:
    assert popularity(SMALL).floor().tolist() == [[2.0, 3.0, 0.0, 0.0, 1.0]]


def test_equally_popular_items_rank_by_number() -> None:
    order = popularity(SMALL)[0].argsort(descending=True)

    assert order.tolist() == [1, 0, 4, 2, 3]


def test_unseen_first_puts_unseen_items_above_all_others_in_their_order() -> None:
    order = unseen_first(SMALL)[0].argsort(descending=True)

    assert order.tolist() == [2, 3, 1, 0, 4]


def test_no_two_items_of_a_large_catalog_tie() -> None:
    large = World("large", Shape(1, 100_000), SMALL.train, SMALL.test, SMALL.test)

    assert len(set(popularity(large)[0].tolist())) == 100_000
    assert len(set(unseen_first(large)[0].tolist())) == 100_000


def test_unseen_first_is_popularity_where_all_items_are_seen() -> None:
    seen = world_of(
        pd.DataFrame({"user": [0, 0, 1], "item": [0, 1, 1], "part": [0, 0, 0]})
    )

    assert torch.equal(unseen_first(seen), popularity(seen))


def data(name: str) -> Path:
    root = os.environ.get("PRIVFED_DATA")
    if root is None:
        pytest.skip("PRIVFED_DATA names no data folder")
    path = Path(root) / name
    if not path.exists():
        pytest.skip(f"{path} is not there")
    return path


@pytest.mark.slow
@pytest.mark.realdata
def test_ku_rewards_not_touching_unseen_items() -> None:
    frame = pd.read_csv(data("ku/inter.csv")).rename(
        columns={"userID": "user", "itemID": "item", "split_label": "part"}
    )
    world = world_of(frame)
    protocol = Protocol(ranking="full", at=(50,))
    trivial = figures(world, unseen_first(world), protocol, world.test)
    common = figures(world, popularity(world), protocol, world.test)
    earlier = figures(world, unseen_first(world), protocol, world.validation)

    # many items tie, so the figures move by some clients with the order of ties
    assert trivial["hr@50"] == pytest.approx(0.544, abs=0.006)
    assert trivial["ndcg@50"] == pytest.approx(0.206, abs=0.005)
    assert earlier["hr@50"] == pytest.approx(0.534, abs=0.02)
    assert earlier["ndcg@50"] == pytest.approx(0.164, abs=0.005)
    assert common["hr@50"] == pytest.approx(0.186, abs=0.02)
    assert common["ndcg@50"] == pytest.approx(0.055, abs=0.005)


@pytest.mark.slow
@pytest.mark.realdata
def test_popularity_on_movielens_is_the_known_figure() -> None:
    frame = pd.read_csv(
        data("ml-100k/u.data"), sep="\t", names=["user", "item", "rating", "time"]
    )
    frame[["user", "item"]] -= 1
    frame = frame.sort_values(["user", "time"], kind="stable")
    behind = frame.groupby("user").cumcount(ascending=False)
    frame["part"] = (2 - behind).clip(lower=0)
    world = world_of(frame)
    found = figures(world, popularity(world), Protocol(), world.test)

    assert len(world.train.item) == 98_114
    assert found["hr@10"] == pytest.approx(0.410, abs=0.03)  # one draw of candidates
    assert found["ndcg@10"] == pytest.approx(0.227, abs=0.02)
