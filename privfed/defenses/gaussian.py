"""Gaussian noise on the uploaded gradients, as FedMR's noise table has it."""

from dataclasses import dataclass, replace
from typing import Literal

import torch

from privfed.accounting import Guarantee
from privfed.data.world import Shape
from privfed.devices.dpsgd import NoiseSource
from privfed.interfaces import Defense
from privfed.messages import Rows, Uploads, everywhere
from privfed.seeds import Stream


@dataclass(frozen=True)
class Gaussian(Defense):
    """Add N(0, variance) to each number of an upload, in units of the gradient.

    An upload is minus the learning rate times the accumulated gradient, so the
    noise on it is ``sqrt(variance)`` times that rate. Nothing is clipped, hence no
    guarantee of any kind. ``rows="touched"`` noises only the rows that a client
    trained on and sends their ids in the clear.
    """

    variance: float = 0.1
    rows: Literal["all", "touched"] = "all"

    hides = "values, to a degree that no theorem bounds"
    does_not_hide = "nothing is guaranteed; with rows=touched the item ids are exact"
    cost = "dense uploads with rows=all; accuracy"
    paper = "FedMR, Table 4"

    def __post_init__(self) -> None:
        if not 0 <= self.variance < float("inf"):
            raise ValueError(f"variance must be 0 or more, got {self.variance}")

    def on_upload(self, uploads: Uploads, shape: Shape, stream: Stream) -> Uploads:
        if self.variance == 0:
            return uploads
        noise = NoiseSource(stream, uploads.clients, 0)
        std = self.variance**0.5
        rows = {
            name: (
                everywhere(table, len(uploads.clients), shape.items)
                if self.rows == "all"
                else table
            )
            for name, table in uploads.rows.items()
        }
        noised = {
            name: self._noise_rows(name, table, std * uploads.scale[name], noise)
            for name, table in rows.items()
        }
        dense = {
            name: value + std * uploads.scale[name] * noise(name, value)
            for name, value in uploads.dense.items()
        }
        users = {
            name: value + std * uploads.scale[name] * noise(name, value)
            for name, value in uploads.users.items()
        }
        return replace(uploads, rows=noised, dense=dense, users=users)

    def sends_every_row(self) -> bool:
        return self.rows == "all" and self.variance > 0

    def _noise_rows(
        self, name: str, table: Rows, spread: float, noise: NoiseSource
    ) -> Rows:
        counts = torch.bincount(table.sender, minlength=len(noise.clients))
        drawn = noise.ragged(name, counts, table.value)
        return replace(table, value=table.value + spread * drawn)

    def guarantee(self) -> Guarantee:
        covers = "every number of the upload"
        if self.rows == "touched":
            covers = "the numbers sent; the item ids are released exactly"
        return Guarantee(
            private=False,
            epsilon=None,
            delta=None,
            unit="none",
            relation="none",
            trust="the server sees each noised upload",
            accountant="none",
            covers=covers,
            caveats=("not DP: gradients are not clipped, so noise bounds nothing",),
        )
