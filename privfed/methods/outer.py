"""Steps that the server takes on a summed gradient."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim.adam import adam as _adam

from privfed.interfaces import SERVER, State

_COUNT = f"{SERVER}adam.steps"
_PIECE = 2**19  # numbers of a table stepped at a time: their gradient stays in cache


@dataclass(frozen=True, eq=False)
class Touched:
    """Gradient of a table whose other rows have gradient zero."""

    row: Tensor  # (rows,) ascending
    value: Tensor  # (rows, width)

    def out(self, table: Tensor) -> Tensor:
        """The gradient written out, as large as the table."""
        value = self.value.view(-1, *table.shape[1:])
        return torch.zeros_like(table).index_copy_(0, self.row, value)


def clipped(
    gradient: Mapping[str, Tensor | Touched], most: float
) -> Mapping[str, Tensor | Touched]:
    """All gradients times one factor by which their joint norm is at most ``most``.

    As ``torch.nn.utils.clip_grad_norm_`` has it.
    """
    norm = float(get_total_norm([_value(slope) for slope in gradient.values()]))
    factor = most / (norm + 1e-6)
    if factor >= 1:
        return gradient
    return {
        name: slope * factor
        if isinstance(slope, Tensor)
        else replace(slope, value=slope.value * factor)
        for name, slope in gradient.items()
    }


def _value(slope: Tensor | Touched) -> Tensor:
    return slope if isinstance(slope, Tensor) else slope.value


def adam(
    model: State,
    gradient: Mapping[str, Tensor | Touched],
    rate: float,
    decay: float = 0.0,
) -> State:
    """One step of Adam (Kingma and Ba, 2015) on the tensors that have a gradient.

    ``decay`` is coupled: it adds ``decay * value`` to the gradient. The moments are
    tensors of the model that the server keeps to itself. What begins with ``SERVER``
    is stepped in place, for it may be most of the memory there is; a table of which
    few rows are ``Touched`` steps whole, piece by piece, and its gradient is never
    written out.
    """
    after = dict(model)
    count = after.get(_COUNT, torch.zeros(())).cpu() + 0.0
    for name in gradient:
        if not name.startswith(SERVER):
            after[name] = model[name].clone()
        for key in (_moment(name, 1), _moment(name, 2)):
            if key not in after:
                after[key] = torch.zeros_like(model[name])
    whole = {
        name: slope.contiguous()
        if isinstance(slope, Tensor)
        else slope.out(after[name])
        for name, slope in gradient.items()
        if isinstance(slope, Tensor) or after[name].numel() <= _PIECE
    }
    _step(
        [after[name] for name in whole],
        [*whole.values()],
        [[after[_moment(name, order)] for name in whole] for order in (1, 2)],
        count,
        rate,
        decay,
    )
    for name, slope in gradient.items():
        if name not in whole and isinstance(slope, Touched):
            moments = [after[_moment(name, order)] for order in (1, 2)]
            _step_pieces(after[name], slope, moments, count, rate, decay)
    return after | {_COUNT: count + 1}


def _moment(name: str, order: int) -> str:
    return f"{SERVER}adam.{order}.{name}"


def _step_pieces(
    table: Tensor,
    slope: Touched,
    moments: list[Tensor],
    count: Tensor,
    rate: float,
    decay: float,
) -> None:
    """Step a table in place, its gradient written out for one piece at a time."""
    size = max(1, _PIECE // table[0].numel())
    buffer = torch.zeros_like(table[:size])
    starts = range(0, len(table) + size, size)
    cuts = torch.searchsorted(slope.row, slope.row.new_tensor(starts)).tolist()
    value = slope.value.view(-1, *table.shape[1:])
    for k, start in enumerate(starts[:-1]):
        part, here = slice(start, start + size), slice(cuts[k], cuts[k + 1])
        piece, at = table[part], slope.row[here] - start
        dense = buffer[: len(piece)].index_copy_(0, at, value[here])
        both = [[moment[part]] for moment in moments]
        _step([piece], [dense], both, count, rate, decay)
        dense.index_fill_(0, at, 0.0)


def _step(
    values: list[Tensor],
    slopes: list[Tensor],
    moments: list[list[Tensor]],
    count: Tensor,
    rate: float,
    decay: float,
) -> None:
    _adam(
        values,
        slopes,
        moments[0],
        moments[1],
        [],
        [count.to(value.device, copy=True) for value in values],
        fused=True,
        amsgrad=False,
        beta1=0.9,
        beta2=0.999,
        lr=rate,
        weight_decay=decay,
        eps=1e-8,
        maximize=False,
    )
