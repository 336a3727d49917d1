"""Who shares masks with whom: a ring on which each client knows its nearest.

Bell et al., CCS 2020 (SecAgg+): a Harary graph whose nodes are shuffled at random, so
that everyone has as many neighbors and no one chooses whose. With enough neighbors it
is the complete graph of Bonawitz et al., CCS 2017.
"""

from dataclasses import dataclass
from math import log2

import numpy as np
from numpy.typing import NDArray

Positions = NDArray[np.int64]


def usual_degree(clients: int) -> int:
    """Neighbors of each client: all in a small cohort, at most 64 in a large one."""
    enough = 2 * round(2 * log2(clients)) if clients > 1 else 0
    return min(clients - 1, max(20, min(64, enough)))


def usual_threshold(degree: int) -> int:
    """More than half, so that no two disjoint sets of neighbors can rebuild a key."""
    return degree // 2 + 1


@dataclass(frozen=True)
class Graph:
    """Neighbors by position in the cohort; public.

    ``back[u, j]`` is where ``u`` is among the neighbors of its own neighbor ``j``.
    """

    neighbors: Positions  # (clients, degree), each row ascending
    back: Positions  # (clients, degree)

    @classmethod
    def ring(cls, order: Positions, degree: int) -> "Graph":
        """Each client tied to its ``degree`` nearest on a ring in this order.

        Raises ValueError where the degree is odd and not complete.
        """
        clients = len(order)
        if not 1 <= degree < clients or (degree % 2 and degree < clients - 1):
            raise ValueError(
                f"neighbors must be even, or all {clients - 1} others, got {degree}"
            )
        half = np.arange(1, degree // 2 + 1)
        steps = np.concatenate([half, -half])
        if degree == clients - 1:
            steps = np.arange(1, clients)
        around = (np.arange(clients)[:, None] + steps) % clients
        neighbors = np.empty((clients, degree), np.int64)
        neighbors[order] = np.sort(order[around], axis=1)
        rows = np.arange(clients)[:, None]
        edges = (rows * clients + neighbors).reshape(-1)
        back = np.searchsorted(edges, neighbors * clients + rows) - neighbors * degree
        return cls(neighbors, back)

    @property
    def clients(self) -> int:
        return len(self.neighbors)

    @property
    def degree(self) -> int:
        return int(self.neighbors.shape[1])


@dataclass(frozen=True)
class Odds:
    """Upper bounds on the chance that a random ring of a cohort fails.

    ``collusion``: colluding clients rebuild some client's key. ``split``: the masks of
    the others who survived do not tie them all together, so that a part's sum shows.
    ``dropout``: some client keeps too few neighbors, and the round is lost.
    """

    collusion: float
    split: float
    dropout: float


def odds(
    clients: int, degree: int, threshold: int, colluding: float, dropped: float
) -> Odds:
    """Bounds for shares of colluding and of dropped clients (Bell et al., section 3).

    A union over clients of hypergeometric tails; a ring falls apart only where half a
    neighborhood in a row is gone.
    """
    from scipy.stats import hypergeom

    others = clients - 1
    bad, gone = round(colluding * clients), round(dropped * clients)
    told = hypergeom.sf(threshold - 1, others, min(bad, others), degree)
    lost = hypergeom.sf(degree - threshold, others, min(gone, others), degree)
    run = np.arange(degree // 2)
    absent = np.clip((bad + gone - run) / (clients - run), 0, 1)
    split = 0.0 if degree == others else clients * float(absent.prod())
    return Odds(
        min(1.0, clients * float(told)),
        min(1.0, split),
        min(1.0, clients * float(lost)),
    )
