"""Steps that the server takes on a summed gradient."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.optim.adam import adam as _adam

from privfed.interfaces import SERVER, State

_COUNT = f"{SERVER}adam.steps"


def adam(
    model: State, gradient: Mapping[str, Tensor], rate: float, decay: float = 0.0
) -> State:
    """One step of Adam (Kingma and Ba, 2015) on the tensors that have a gradient.

    ``decay`` is coupled: it adds ``decay * value`` to the gradient. The moments are
    tensors of the model that the server keeps to itself. What begins with ``SERVER``
    is stepped in place, for it may be most of the memory there is.
    """
    after = dict(model)
    count = after.get(_COUNT, torch.zeros(())).cpu() + 0.0
    moments: list[list[Tensor]] = [[], []]
    for name, slope in gradient.items():
        if not name.startswith(SERVER):
            after[name] = model[name].clone()
        for order in (1, 2):
            key = f"{SERVER}adam.{order}.{name}"
            if key not in after:
                after[key] = torch.zeros_like(slope)
            moments[order - 1].append(after[key])
    _adam(
        [after[name] for name in gradient],
        [slope.contiguous() for slope in gradient.values()],
        moments[0],
        moments[1],
        [],
        [count.clone() for _ in gradient],
        fused=True,
        amsgrad=False,
        beta1=0.9,
        beta2=0.999,
        lr=rate,
        weight_decay=decay,
        eps=1e-8,
        maximize=False,
    )
    return after | {_COUNT: count + 1}
