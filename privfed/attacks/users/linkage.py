"""Linkage: which uploads of two rounds came from the same client?

An upload without a name still carries the client's touched items, the direction of its
private vector and the whole of its update, and none of them changes much from one round
to the next.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from privfed.adversary import Attack, Prior
from privfed.attacks.reading.axis import off_axis, principal
from privfed.checks import at_least, not_negative
from privfed.guesses import Links
from privfed.interfaces import State
from privfed.messages import Uploads
from privfed.seeds import Stream
from privfed.views import UnlinkedView, View

_ROUNDS = ("first", "later")


@dataclass(frozen=True)
class Linkage(Attack):
    """Same client in two rounds, from uploads that bear no name.

    Compares every upload of the first round seen with every one of the second: by the
    rare items that both touch, by how far each item's row lies along the client's
    first component, by that component, and by the cosine of the updates, less what
    the round's uploads have in common. A likeness counts by how far it stands out
    among all others of the same two uploads.

    Where every row is sent, as under noise, those count that stand ``deviations`` out
    of the noise along the component. Of an update ``sketch`` numbers are kept, sums
    of it under random signs, whose cosines are those of the whole but for
    1 / sqrt(sketch). ``power`` bounds the power iterations for a first component.
    """

    sketch: int = 1024
    power: int = 30
    deviations: float = 2.0

    sees = (UnlinkedView,)
    recovers = "which uploads of two rounds are one client's"
    paper = "folklore; what makes a secret vector a fingerprint"

    def __post_init__(self) -> None:
        at_least(self, 1, "sketch", "power")
        not_negative(self, "deviations")

    def start(self, prior: Prior) -> State:
        return {"public": torch.tensor([prior.items, prior.stream.key])}

    def observe(self, memory: State, view: View) -> State:
        assert isinstance(view, UnlinkedView)
        for which in _ROUNDS:
            number = memory.get(f"{which} round")
            if number is not None and int(number) != view.round:
                continue
            found = self._features(view.uploads, memory["public"])
            added = {
                f"{which}: {name}": _under(memory.get(f"{which}: {name}"), value)
                for name, value in found.items()
            }
            return {**memory, f"{which} round": torch.tensor(view.round), **added}
        return memory

    def _features(self, uploads: Uploads, public: Tensor) -> dict[str, Tensor]:
        """What is kept of each upload, clients first."""
        items, key = public.tolist()
        clients = len(uploads.clients)
        length = torch.zeros(clients, items)
        found = {}
        for name, rows in uploads.rows.items():
            along, axis, share = principal(rows, clients, self.power)
            every = torch.bincount(rows.sender, minlength=clients) == items
            level = off_axis(rows, share, clients) * every * self.deviations
            told = (along.abs() - level[rows.sender]).clamp_min(0)
            length[rows.sender, rows.item] += told
            found[f"axis of {name}"] = axis
        return {
            **found,
            "length": length,
            "update": self._sketch(uploads, items, key),
            "pseudonym": uploads.clients,
        }

    def _sketch(self, uploads: Uploads, items: int, key: int) -> Tensor:
        """Each upload as a few sums of its numbers under random signs."""
        clients = len(uploads.clients)
        out = torch.zeros(clients, self.sketch)
        for number, rows in enumerate(uploads.rows.values()):
            width = rows.value.shape[1]
            place, sign = self._hashed(items * width, key + number)
            place, sign = (one.view(items, width)[rows.item] for one in (place, sign))
            place = rows.sender[:, None] * self.sketch + place
            signed = (rows.value * sign).view(-1)
            out.view(-1).index_add_(0, place.view(-1), signed)
        for number, value in enumerate(uploads.dense.values()):
            flat = value.reshape(clients, -1)
            place, sign = self._hashed(flat.shape[1], ~(key + number))
            out.index_add_(1, place, flat * sign)
        return out

    def _hashed(self, size: int, key: int) -> tuple[Tensor, Tensor]:
        """A bucket and a sign for every place of a tensor of that size."""
        bits = Stream(key).bits(torch.zeros(1, dtype=torch.int64), torch.arange(size))
        return bits % self.sketch, 1.0 - 2.0 * (bits >> 61 & 1).float()

    def guess(self, memory: State, prior: Prior) -> Links:
        first, later = (_of(memory, which) for which in _ROUNDS)
        if not first or not later:
            none = torch.zeros(0, dtype=torch.int64)
            return Links(none, none, torch.zeros(0, 0), (0, 0))
        score = _apart(_rare(first["length"] > 0, later["length"] > 0))
        score += _apart(_centered(first["length"]) @ _centered(later["length"]).T)
        score += _apart(_centered(first["update"]) @ _centered(later["update"]).T)
        for name, axis in first.items():
            if name.startswith("axis of "):
                score += _apart((axis @ later[name].T).abs())
        rounds = (int(memory["first round"]), int(memory["later round"]))
        return Links(first["pseudonym"], later["pseudonym"], score, rounds)


def _of(memory: State, which: str) -> dict[str, Tensor]:
    """One round's features, by ascending pseudonym."""
    at = f"{which}: "
    found = {n.removeprefix(at): v for n, v in memory.items() if n.startswith(at)}
    if not found:
        return {}
    order = found["pseudonym"].argsort()
    return {name: value[order] for name, value in found.items()}


def _rare(first: Tensor, later: Tensor) -> Tensor:
    """Cosine of the touched sets, an item counting by how few of all touched it."""
    share = torch.cat([first, later]).double().mean(0)
    weight = -share.clamp_min(1e-12).log().clamp_max(0)
    weight = torch.where(share > 0, weight, 0.0).sqrt()
    a, b = (normalize(one * weight, dim=1) for one in (first, later))
    return (a @ b.T).float()


def _apart(likeness: Tensor) -> Tensor:
    """By how many deviations each likeness stands out of its row and column.

    All alike, as the touched sets are where every row is sent, is no likeness.
    """
    if not likeness.numel():
        return likeness
    parts = []
    for dim in (0, 1):
        mean = likeness.mean(dim, keepdim=True)
        spread = likeness.std(dim, keepdim=True, correction=0)
        parts.append((likeness - mean) / spread.clamp_min(1e-6))
    return (parts[0] + parts[1]) / 2


def _centered(sketch: Tensor) -> Tensor:
    """Unit vectors less what the round's clients have in common."""
    unit = normalize(sketch, dim=1)
    return normalize(unit - unit.mean(0), dim=1)


def _under(before: Tensor | None, value: Tensor) -> Tensor:
    return value if before is None else torch.cat([before, value])
