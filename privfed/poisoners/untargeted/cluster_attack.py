"""ClusterAttack: uploads that draw the items together into a few clusters.

Yu et al., AAAI 2023, as released. Items of one cluster have like scores, so that no
ranking is left among them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
from torch import Tensor
from torch.linalg import vector_norm

from privfed.checks import at_least, not_negative, positive
from privfed.interfaces import Method, State
from privfed.messages import Rows, Uploads
from privfed.poisoners.crafting.rows import Crafted, replaced
from privfed.poisoners.untargeted.clusters import Adaptive, Bounds
from privfed.poisoners.untargeted.made_up import Degrader
from privfed.poisoning import Plot, Sortie
from privfed.seeds import Stream
from privfed.surfaces import Generated


def pull(vectors: Tensor, clusters: int, seed: int) -> tuple[Tensor, float]:
    """Gradient of the loss of a k-means clustering, (items, width), and the loss.

    The loss is the sum of squared distances to the centers over the number of clusters;
    the centers are held fixed.
    """
    found = KMeans(clusters, init="random", n_init=1, random_state=seed)
    with threadpool_limits(1):  # sums of several threads come in any order
        label = found.fit_predict(vectors.double().cpu().numpy())
    centers = torch.as_tensor(found.cluster_centers_)[torch.as_tensor(label).long()]
    apart = vectors.double() - centers.to(vectors.device)
    return (2 / clusters * apart).to(vectors), float(apart.square().sum() / clusters)


@dataclass(frozen=True)
class Lengths:
    """How long rows of one table usually are."""

    mean: float
    deviation: float

    @classmethod
    def of(cls, rows: Rows, clients: int, items: int) -> "Lengths":
        """Over every row of the catalog; one that was not sent has length 0."""
        length: Tensor = vector_norm(rows.value.double(), dim=1)
        count = clients * items
        mean = float(length.sum()) / count
        variance = (float(length.square().sum()) - count * mean**2) / max(1, count - 1)
        return cls(mean, max(0.0, variance) ** 0.5)


@dataclass(frozen=True)
class ClusterAttack(Degrader):
    """Draw every item toward the center of its cluster, by rows of usual length.

    Each round k-means parts the item table; every malicious client sends a row for
    every item, as long as the mean of rows' lengths plus up to ``spread`` deviations,
    drawn anew. Lengths are taken from the ordinary uploads of at most ``sampled`` of
    its clients of the round, a row that is not sent having length 0. Whatever is no
    item row is sent as trained. The number of clusters starts at ``clusters`` and moves
    in 1 to ``most``, by ``patience`` rounds of rising or falling loss, ``smoothing``
    of whose average stays. ``growth`` of the patience is undefined in the released
    code; 1 is ours. Several item tables are clustered as one.
    """

    clusters: int = 2
    most: int = 50
    patience: int = 100
    smoothing: float = 0.999
    growth: float = 1.0
    spread: float = 3.0
    sampled: int = 50

    paper: ClassVar[str] = "Yu et al., AAAI 2023"

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, "clusters", "patience", "sampled")
        positive(self, "smoothing")
        not_negative(self, "growth", "spread")
        if self.most < self.clusters:
            raise ValueError(f"most must be at least clusters, got {self.most}")
        if self.smoothing >= 1:
            raise ValueError(f"smoothing must be below 1, got {self.smoothing}")

    def misfit(self, method: Method) -> str:
        if isinstance(method, Generated):
            return "no device of it receives an item table to cluster"
        return ""

    def start(self, plot: Plot) -> State:
        return Adaptive(float(self.clusters), float(self.patience)).saved()

    def forge(self, memory: State, sortie: Sortie, plot: Plot) -> tuple[State, Uploads]:
        sent, adaptive = sortie.uploads, Adaptive.load(memory)
        tables = {n: sortie.model[n] for n in sent.rows if n in sortie.model}
        vectors = torch.cat(list(tables.values()), 1)
        count = min(int(adaptive.clusters), len(torch.unique(vectors, dim=0)))
        seed = int(sortie.stream.of("centers").key % 2**32)
        gradient, loss = pull(vectors, count, seed)
        parts = torch.split(gradient, [t.shape[1] for t in tables.values()], dim=1)
        directions = dict(zip(tables, parts, strict=True))
        after = adaptive.after(loss, self._bounds())
        return after.saved(), self._uploads(directions, sortie, plot)

    def _bounds(self) -> Bounds:
        return Bounds(1, self.most, self.smoothing, self.growth)

    def _uploads(
        self, directions: Mapping[str, Tensor], sortie: Sortie, plot: Plot
    ) -> Uploads:
        sent, every = sortie.uploads, torch.arange(plot.items)
        rows = {}
        for name, gradient in directions.items():
            usual = self._usual(sent.rows[name], len(sent.clients), plot.items)
            length = self._lengths(usual, sortie.stream.of(name), sortie.clients, every)
            away = gradient / vector_norm(gradient, dim=1, keepdim=True).clamp_min(1e-8)
            rows[name] = Crafted(every, away * -length.to(away)[..., None])
        forged = replaced(sent, rows, sent.dense, plot.items)
        return replace(forged, users=sent.users)

    def _usual(self, rows: Rows, clients: int, items: int) -> Lengths:
        some = min(clients, self.sampled)
        asked = rows.sender < some
        few = Rows(rows.sender[asked], rows.item[asked], rows.value[asked])
        return Lengths.of(few, some, items)

    def _lengths(
        self, usual: Lengths, draws: Stream, clients: Tensor, items: Tensor
    ) -> Tensor:
        """How long each client's rows are to be, (clients, items)."""
        drawn = draws.uniform(clients[:, None], items[None])
        return usual.mean + drawn * (usual.deviation * self.spread)
