"""Gaussian noise on uploads, in the forms that the literature has.

FedMR's noise table: variance in units of the gradient, nothing clipped. IMIA (Yuan et
al., WWW 2023): each row of the upload cut to norm 1, then noise on the rows sent.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch

from privfed.accounting.guarantee import Guarantee, not_private
from privfed.checks import not_negative, positive
from privfed.defenses.clipping import Per, clipped
from privfed.devices.dpsgd import NoiseSource
from privfed.interfaces import Defense, Turn
from privfed.messages import Rows, Uploads, everywhere


@dataclass(frozen=True)
class Gaussian(Defense):
    """Add N(0, variance) to each number of an upload, cut to a norm first if asked.

    An upload is minus the learning rate times the accumulated gradient. With
    ``units="gradient"`` clip and noise are in units of that gradient, hence times the
    rate on what is sent; with ``upload`` they are of what is sent itself. ``clip``
    bounds the L2 norm of each row, of each tensor or of the upload (``per``).
    ``rows="touched"`` noises only the rows that a client trained on and sends their
    ids in the clear. No form computes an epsilon: ``ldp`` and ``dp`` do.
    """

    variance: float = 0.1
    rows: Literal["all", "touched"] = "all"
    clip: float | None = None
    per: Per = "row"
    units: Literal["gradient", "upload"] = "gradient"

    hides = "values, to a degree that no theorem bounds"
    does_not_hide = "nothing is guaranteed; with rows=touched the item ids are exact"
    trust = "nobody, and nothing is promised: the server sees noised uploads"
    cost = "dense uploads with rows=all; accuracy"
    paper = "FedMR, Table 4; with clip and rows=touched Yuan et al. (IMIA), WWW 2023"

    def __post_init__(self) -> None:
        not_negative(self, "variance")
        if self.clip is not None:
            positive(self, "clip")

    def on_upload(self, uploads: Uploads, turn: Turn) -> Uploads:
        size = self._size(uploads)
        if self.clip is not None:
            uploads = clipped(uploads, self.clip, self.per, size)
        if self.variance == 0:
            return uploads
        if self.rows == "all":
            count, items = len(uploads.clients), turn.shape.items
            full = {n: everywhere(t, count, items) for n, t in uploads.rows.items()}
            uploads = replace(uploads, rows=full)
        return self._noised(uploads, size, turn)

    def _size(self, uploads: Uploads) -> Mapping[str, float]:
        """What a norm and a deviation of 1 are on each tensor."""
        names = [*uploads.rows, *uploads.dense, *uploads.users]
        if self.units == "upload":
            return dict.fromkeys(names, 1.0)
        return {name: uploads.scale[name] for name in names}

    def _noised(
        self, uploads: Uploads, size: Mapping[str, float], turn: Turn
    ) -> Uploads:
        noise = NoiseSource(turn.stream, uploads.clients, 0)
        std = self.variance**0.5
        plain = {**uploads.dense, **uploads.users}
        added = {n: v + std * size[n] * noise(n, v) for n, v in plain.items()}
        return replace(
            uploads,
            rows={
                name: self._noise_rows(name, table, std * size[name], noise)
                for name, table in uploads.rows.items()
            },
            dense={name: added[name] for name in uploads.dense},
            users={name: added[name] for name in uploads.users},
            packed={},  # noised numbers travel whole
        )

    def sends_every_row(self) -> bool:
        return self.rows == "all" and self.variance > 0

    def _noise_rows(
        self, name: str, table: Rows, spread: float, noise: NoiseSource
    ) -> Rows:
        counts = torch.bincount(table.sender, minlength=len(noise.clients))
        drawn = noise.ragged(name, counts, table.value)
        return replace(table, value=table.value + spread * drawn)

    def guarantee(self) -> Guarantee:
        covers, caveats = "every number of the upload", [self._bound()]
        if self.rows == "touched":
            covers = "the numbers sent; the item ids are released exactly"
            caveats.append(
                "not DP at any noise: which rows are sent differs between neighbors, "
                "and that is released"
            )
        caveats.append(
            "a client's weight, where the method sends one, is in the clear and "
            "multiplies what was bounded"
        )
        return not_private(
            trust="the server sees each noised upload",
            covers=covers,
            caveats=tuple(caveats),
        )

    def _bound(self) -> str:
        """What the clipping bounds, which is seldom what it seems to."""
        if self.clip is None:
            return "not DP: gradients are not clipped, so noise bounds nothing"
        noise = f"noise of {self.variance**0.5:.3g} on each number"
        if self.per == "upload":
            return (
                f"a client's upload has norm {self.clip:g} at most, with {noise}; no "
                "epsilon is accounted for it here, over rounds or at all: take ldp"
            )
        parts = "rows" if self.per == "row" else "tensors"
        return (
            f"not DP as clipped: each {self.per} has norm {self.clip:g} at most, but a "
            f"client's upload {self.clip:g} * sqrt(its {parts}), which is what {noise} "
            "would have to be measured against; ldp clips whole uploads"
        )
