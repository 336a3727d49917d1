"""FedMR's fusion module: item id and modality vectors to one item vector.

Experts o1 = sum, o2 = MLP, o3 = gate over the projected vectors; a private router
(``router.py``) mixes them. Written over a ``linear(name, x)`` callable, so that local
training and scoring share it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from privfed.methods.parts import Part

Linear = Callable[[str, Tensor], Tensor]
Kind = Literal["mix", "sum", "mlp", "gate"]


@dataclass(frozen=True)
class Fusion:
    """Projections to ``width``, experts, and the router where they are mixed."""

    kind: Kind
    width: int
    widths: Mapping[str, int]  # of the raw inputs, "id" among them

    @property
    def experts(self) -> Sequence[str]:
        return ["sum", "mlp", "gate"] if self.kind == "mix" else [self.kind]

    def parts(self) -> Sequence[Part]:
        d, inputs = self.width, len(self.widths)
        parts = [Part(f"project.{m}", "layer", (w, d)) for m, w in self.widths.items()]
        if "mlp" in self.experts:
            parts.append(Part("expert.mlp0", "layer", (inputs * d, 2 * d)))
            parts.append(Part("expert.mlp1", "layer", (2 * d, d)))
        if "gate" in self.experts:
            parts += [Part(f"expert.gate.{m}", "layer", (d, d)) for m in self.widths]
            parts.append(Part("expert.gate", "layer", (inputs * d, d)))
        if self.kind == "mix":
            parts.append(Part("router0", "layer", (3 * d, d), private=True))
            parts.append(Part("router1", "layer", (d, 3), private=True))
        return parts

    def outputs(self, linear: Linear, projected: Mapping[str, Tensor]) -> list[Tensor]:
        """Each expert's item vectors, from the projected inputs."""
        found: list[Tensor] = []
        if "sum" in self.experts:
            first, *others = projected.values()
            found.append(sum(others, first))
        if "mlp" in self.experts:
            joined = torch.cat(list(projected.values()), dim=-1)
            hidden = torch.relu(linear("expert.mlp0", joined))
            found.append(linear("expert.mlp1", hidden))
        if "gate" in self.experts:
            gated = [
                torch.sigmoid(linear(f"expert.gate.{m}", x)) * x
                for m, x in projected.items()
            ]
            found.append(linear("expert.gate", torch.cat(gated, dim=-1)))
        return found
