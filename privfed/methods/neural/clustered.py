"""The server that FedFast and Cali3F share: clusters of users, ClusSamp, FastAgg."""

from dataclasses import dataclass

import torch
from torch import Tensor

from privfed.checks import at_least
from privfed.data.world import Shape
from privfed.errors import SettingsError
from privfed.interfaces import SERVER, FromUploads, Invites, State
from privfed.messages import Uploads
from privfed.methods.neural import clusters as step
from privfed.methods.neural import shared
from privfed.methods.neural.shared import SharedNeural
from privfed.seeds import Stream
from privfed.surfaces import UserRow

CLUSTER = f"{SERVER}cluster"  # (clients,)
_ROUNDS = f"{SERVER}rounds"  # ()


@dataclass(frozen=True)
class Clustered(SharedNeural, FromUploads, Invites):
    """Clusters of alike user rows; a few delegates of each train for all of it.

    A round invites ``delegates`` times ``clusters`` clients, whatever the sampling.
    The delegates' mean change moves the other user rows of their cluster, times
    ``discount`` in the first round and ``fading`` of the factor before in each
    later one. ``norm`` weighs item rows by how far they moved.
    """

    clusters: int = 30
    delegates: int = 4
    discount: float = 1.0
    fading: float = 0.9
    norm: step.Norm = "l1"

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, "clusters", "delegates")
        for name in ("discount", "fading"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(
                    f"{name} must lie in [0, 1], got {getattr(self, name)}"
                )

    def user_row(self) -> UserRow:
        return UserRow(self.user_table)

    def clustered(self, shape: Shape, stream: Stream) -> dict[str, Tensor]:
        """The first model, its users parted by their random first rows."""
        if self.clusters > shape.clients:
            raise SettingsError(
                f"{self.clusters} clusters are more than the {shape.clients} clients; "
                f"give clusters={max(1, shape.clients // self.delegates)}"
            )
        model = self.first(shape, stream)
        model[CLUSTER] = self._partition(model, stream.of("clusters"))
        return {**model, _ROUNDS: torch.zeros(())}

    def invite(self, model: State, eligible: Tensor, stream: Stream) -> Tensor:
        count = self.clusters * self.delegates
        return step.delegates(model[CLUSTER], eligible, count, stream)

    def fast_agg(self, model: State, uploads: Uploads) -> dict[str, Tensor]:
        """The model after FastAgg on user and item rows, and one round later."""
        after = dict(model)
        discount = self.discount * self.fading ** float(model[_ROUNDS])
        cluster = model[CLUSTER]
        for name, change in uploads.users.items():
            kept = f"{SERVER}{name}"
            after[kept] = step.spread(
                model[kept], uploads.clients, change, cluster, discount
            )
        for name, rows in uploads.rows.items():
            after[name] = step.by_change(model[name], rows, self.norm)
        after[_ROUNDS] = model[_ROUNDS] + 1
        return after

    def parted(self, model: State, stream: Stream) -> Tensor:
        """The cluster of each client, (clients,), by what its row has become."""
        return self._partition(model, stream.of("clusters"), model[CLUSTER])

    def _partition(
        self, model: State, stream: Stream, before: Tensor | None = None
    ) -> Tensor:
        rows = torch.cat([*shared.users(model).values()], dim=1)
        return step.partition(rows, self.clusters, stream, before)


def mean_change(change: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean over delegates of (delegates, numbers)."""
    everyone = torch.zeros(len(change), dtype=torch.int64, device=change.device)
    return step.cluster_change(change, weight, everyone, 1)[0]


def flat(layers: State) -> Tensor:
    """Dense layers with a leading axis as one row each, (clients, numbers)."""
    return torch.cat([value.flatten(1) for value in layers.values()], dim=1)


def layers_of(row: Tensor, like: State) -> dict[str, Tensor]:
    """Rows as dense layers of the sizes of ``like``, the inverse of ``flat``."""
    parts = torch.split(row, [value.numel() for value in like.values()], dim=1)
    return {
        name: part.reshape(-1, *value.shape)
        for part, (name, value) in zip(parts, like.items(), strict=True)
    }
