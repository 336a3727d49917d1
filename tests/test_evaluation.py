"""Ranks of held-out items, shard by shard."""

import torch

from privfed.data.cohort import cohort_of
from privfed.data.world import Ragged, Shape, World, ragged
from privfed.evaluation.marks import Marks
from privfed.evaluation.protocol import Protocol
from privfed.evaluation.ranking import rank_scores, ranks
from privfed.seeds import Seeds


def pairs(cells: list[tuple[int, int]]) -> Ragged:
    owner, item = torch.tensor(cells).T
    return ragged(4, owner, item, torch.ones(len(cells)))


WORLD = World(
    "four clients",
    Shape(4, 30),
    train=pairs([(0, 0), (1, 1), (2, 2), (3, 3)]),
    validation=pairs([(0, 4), (1, 5), (2, 6)]),
    test=pairs([(0, 7), (0, 8), (2, 9), (3, 10)]),
)
SCORES = torch.rand(4, 30, generator=torch.Generator().manual_seed(0))


def measured(protocol: Protocol, shards: list[list[int]]) -> Marks:
    found = Marks.none(WORLD.test)
    candidates = protocol.candidates(WORLD, Seeds(0))
    for shard in shards:
        clients = torch.tensor(shard)
        cohort = cohort_of(WORLD, clients)
        found.put(clients, ranks(SCORES[clients], cohort, WORLD.test, candidates))
    return found


def test_shards_change_no_rank() -> None:
    for protocol in (Protocol(negatives=9), Protocol(ranking="full")):
        whole = measured(protocol, [[0, 1, 2, 3]]).value
        assert torch.equal(measured(protocol, [[3, 0], [2], [1]]).value, whole)
        assert bool((whole > 0).all())


def test_all_candidates_give_the_full_rank() -> None:
    """30 items less four met by client 0: its rank is then over all of them."""
    sampled = measured(Protocol(negatives=26), [[0]]).value
    full = measured(Protocol(ranking="full"), [[0]]).value
    validation = SCORES[0, 4]  # competes in full ranking, is no sampled negative
    own = SCORES[0, [7, 8]]

    assert torch.equal(full[:2] - (validation >= own).long(), sampled[:2])


def test_only_measured_clients_with_held_out_items_are_reported() -> None:
    scores = rank_scores(measured(Protocol(ranking="full"), [[0, 1, 2]]), [30, 1])

    assert set(scores) == {"hr@30", "ndcg@30", "hr@1", "ndcg@1"}
    assert scores["hr@30"].each.tolist() == [1.0, 1.0]  # clients 0 and 2


def test_given_candidates_are_used_as_they_are() -> None:
    given = torch.arange(20, 25).repeat(4, 1)
    world = World(
        WORLD.name,
        WORLD.shape,
        WORLD.train,
        WORLD.validation,
        WORLD.test,
        candidates=given,
    )

    assert Protocol().candidates(world, Seeds(0)) is given
    assert Protocol().describe(world) == "5 given negatives"
    assert Protocol(ranking="full").candidates(world, Seeds(0)) is None
