"""Send the largest part of an upload only.

Aji and Heafield, EMNLP 2017; by tensor, as Lin et al. (Deep Gradient Compression),
ICLR 2018. What is not sent is lost: nothing is carried to the next round.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from privfed.accounting.guarantee import Guarantee, not_private
from privfed.defenses.packing import INDEX_BYTES, refuse_packed, whole_bytes
from privfed.interfaces import Defense, Turn
from privfed.messages import Rows, Uploads


@dataclass(frozen=True)
class TopK(Defense):
    """Keep the largest ``share`` of each tensor of an upload, by magnitude.

    ``of="rows"`` keeps whole item rows, those of largest norm, and sends dense tensors
    whole. ``numbers`` keeps single numbers of all tensors, each sent as position and
    value (8 bytes), or the tensor whole where that is shorter. At least one of each
    client's rows or numbers is kept.
    """

    share: float = 0.1
    of: Literal["rows", "numbers"] = "rows"

    hides = "the smallest changes, which is a choice made by looking at the data"
    does_not_hide = "what is sent, item ids included; the largest rows tell most"
    trust = "nobody, and nothing is promised: the server sees what is sent"
    cost = "slower learning; saves bytes"
    paper = "Aji and Heafield, EMNLP 2017; Lin et al., ICLR 2018"

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"share must lie in (0, 1], got {self.share}")

    def on_upload(self, uploads: Uploads, turn: Turn) -> Uploads:
        if self.share == 1:
            return uploads
        refuse_packed("top_k", uploads)
        if self.of == "rows":
            kept = {n: self._rows(r, uploads) for n, r in uploads.rows.items()}
            return replace(uploads, rows=kept)
        rows = {n: self._numbers(r, uploads) for n, r in uploads.rows.items()}
        dense = {n: self._dense(v) for n, v in uploads.dense.items()}
        users = {n: self._dense(v) for n, v in uploads.users.items()}
        found = {n: count for n, (_, count) in {**rows, **dense, **users}.items()}
        return replace(
            uploads,
            rows={n: value for n, (value, _) in rows.items()},
            dense={n: value for n, (value, _) in dense.items()},
            users={n: value for n, (value, _) in users.items()},
            packed=_packed(uploads, found, turn),
        )

    def _rows(self, rows: Rows, uploads: Uploads) -> Rows:
        size = rows.value.square().sum(1)
        left = self._largest(rows.sender, size, len(uploads.clients))
        return Rows(rows.sender[left], rows.item[left], rows.value[left])

    def _numbers(self, rows: Rows, uploads: Uploads) -> tuple[Rows, Tensor]:
        """Rows with small numbers set to 0, those of zeros alone left out."""
        width, clients = rows.value.shape[1], len(uploads.clients)
        owner = rows.sender.repeat_interleave(width)
        left = self._largest(owner, rows.value.abs().flatten(), clients)
        count = torch.bincount(owner[left], minlength=clients)
        left = left.view(-1, width)
        some = left.any(1)
        value = (rows.value * left)[some]
        return Rows(rows.sender[some], rows.item[some], value), count

    def _dense(self, value: Tensor) -> tuple[Tensor, Tensor]:
        clients, numbers = len(value), value[:1].numel()
        flat = value.flatten(1)
        keep = int(_count(torch.tensor(numbers), self.share))
        order = flat.abs().argsort(dim=1, descending=True, stable=True)
        left = torch.zeros_like(flat).scatter(1, order[:, :keep], 1.0)
        return (flat * left).view(value.shape), torch.full((clients,), keep)

    def _largest(self, owner: Tensor, size: Tensor, clients: int) -> Tensor:
        """Which entries are among their owner's largest; of equals the first."""
        # bits of a float that is not negative have its order: one sort of whole numbers
        rank = 2**31 - 1 - size.float().view(torch.int32).long()
        order = ((owner << 32) + rank).argsort(stable=True)
        counts = torch.bincount(owner, minlength=clients)
        starts = counts.cumsum(0) - counts
        of = owner[order]
        near = torch.arange(len(order)) - starts[of] < _count(counts, self.share)[of]
        left = torch.zeros_like(near)
        left[order] = near
        return left

    def guarantee(self) -> Guarantee:
        return not_private(
            trust="the server sees all that is sent, as it is",
            covers=f"how much is sent: the largest {self.share:.0%} of "
            + ("a client's item rows" if self.of == "rows" else "each tensor"),
            caveats=(
                "not DP, and no privacy: what is kept is chosen by its size, so the "
                "choice itself depends on the data",
            ),
        )


def _count(of: Tensor, share: float) -> Tensor:
    """How many of so many are kept."""
    return (of.double() * share - 1e-9).ceil().long()


def _packed(uploads: Uploads, kept: dict[str, Tensor], turn: Turn) -> dict[str, Tensor]:
    """Bytes of each tensor: position and value of each number, or all of it."""
    whole = whole_bytes(uploads, turn.shape)
    plain = {n: r.value for n, r in uploads.rows.items()}
    plain |= {**uploads.dense, **uploads.users}
    return {
        name: torch.minimum(
            count * (INDEX_BYTES + plain[name].element_size()), whole[name]
        )
        for name, count in kept.items()
    }
