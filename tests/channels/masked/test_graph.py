"""Rings of neighbors, and the bounds on how they fail."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from privfed.channels.masked.graph import Graph, odds, usual_degree, usual_threshold


def ring(seed: int, clients: int, degree: int) -> Graph:
    return Graph.ring(np.random.default_rng(seed).permutation(clients), degree)


def parts(graph: Graph, kept: NDArray[np.int64]) -> int:
    """How many pieces the graph of some clients falls into."""
    owner = np.repeat(np.arange(graph.clients), graph.degree)
    ones = np.ones(len(owner))
    size = (graph.clients, graph.clients)
    edges = csr_array((ones, (owner, graph.neighbors.reshape(-1))), size).toarray()
    return int(connected_components(edges[np.ix_(kept, kept)])[0])


@given(seed=st.integers(0, 99), clients=st.integers(2, 30), half=st.integers(1, 15))
def test_everyone_has_as_many_neighbors_and_is_theirs(
    seed: int, clients: int, half: int
) -> None:
    degree = min(2 * half, clients - 1)
    graph = ring(seed, clients, degree)

    assert graph.neighbors.shape == (clients, degree)
    for client in range(clients):
        mine = graph.neighbors[client]
        assert (np.diff(mine) > 0).all()
        assert client not in mine
        assert (graph.neighbors[mine, graph.back[client]] == client).all()
    assert parts(graph, np.arange(clients)) == 1


def test_neighbors_are_the_nearest_of_the_order() -> None:
    graph = Graph.ring(np.array([3, 1, 4, 0, 5, 2]), 2)

    assert graph.neighbors[4].tolist() == [0, 1]
    assert graph.neighbors[3].tolist() == [1, 2]


def test_the_order_decides_who_is_whose_neighbor() -> None:
    assert (ring(0, 30, 4).neighbors != ring(1, 30, 4).neighbors).any()


@pytest.mark.parametrize("degree", [0, 3, 10])
def test_impossible_degrees_are_refused(degree: int) -> None:
    with pytest.raises(ValueError, match="neighbors must be even, or all 9 others"):
        ring(0, 10, degree)


def test_small_cohorts_are_complete_and_large_ones_capped() -> None:
    assert [usual_degree(n) for n in (1, 2, 21, 100, 943, 10**6)] == [
        0,
        1,
        20,
        26,
        40,
        64,
    ]


@given(degree=st.integers(1, 200))
def test_two_sets_of_the_usual_threshold_share_a_neighbor(degree: int) -> None:
    assert degree < 2 * usual_threshold(degree) <= degree + 2


def test_bounds_hold_for_rings_drawn_at_random() -> None:
    """Each chance as counted over many small rings, with parameters that fail often."""
    clients, degree, threshold, tries = 30, 6, 4, 400
    bad, gone = 9, 6
    rng = np.random.default_rng(0)
    told = lost = split = 0
    for _ in range(tries):
        graph = Graph.ring(rng.permutation(clients), degree)
        order = rng.permutation(clients)
        colluding = np.isin(range(clients), order[:bad])
        dropped = np.isin(range(clients), order[bad : bad + gone])
        told += bool((colluding[graph.neighbors].sum(1) >= threshold).any())
        lost += bool(((~dropped)[graph.neighbors].sum(1) < threshold).any())
        split += parts(graph, (~colluding & ~dropped).nonzero()[0]) > 1

    bound = odds(clients, degree, threshold, bad / clients, gone / clients)

    margin = 3 * 0.5 / tries**0.5
    assert 0 < told / tries < bound.collusion + margin
    assert 0 < lost / tries < bound.dropout + margin
    assert 0 < split / tries < bound.split + margin


def test_the_defaults_stand_a_tenth_colluding_and_a_tenth_dropped() -> None:
    for clients in (100, 943, 6040):
        degree = usual_degree(clients)
        bound = odds(clients, degree, usual_threshold(degree), 0.1, 0.1)

        assert max(bound.collusion, bound.split) < 1e-7
        assert bound.dropout < 1e-4


def test_a_complete_graph_never_falls_apart() -> None:
    assert odds(20, 19, 10, 0.3, 0.3).split == 0.0
