"""Gaussian uploads: noise where training would have sent a change."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from privfed.checks import positive
from privfed.interfaces import State
from privfed.messages import Rows, Uploads
from privfed.poisoners.crafting.rows import scale_of
from privfed.poisoners.untargeted.made_up import Degrader
from privfed.poisoning import Plot, Sortie


@dataclass(frozen=True)
class GaussianUpload(Degrader):
    """Upload normal noise in place of every number, each client and round its own.

    The rows sent are those that ordinary training on made-up data sends. ``deviation``
    is of a gradient: times the learning rate where the method tells one.
    """

    deviation: float = 1.0

    paper: ClassVar[str] = "Blanchard et al., NeurIPS 2017"

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "deviation")

    def forge(self, memory: State, sortie: Sortie, plot: Plot) -> tuple[State, Uploads]:
        sent = sortie.uploads

        def noise(name: str, like: Tensor, counts: list[int]) -> Tensor:
            drawn = torch.empty_like(like)
            parts = torch.split(drawn, counts)
            sortie.stream.of(name).normal(sent.clients, parts)
            return drawn * (self.deviation * scale_of(sent, name))

        def rows(name: str, table: Rows) -> Rows:
            counts = torch.bincount(table.sender, minlength=len(sent.clients))
            return replace(table, value=noise(name, table.value, counts.tolist()))

        each = [1] * len(sent.clients)
        return memory, replace(
            sent,
            rows={name: rows(name, table) for name, table in sent.rows.items()},
            dense={n: noise(n, value, each) for n, value in sent.dense.items()},
        )
