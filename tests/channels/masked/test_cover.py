"""Masks of touched rows lie where both of a pair send, and nowhere else."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from privfed.channels.masked.cover import (
    Cover,
    Touched,
    Where,
    accompanied,
    company,
)
from privfed.channels.masked.graph import Graph
from tests.channels.masked.parties import begun, vectors

WIDTHS = np.array([3, 3, 1, 2, 3])
STARTS = np.array([2, 5, 9, 11, 15])  # with gaps between them
COMMON = np.array([0, 1, 8, 13])
SIZE = 18


def cover(seed: int, clients: int, degree: int) -> Touched:
    rng = np.random.default_rng(seed)
    graph = Graph.ring(rng.permutation(clients), degree)
    member = rng.random((clients, len(WIDTHS))) < 0.5
    return Touched(graph, COMMON, STARTS, WIDTHS, member)


def words(rows: list[int]) -> list[int]:
    """The common words and those of some rows, by hand."""
    found = COMMON.tolist()
    for row in rows:
        found += range(STARTS[row], STARTS[row] + WIDTHS[row])
    return sorted(found)


def listed(where: Where) -> list[int]:
    found: list[int] = np.arange(SIZE)[where].tolist()
    return found


@given(seed=st.integers(0, 99), half=st.integers(1, 3))
def test_places_are_those_found_by_hand(seed: int, half: int) -> None:
    of = cover(seed, 7, 2 * half)
    for client in range(7):
        mine = of.member[client].nonzero()[0].tolist()
        sent = listed(of.sent(client))
        assert sent == words(mine)
        for at, (other, own) in enumerate(
            zip(of.graph.neighbors[client], of.own(client), strict=True)
        ):
            both = words([row for row in mine if of.member[other, row]])
            assert listed(of.shared(client, at)) == both
            assert np.array(sent)[own].tolist() == both


@given(seed=st.integers(0, 99), dropped=st.integers(0, 6))
def test_sums_of_touched_rows_are_exact(seed: int, dropped: int) -> None:
    of = cover(seed, 7, 6)
    protocol = begun(7, SIZE)
    drawn, expected = vectors(7, SIZE, 32, seed), np.zeros(SIZE, np.uint32)
    of = Touched(protocol.server.graph, COMMON, STARTS, WIDTHS, of.member)
    for client in range(7):
        if client != dropped:
            place = of.sent(client)
            protocol.send(client, drawn[client][place], of)
            expected[place] += drawn[client][place]

    assert (protocol.finish(of) == expected).all()


@given(seed=st.integers(0, 99), half=st.integers(1, 4), fewest=st.integers(1, 4))
def test_what_is_sent_is_the_most_that_is_accompanied(
    seed: int, half: int, fewest: int
) -> None:
    of = cover(seed, 10, 2 * half)

    kept = accompanied(of.graph, of.member, fewest)

    assert (kept == naive_core(of.graph, of.member, fewest)).all()
    assert (company(of.graph, kept)[kept] >= fewest - 1).all()


def naive_core(
    graph: Graph, member: NDArray[np.bool_], fewest: int
) -> NDArray[np.bool_]:
    """Take out one row of one client at a time."""
    kept = member.copy()
    while True:
        for client, row in np.argwhere(kept):
            with_it = sum(kept[other, row] for other in graph.neighbors[client])
            if with_it < fewest - 1:
                kept[client, row] = False
                break
        else:
            return kept


def test_bits_tell_a_client_which_rows_to_mask_with_whom() -> None:
    of: Cover = cover(3, 7, 4)
    assert isinstance(of, Touched)

    rows = int(of.member[2].sum())

    assert of.bytes_down(2) == -(-rows * 4 // 8)
