"""What a server does with clusters of clients: the steps of FedFast and of Cali3F.

A head is the dense part of a model as one row. FedFast: Muhammad et al., KDD 2020.
Cali3F: Zhu et al., 2022; its Algorithm 1 is followed where its equations differ.
"""

from typing import Any, Literal

import torch
from torch import Tensor

from privfed.errors import PrivfedError
from privfed.messages import Rows
from privfed.seeds import Stream

Norm = Literal["l1", "l2", "elementwise"]
_LEAST = 1e-12  # a head that is closer to the shared one has no direction to it


def partition(
    points: Tensor, clusters: int, stream: Stream, before: Tensor | None = None
) -> Tensor:
    """K-means cluster of each point, (points,).

    Starts from the centers of the partition ``before``, so that clusters keep their
    numbers as points move; from k-means++ without one, or where it has an empty
    cluster. Raises PrivfedError where a point is not finite.
    """
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    if not bool(points.isfinite().all()):
        raise PrivfedError(
            "training diverged: a user row is not finite; lower the learning rate or, "
            "with a defense, its noise"
        )
    start: Any = "k-means++"
    if before is not None and bool(
        (torch.bincount(before, minlength=clusters) > 0).all()
    ):
        start = _means(points.double(), before, clusters).cpu().numpy()
    seed = stream.key & (2**32 - 1)
    fitted = KMeans(clusters, init=start, n_init=1, random_state=seed)
    with threadpool_limits(1):  # the order of its sums must not follow the cores
        found = fitted.fit_predict(points.double().cpu().numpy())
    return torch.as_tensor(found, dtype=torch.int64, device=points.device)


def delegates(cluster: Tensor, able: Tensor, count: int, stream: Stream) -> Tensor:
    """ClusSamp: ``count`` clients, one of every cluster at a time, ascending.

    ``able`` are the clients that can take part, taken at random; a cluster that runs
    out leaves its turns to the others.
    """
    order = able[stream.bits(able, torch.zeros_like(able)).argsort(stable=True)]
    by_cluster = cluster[order].argsort(stable=True)
    size = torch.bincount(cluster[order])
    starts = (size.cumsum(0) - size)[cluster[order[by_cluster]]]
    turn = torch.empty_like(order)
    turn[by_cluster] = torch.arange(len(order)) - starts
    return order[turn.argsort(stable=True)][:count].sort().values


def cluster_change(
    change: Tensor, weight: Tensor, cluster: Tensor, clusters: int
) -> Tensor:
    """Weighted mean change of each cluster's delegates, zero where it has none.

    ``change`` is (delegates, numbers), ``weight`` and ``cluster`` (delegates,).
    """
    total = _sums(weight[:, None], cluster, clusters)
    summed = _sums(change * weight[:, None], cluster, clusters)
    return torch.where(total > 0, summed / total, 0.0)


def calibrated(heads: Tensor, change: Tensor, shared: Tensor, pull: float) -> Tensor:
    """CaliUp: cluster heads after their change, pulled towards the shared head.

    The pull is as long as ``pull`` times the change, and ends at the shared head:
    v + g - min(pull |g|, |v - w|) (v - w) / |v - w|. ``heads`` and ``change`` are
    (clusters, numbers), ``shared`` is (numbers,).
    """
    apart = heads - shared
    distance = torch.linalg.vector_norm(apart, dim=1, keepdim=True)
    length = pull * torch.linalg.vector_norm(change, dim=1, keepdim=True)
    share = torch.minimum(length / distance.clamp_min(_LEAST), torch.ones(()))
    return heads + change - torch.where(distance < _LEAST, 0.0, share) * apart


def spread(
    users: Tensor, clients: Tensor, change: Tensor, cluster: Tensor, discount: float
) -> Tensor:
    """FastAgg on user rows: delegates' own, and ``discount`` times their mean change.

    The mean of a cluster's delegates moves its other clients. ``users`` is (all
    clients, width), ``change`` (delegates, width), ``cluster`` (all clients,).
    """
    clusters = int(cluster.max()) + 1
    alike = torch.ones(len(clients), device=change.device)
    mean = cluster_change(change, alike, cluster[clients], clusters)
    moved = discount * mean[cluster]
    moved[clients] = change
    return users + moved


def by_change(table: Tensor, rows: Rows, norm: Norm) -> Tensor:
    """FastAgg on an item table: delegates' rows, weighted by how far each moved.

    ``norm`` measures a row's move by one number, or ``elementwise``. A row that
    nobody moved stays.
    """
    if norm == "elementwise":
        moved = rows.value.abs()
    else:
        order = 1 if norm == "l1" else 2
        moved = torch.linalg.vector_norm(rows.value, order, dim=1, keepdim=True)
    weight = _sums(moved, rows.item, len(table))
    summed = _sums(moved * rows.value, rows.item, len(table))
    return table + torch.where(weight > 0, summed / weight, 0.0)


def shares(before: Tensor, after: Tensor, weight: Tensor, clusters: int) -> Tensor:
    """ClusAvg: the share of each new cluster that came of each old, (new, old).

    Clients count by ``weight``; a new cluster without any keeps its number's head.
    """
    pair = after * clusters + before
    count = _sums(weight[:, None].double(), pair, clusters**2).view(clusters, -1)
    total = count.sum(1, keepdim=True)
    own = torch.eye(clusters, dtype=count.dtype, device=count.device)
    return torch.where(total > 0, count / total, own)


def _sums(value: Tensor, group: Tensor, groups: int) -> Tensor:
    """Sum of the rows of each group, (groups, width)."""
    return value.new_zeros(groups, value.shape[1]).index_add_(0, group, value)


def _means(value: Tensor, group: Tensor, groups: int) -> Tensor:
    count = torch.bincount(group, minlength=groups)
    return _sums(value, group, groups) / count[:, None]
