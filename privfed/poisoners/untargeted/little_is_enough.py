"""A little is enough: the mean of the honest, shifted within their spread.

Baruch, Baruch and Goldberg, A little is enough, NeurIPS 2019: forged values lie so near
the mean that there are honest ones farther out, so that medians, trimmed means and Krum
keep them, yet every coordinate is shifted the same way in every round.
"""

from dataclasses import dataclass
from math import isfinite
from typing import ClassVar, Literal

import torch
from scipy.stats import norm
from torch import Tensor

from privfed.messages import Uploads
from privfed.poisoners.crafting.rows import Crafted, replaced
from privfed.poisoners.untargeted.honest import Per, Spread, moments
from privfed.poisoners.untargeted.omniscient import Omniscient
from privfed.poisoning import Plot, Sortie

FARTHEST = 3.0  # deviations, where the attackers are the majority and nothing bounds z


def z_max(others: Tensor, malicious: int) -> Tensor:
    """How many deviations off a forged value may be, by number of honest ``others``.

    The paper's rule: with n clients, m of them malicious, s = floor(n / 2) + 1 - m
    honest ones must be farther off for the forged to be a majority among the nearest:
    z = the normal quantile of (n - m - s) / (n - m). At least 0, at most ``FARTHEST``.
    """
    supporters = (others + malicious) // 2 + 1 - malicious
    nearer = (others - supporters).double() / others.clamp_min(1)
    quantile = norm.ppf(nearer.clamp(0.5, norm.cdf(FARTHEST)).cpu().numpy())
    return torch.as_tensor(quantile, device=others.device)


@dataclass(frozen=True)
class LittleIsEnough(Omniscient):
    """Upload the honest mean less ``z`` standard deviations, coordinate by coordinate.

    ``counts`` takes the largest z that the paper's rule allows for the numbers of
    honest and malicious clients. ``per="item"`` compares a row with those of the
    clients that sent the item, ``upload`` with those of all clients (the paper,
    ByzFL), a row that was not sent being zero; items that no honest client sent are
    left alone. Clients count alike.
    """

    z: float | Literal["counts"] = "counts"
    per: Per = "item"

    paper: ClassVar[str] = "Baruch et al., NeurIPS 2019"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.z != "counts" and not isfinite(self.z):
            raise ValueError(f"z must be a finite number or 'counts', got {self.z}")

    def answer(self, honest: Uploads, sortie: Sortie, plot: Plot) -> Uploads:
        found, count = moments(honest, self.per, plot.items), len(sortie.clients)
        rows = {
            name: Crafted(found.items[name], self._shifted(spread, count))
            for name, spread in found.rows.items()
        }
        dense = {n: self._shifted(spread, count) for n, spread in found.dense.items()}
        return replaced(sortie.uploads, rows, dense, plot.items)

    def _shifted(self, of: Spread, malicious: int) -> Tensor:
        if self.z != "counts":
            return of.mean - of.deviation * self.z
        z = z_max(of.count, malicious).to(of.mean)
        z = z.view(*z.shape, *[1] * (of.mean.dim() - z.dim()))
        return of.mean - of.deviation * z
