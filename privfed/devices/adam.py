"""Local optimizers of a whole shard: SGD, Adam and AdamW, each client's own.

Clients start together and each takes its steps without a pause, so at any moment
all that still train have taken equally many: one step counter serves them, and a
client that is done is left out. Kingma and Ba, 2015; Loshchilov and Hutter, 2019.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from privfed.checks import at_least, positive

_BETAS = (0.9, 0.999)
_EPS = 1e-8  # these are PyTorch's


@dataclass(frozen=True)
class LocalRule:
    """How a device trains in one round; nothing of the optimizer outlives it.

    Each step multiplies all that is trained by 1 - ``learning_rate`` * ``decay``
    (AdamW; plain L2 under sgd; adam has none). ``clip`` bounds the norm of a client's
    gradient over all its tensors together; None leaves it as it is.
    """

    optimizer: Literal["sgd", "adam", "adamw"] = "adamw"
    learning_rate: float = 1e-3
    decay: float = 0.01
    clip: float | None = 0.5
    epochs: int = 3
    batch: int = 64

    def __post_init__(self) -> None:
        at_least(self, 1, "epochs", "batch")
        positive(self, "learning_rate")
        if not 0 <= self.decay * self.learning_rate < 1:
            raise ValueError(
                f"decay must be 0 or more and below 1 / learning_rate, got {self.decay}"
            )
        if self.clip is not None and not self.clip > 0:
            raise ValueError(f"clip must be positive or none, got {self.clip}")
        if self.optimizer == "adam" and self.decay:
            raise ValueError(
                "decay goes with sgd and adamw; adam has none, set it to 0"
            )

    @property
    def shrink(self) -> float:
        """What a step without gradient leaves of a number."""
        return 1 - self.learning_rate * self.decay

    def rest(self, steps: Tensor, like: Tensor) -> Tensor:
        """What so many steps leave of a number, (clients,) in the dtype of ``like``.

        One factor at a time, so that no entry depends on the others.
        """
        most = int(steps.max()) if len(steps) else 0
        factors = torch.full((most + 1,), self.shrink, dtype=torch.float64)
        factors[0] = 1.0
        return factors.cumprod(0)[steps].to(like)


class Optimizer:
    """Steps dense vectors (clients, numbers) and rows (rows, width), in place.

    Rows of one client lie together, clients in the same order in both, the ones that
    train longest first. The memory of one client's part should be a multiple of 64
    bytes, or its last bits depend on the neighbors.
    """

    def __init__(self, rule: LocalRule, rows: Tensor, dense: Tensor, steps: int):
        self.rule, self.rows, self.dense = rule, rows, dense
        self._adaptive = rule.optimizer != "sgd"
        if not self._adaptive:
            return
        both = (rows, dense)
        self._slope = torch.zeros_like(rows)
        self._first = [torch.zeros_like(value) for value in both]
        self._second = [torch.zeros_like(value) for value in both]
        count = torch.arange(1, steps + 1, dtype=torch.float32, device=rows.device)
        self._steps = count.unbind()

    def step(
        self, number: int, rows: int, at: Tensor, slope: Tensor, dense: Tensor
    ) -> None:
        """Step the first clients: ``dense`` (clients, numbers) and ``rows`` rows.

        ``slope`` is the gradient of the rows ``at``, (samples, width). A row that
        stands there more than once must have none.
        """
        values = [self.rows[:rows], self.dense[: len(dense)]]
        if not self._adaptive:
            self._sgd(values, at, slope, dense)
            return
        self._slope[at] = slope
        self._fused(number, values, [self._slope[:rows], dense])
        self._slope.index_fill_(0, at, 0.0)

    def _sgd(
        self, values: Sequence[Tensor], at: Tensor, slope: Tensor, dense: Tensor
    ) -> None:
        rate = self.rule.learning_rate
        if self.rule.decay:
            for value in values:
                value.mul_(self.rule.shrink)
        self.rows.index_add_(0, at, slope, alpha=-rate)
        values[1].sub_(dense, alpha=rate)

    def _fused(self, number: int, values: list[Tensor], slopes: list[Tensor]) -> None:
        torch._fused_adamw_(
            values,
            slopes,
            [part[: len(v)] for part, v in zip(self._first, values, strict=True)],
            [part[: len(v)] for part, v in zip(self._second, values, strict=True)],
            [],
            [self._steps[number]] * 2,
            amsgrad=False,
            lr=self.rule.learning_rate,
            beta1=_BETAS[0],
            beta2=_BETAS[1],
            weight_decay=self.rule.decay,
            eps=_EPS,
            maximize=False,
        )
