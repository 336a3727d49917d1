"""Pseudo interacted items and Laplace noise, as in FedGNN and FedPerGNN.

Wu et al., arXiv 2102.04925; Nature Communications 2022: a device adds items that it did
not interact with, whose gradients are drawn from a Gaussian with the mean and
covariance of its real ones, then clips and adds Laplace noise of scale 2 clip /
epsilon. The released code (clip 0.1, epsilon 1, 1000 items) trains on one machine: it
adds Gaussian noise of one deviation to the whole item table, clips the gradient of 32
users together by tensor, and adds Laplace noise to the weights.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from privfed.accounting.guarantee import Guarantee, not_private
from privfed.checks import not_negative, positive
from privfed.defenses.clipping import Per, clipped
from privfed.devices.batches import padded
from privfed.devices.dpsgd import NoiseSource
from privfed.interfaces import Defense, Turn
from privfed.messages import Rows, Uploads
from privfed.seeds import Stream

_TOGETHER = 4  # clients whose weights are drawn at a time, which bounds memory


@dataclass(frozen=True)
class FedGNN(Defense):
    """Add rows of ``pseudo`` items, clip the upload, add Laplace noise to each number.

    A pseudo item is one whose rows a client did not train on; its row is drawn from a
    Gaussian with the mean and covariance of that client's real rows (``spread="full"``)
    or with their mean and variances (``diagonal``). ``clip`` bounds the L2 norm of each
    tensor, row or whole upload (``per``), and ``noise`` is the Laplace scale, both in
    units of the gradient. The papers call 2 clip / noise their epsilon, 1 here. It is
    the epsilon of one number that alone is clipped to +-clip, for one round; the upload
    has many numbers and its row ids besides, so nothing is guaranteed.
    """

    pseudo: int = 1000
    spread: Literal["full", "diagonal"] = "full"
    clip: float | None = 0.1
    per: Per = "tensor"
    noise: float = 0.2

    hides = "which rows were trained on, among the pseudo items; values, unproved"
    does_not_hide = (
        "that a row not sent was not trained on; a row that is sent in every round"
    )
    trust = "nobody, and nothing is promised: the server sees noised rows"
    cost = "accuracy; uploads of many more rows; device time for the noise"
    paper = "Wu et al. (FedGNN), 2021; (FedPerGNN), Nature Communications 2022"

    def __post_init__(self) -> None:
        not_negative(self, "pseudo", "noise")
        if self.clip is not None:
            positive(self, "clip")

    def on_upload(self, uploads: Uploads, turn: Turn) -> Uploads:
        if self.pseudo and uploads.rows:
            uploads = self._with_pseudo(uploads, turn)
        if self.clip is not None:
            uploads = clipped(uploads, self.clip, self.per, uploads.scale)
        return self._noised(uploads, turn) if self.noise else uploads

    def _with_pseudo(self, uploads: Uploads, turn: Turn) -> Uploads:
        sender, item = self._drawn(uploads, turn)
        counts = torch.bincount(sender, minlength=len(uploads.clients))
        rows = {}
        for name, table in uploads.rows.items():
            noise = NoiseSource(turn.stream.of("pseudo"), uploads.clients, 0)
            made = self._made(name, table, counts, turn.shape.items, noise)
            rows[name] = _merged(table, Rows(sender, item, made))
        return replace(uploads, rows=rows, packed={})

    def _drawn(self, uploads: Uploads, turn: Turn) -> tuple[Tensor, Tensor]:
        """Pseudo items of each client: none of those that it sends rows of."""
        clients, items = len(uploads.clients), turn.shape.items
        sent = torch.zeros(clients, items, dtype=torch.bool)
        for table in uploads.rows.values():
            sent[table.sender, table.item] = True
        stream = turn.stream.of("items")
        key = stream.bits(uploads.clients[:, None], torch.arange(items)[None])
        order = key.masked_fill(sent, 2**63 - 1).argsort(dim=1, stable=True)
        wanted = (~sent).sum(1).clamp_max(self.pseudo)
        chosen = torch.zeros_like(sent)
        near = torch.arange(items)[None] < wanted[:, None]
        sender, at = near.nonzero(as_tuple=True)
        chosen[sender, order[sender, at]] = True
        sender, item = chosen.nonzero(as_tuple=True)
        return sender, item

    def _made(
        self, name: str, table: Rows, counts: Tensor, items: int, noise: NoiseSource
    ) -> Tensor:
        """Pseudo rows of one table, by client: (pseudo rows, width)."""
        clients, width = len(counts), table.value.shape[1]
        real = torch.bincount(table.sender, minlength=clients)
        share = real.clamp_min(1)[:, None]
        mean = _sums(table.value, table.sender, clients) / share
        apart = table.value - mean[table.sender]
        sender = torch.arange(clients).repeat_interleave(counts)
        if self.spread == "diagonal":
            deviation = (_sums(apart.square(), table.sender, clients) / share).sqrt()
            drawn = noise.ragged(
                name, counts, table.value.new_empty(len(sender), width)
            )
            return mean[sender] + drawn * deviation[sender]
        centered = replace(table, value=apart)
        most = padded(min(self.pseudo, items))
        return mean[sender] + _combined(centered, counts, most, name, noise)

    def _noised(self, uploads: Uploads, turn: Turn) -> Uploads:
        clients = uploads.clients

        def rows(name: str, of: Rows) -> Rows:
            counts = torch.bincount(of.sender, minlength=len(clients))
            drawn = laplace(turn.stream, name, clients, of.value, counts)
            spread = self.noise * uploads.scale[name]
            return replace(of, value=of.value + spread * drawn)

        def plain(name: str, value: Tensor) -> Tensor:
            drawn = laplace(turn.stream, name, clients, value)
            return value + self.noise * uploads.scale[name] * drawn

        return replace(
            uploads,
            rows={n: rows(n, r) for n, r in uploads.rows.items()},
            dense={n: plain(n, v) for n, v in uploads.dense.items()},
            users={n: plain(n, v) for n, v in uploads.users.items()},
            packed={},
        )

    def sends_every_row(self) -> bool:
        return self.pseudo > 0  # so many that the memory is that of all

    def guarantee(self) -> Guarantee:
        stated: tuple[str, ...] = ()
        if self.clip is not None and self.noise:
            stated = (
                f"the papers would call this epsilon {2 * self.clip / self.noise:.3g}: "
                f"that is of one number in [-{self.clip:g}, {self.clip:g}], once; here "
                f"each {self.per} has L2 norm {self.clip:g} at most, and Laplace noise "
                "asks for the L1 norm of the whole upload; rounds add up, too",
            )
        return not_private(
            trust="the server sees every noised row, real or pseudo",
            covers="the numbers sent, and which rows are among them",
            caveats=(
                *stated,
                "not DP at any noise: a row that is not sent was not trained on, and "
                "which rows are sent differs between neighbors",
                "pseudo items are drawn anew: a row sent in every round is a real one",
                "what is drawn for pseudo rows follows the real rows before clipping",
            ),
        )


def laplace(
    stream: Stream,
    name: str,
    clients: Tensor,
    like: Tensor,
    counts: Tensor | None = None,
) -> Tensor:
    """Laplace draws of scale 1, from each client's own generators.

    The determinant of a 2 x 2 matrix of standard normals has that distribution, and
    needs no function whose last bit depends on where in a tensor a number lies.
    ``counts`` are the rows of each client where ``like`` has them end to end.
    """
    a, b, c, d = (
        source(name, like) if counts is None else source.ragged(name, counts, like)
        for source in (NoiseSource(stream.of("laplace"), clients, k) for k in range(4))
    )
    return a * d - b * c


def _merged(real: Rows, made: Rows) -> Rows:
    """Both, by sender and then item, so that their order tells nothing."""
    sender = torch.cat([real.sender, made.sender])
    item = torch.cat([real.item, made.item])
    value = torch.cat([real.value, made.value])
    order = item.argsort(stable=True)
    order = order[sender[order].argsort(stable=True)]
    return Rows(sender[order], item[order], value[order])


def _sums(value: Tensor, sender: Tensor, clients: int) -> Tensor:
    return value.new_zeros(clients, value.shape[1]).index_add_(0, sender, value)


def _combined(
    apart: Rows, counts: Tensor, most: int, name: str, noise: NoiseSource
) -> Tensor:
    """Random combinations of each client's own centered rows, by client.

    With normal weights of variance 1 / n over n rows they are Gaussian with exactly the
    rows' covariance. Clients of one padded number of rows go together; ``most`` is the
    same for all, whatever the shard.
    """
    clients, width = len(counts), apart.value.shape[1]
    real = torch.bincount(apart.sender, minlength=clients)
    room = torch.tensor([padded(n) for n in real.tolist()])
    out = apart.value.new_empty(int(counts.sum()), width)
    owner = torch.arange(clients).repeat_interleave(counts)
    for size in torch.unique(room).tolist():
        for at in torch.split((room == size).nonzero()[:, 0], _TOGETHER):
            draws = replace(noise, clients=noise.clients[at])
            weight = _weights(name, draws, counts[at], real[at], (most, size))
            mixed = torch.bmm(weight, _laid(apart, at, size))
            made = torch.arange(most)[None] < counts[at, None]
            out[torch.isin(owner, at)] = mixed[made]
    return out


def _weights(
    name: str, noise: NoiseSource, made: Tensor, real: Tensor, size: tuple[int, int]
) -> Tensor:
    """Normal weights of variance 1 / real, (clients, *size), 0 where padded."""
    inside = torch.arange(size[0])[None, :, None] < made[:, None, None]
    inside = inside & (torch.arange(size[1])[None, None] < real[:, None, None])
    drawn = noise.ragged(name, made * real, torch.empty(int((made * real).sum())))
    weight = torch.zeros(inside.shape)
    weight[inside] = drawn
    return weight / real.clamp_min(1).sqrt()[:, None, None]


def _laid(rows: Rows, at: Tensor, size: int) -> Tensor:
    """Some clients' rows, padded with zeros: (clients, size, width)."""
    mine = torch.isin(rows.sender, at)
    sender = torch.searchsorted(at, rows.sender[mine])
    counts = torch.bincount(sender, minlength=len(at))
    within = torch.arange(len(sender)) - (counts.cumsum(0) - counts)[sender]
    out = rows.value.new_zeros(len(at), size, rows.value.shape[1])
    out[sender, within] = rows.value[mine]
    return out
