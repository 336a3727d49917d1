"""Which of two kinds an item is of, by how often it came, and how.

A client's items are interactions or others. Each kind has its own chance of coming
with an upload; one that comes has a level, how much its value stands out, and a sign:
plus is right for interactions and minus for others, and wrong as often as its level
lets expect. Expectation maximization (Dempster, Laird and Rubin, 1977) fits this for
all clients at once. More uploads tell the kinds apart: what is drawn anew each time
does not come back.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_MOST, _LEAST = 0.95, 1e-12  # an item's chance before anything was seen
_CELLS = 2_000_000  # (client, item) cells of one chunk


@dataclass(frozen=True)
class Mixture:
    """Expectation maximization for two kinds of items.

    ``wrong`` gives each level's expected share of wrong signs, which counts as much as
    ``belief`` observations, ``missing`` how often an interaction is expected not to
    come, as much as ``faith``. Without levels an item comes or does not.
    ``smoothing`` is added to how often items came and did not; ``steps`` bounds the
    iterations.
    """

    wrong: Sequence[float] = ()
    missing: float = 1e-4
    belief: float = 100.0
    faith: float = 100.0
    smoothing: float = 1e-2
    steps: int = 50

    @property
    def outcomes(self) -> int:
        """Ways in which an item may come: minus and plus of each level."""
        return max(1, 2 * len(self.wrong))

    def log_odds(
        self, counts: Tensor, uploads: Tensor, first: Tensor, share: Tensor
    ) -> Tensor:
        """How much more likely an interaction than not, (clients, items) float64.

        ``counts`` (outcomes, clients, items) says how often an item came, and how, of
        a client's ``uploads`` (clients,). ``first`` (clients, items) is the chance of
        an interaction to begin with, ``share`` (items,) each item's share of all
        interactions, which sum to 1.
        """
        absent = (uploads[:, None] - counts.sum(0)).to(counts.dtype)
        ways = torch.cat([counts, absent[None]])
        clients = torch.arange(len(uploads), device=counts.device)
        parts = torch.split(clients, max(1, _CELLS // max(1, counts.shape[2])))
        found = [self._fitted(ways[:, at], first[at].double(), share) for at in parts]
        return torch.cat(found)

    def _fitted(self, ways: Tensor, chance: Tensor, share: Tensor) -> Tensor:
        total = ways.sum(2).double()  # (ways, clients)
        odds = torch.zeros_like(chance)
        moving = torch.ones(len(chance), 1, dtype=torch.bool, device=chance.device)
        for _ in range(self.steps):
            many = chance.sum(1, keepdim=True)
            now = torch.logit((many * share).clamp(_LEAST, _MOST))
            inside = torch.stack([(way * chance).sum(1) for way in ways])
            outside = (total - inside).clamp_min(0)
            told = self._rates(inside, total, 1).log()
            told -= self._rates(outside, total, 0).log()
            for way, each in zip(ways, told, strict=True):
                now = now + way * each[:, None]
            odds = torch.where(moving, now, odds)
            moved = (odds.sigmoid() - chance).abs().amax(1, keepdim=True)
            chance = odds.sigmoid()
            moving &= moved > 1e-6  # a client stops by itself
            if not moving.any():
                break
        return odds

    def _rates(self, seen: Tensor, total: Tensor, right: int) -> Tensor:
        """Chances of all ways for items of one kind, (ways, clients)."""
        came, absent = seen[:-1].sum(0), seen[-1]
        ours = self.faith if right else 0.0  # interactions come every time
        usually = came + self.smoothing + ours * (1 - self.missing)
        comes = usually / (came + absent + 2 * self.smoothing + ours)
        if not self.wrong:
            return torch.stack([comes, 1 - comes])
        pairs = seen[:-1].view(
            len(self.wrong), 2, seen.shape[1]
        )  # (levels, 2, clients)
        usual = total[:-1].view(len(self.wrong), 2, total.shape[1]).sum(1) + 1e-3
        level = (pairs.sum(1) + self.smoothing * usual / usual.sum(0)) / (
            came + self.smoothing
        )
        wrong = torch.tensor(self.wrong, dtype=seen.dtype, device=seen.device)[:, None]
        errs = (pairs[:, 1 - right] + self.belief * wrong) / (
            pairs.sum(1) + self.belief
        )
        signs = [errs, 1 - errs] if right else [1 - errs, errs]
        each = torch.stack(signs, 1) * (level * comes)[:, None]
        return torch.cat([each.flatten(0, 1), (1 - comes)[None]])
