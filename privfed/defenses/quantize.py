"""Numbers of few bits, rounded up or down at random.

Alistarh et al. (QSGD), NeurIPS 2017, with each tensor scaled by its largest number, as
their experiments do it: a number v of a tensor whose largest is m becomes m / L times
an integer of -L .. L, the one below or above v L / m, so that its mean is v.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from privfed.accounting.guarantee import Guarantee, not_private
from privfed.data.world import Shape
from privfed.defenses.packing import refuse_packed
from privfed.interfaces import Defense, Turn
from privfed.messages import ID_BYTES, Rows, Uploads
from privfed.seeds import Stream

_WHOLE = 32  # bits of a number that is left alone
_SCALE_BYTES = 4


@dataclass(frozen=True)
class Quantize(Defense):
    """Send each number in ``bits`` bits; 32 leaves uploads as they are.

    Rounding is random and right on average. Each client sends one scale a tensor.
    """

    bits: int = 8

    hides = "the last digits of each number"
    does_not_hide = "item ids, signs and sizes: attacks on directions see them"
    trust = "nobody, and nothing is promised: the server sees rounded uploads"
    cost = "noise of rounding; saves bytes"
    paper = "Alistarh et al. (QSGD), NeurIPS 2017"

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= _WHOLE:
            raise ValueError(f"bits must lie in 2 .. {_WHOLE}, got {self.bits}")

    def on_upload(self, uploads: Uploads, turn: Turn) -> Uploads:
        if self.bits == _WHOLE:
            return uploads
        refuse_packed("quantize", uploads)
        clients, draws = uploads.clients, turn.stream
        rows = {n: self._rows(r, clients, draws.of(n)) for n, r in uploads.rows.items()}
        plain = {**uploads.dense, **uploads.users}
        rounded = {n: self._dense(v, clients, draws.of(n)) for n, v in plain.items()}
        return replace(
            uploads,
            rows=rows,
            dense={name: rounded[name] for name in uploads.dense},
            users={name: rounded[name] for name in uploads.users},
            packed=self._packed(uploads, turn.shape),
        )

    def _rows(self, rows: Rows, clients: Tensor, stream: Stream) -> Rows:
        width = rows.value.shape[1]
        largest = rows.value.new_zeros(len(clients)).scatter_reduce(
            0, rows.sender, rows.value.abs().amax(1), "amax", include_self=True
        )
        place = rows.item[:, None] * width + torch.arange(width)
        chance = stream.uniform(clients[rows.sender, None], place)
        value = self._rounded(rows.value, largest[rows.sender, None], chance)
        return replace(rows, value=value)

    def _dense(self, value: Tensor, clients: Tensor, stream: Stream) -> Tensor:
        flat = value.flatten(1)
        largest = flat.abs().amax(1, keepdim=True)
        chance = stream.uniform(clients[:, None], torch.arange(flat.shape[1])[None])
        return self._rounded(flat, largest, chance).view(value.shape)

    def _rounded(self, value: Tensor, largest: Tensor, chance: Tensor) -> Tensor:
        """The multiple of the step below or above each number."""
        step = largest.double().clamp_min(1e-300) / self._levels
        return ((value / step + chance).floor() * step).to(value.dtype)

    @property
    def _levels(self) -> int:
        return int(2 ** (self.bits - 1)) - 1

    def _packed(self, uploads: Uploads, shape: Shape) -> dict[str, Tensor]:
        """Bytes of each tensor, (clients,): item ids, numbers, one scale."""
        count, found = len(uploads.clients), {}
        for name, rows in uploads.rows.items():
            width = rows.value.shape[1]
            sent = torch.bincount(rows.sender, minlength=count)
            table = self._bytes(torch.full_like(sent, shape.items * width))
            pairs = self._bytes(sent * width) + sent * ID_BYTES
            whole = name in uploads.rest
            found[name] = table if whole else torch.minimum(pairs, table)
        for name, value in {**uploads.dense, **uploads.users}.items():
            numbers = value[:1].numel()
            if name in uploads.users and name in uploads.rest:
                numbers *= shape.clients
            found[name] = self._bytes(torch.full((count,), numbers))
        return found

    def _bytes(self, numbers: Tensor) -> Tensor:
        return (numbers * self.bits + 7) // 8 + _SCALE_BYTES

    def guarantee(self) -> Guarantee:
        return not_private(
            trust="the server sees every rounded number",
            covers=f"the digits of each number, of which {self.bits} bits are sent",
            caveats=(
                "not DP: the rounding's chances depend on the data, item ids and each "
                "tensor's largest number are exact",
            ),
        )
