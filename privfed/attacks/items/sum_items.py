"""What the sum of a cohort's uploads still tells of its clients' interactions.

A sum comes with the number of clients in each row. Rows of a single client lie on that
client's line and so come apart into interactions and sampled negatives by their sign,
as in a single upload. What is left is counted: so many of the cohort have this item.
Cohorts differ from round to round, and the sums of many are a system of equations in
each client's own items.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from privfed.adversary import Attack, Knowledge, Prior
from privfed.attacks.reading.cohorts import came, cohorts, nobody
from privfed.attacks.reading.unmix import Unmixed, unmix
from privfed.checks import at_least, positive
from privfed.guesses import Items
from privfed.interfaces import State
from privfed.messages import Total
from privfed.surfaces import Regularized
from privfed.views import ModelView, RoundView, TotalView, View


@dataclass(frozen=True)
class SumItems(Attack):
    """Interacted-item recovery from sums and from who took part in each.

    Of every row of a sum it estimates how many of the cohort interacted with the item:
    exactly where the row comes apart into ``lines`` clients' parts at most, else the
    number of its senders times how likely a sender is no sampled negative. The
    estimates of all rounds (the first ``rounds``) are differenced: a client's items
    are the least-squares solution of "the sum counts its members", drawn to the items'
    popularity with weight ``ridge``. An item that nobody sent in a round is none of
    its clients'. A cohort of one is an upload.
    """

    lines: int = 64
    rounds: int = 1000
    ridge: float = 0.5

    sees = (RoundView, TotalView, ModelView)
    tasks = ("ranking", "rating")
    knows = Knowledge(popularity=True)
    paper = "this project"

    def __post_init__(self) -> None:
        at_least(self, 1, "lines", "rounds")
        positive(self, "ridge")

    def start(self, prior: Prior) -> State:
        assert prior.popularity is not None
        method, known = prior.method, {}
        if isinstance(method, Regularized):
            for table, parts in method.known_parts().items():
                for part in parts:
                    if part.factor is not None and part.of == table:
                        known[f"factor.{table}"] = torch.tensor(part.factor)
        none = torch.zeros(0, prior.items)
        return {
            **nobody(),
            **known,
            "share": prior.popularity.double() / max(1, prior.clients),
            "negatives": torch.tensor(prior.negatives),
            "round": torch.zeros(0, dtype=torch.int64),
            "count": none,
            "absent": none.bool(),
        }

    def observe(self, memory: State, view: View) -> State:
        if view.round >= self.rounds:
            return memory
        if isinstance(view, ModelView):
            wanted = [n.split(".", 1)[1] for n in memory if n.startswith("factor.")]
            return {**memory, **{f"model.{name}": view.model[name] for name in wanted}}
        if isinstance(view, RoundView):
            return came(memory, view)
        assert isinstance(view, TotalView)
        count, absent = self._read(view.total, memory)
        return {
            **memory,
            "round": torch.cat([memory["round"], torch.tensor([view.round])]),
            "count": torch.cat([memory["count"], count[None].float()]),
            "absent": torch.cat([memory["absent"], absent[None]]),
        }

    def _read(self, total: Total, memory: State) -> tuple[Tensor, Tensor]:
        """How many interacted with each item, and whether nobody sent its row."""
        share = memory["share"]
        found, best, absent = share * total.clients, -1.0, torch.zeros_like(share) > 0
        for name, table in total.tables.items():
            value, senders = table.double(), total.senders[name]
            if f"factor.{name}" in memory:
                known = memory[f"model.{name}"] * memory[f"factor.{name}"]
                value = value - senders[:, None] * known
            told = value.abs().sum(1) > 0
            if bool((senders == senders[:1]).all()):  # every row is sent
                if bool(told.all()) and total.clients > 1:
                    continue  # and noised: no row tells how many are in it
                senders = told.long()
            count, clear = self._counted(value, senders, total.clients, memory)
            if clear > best:
                found, best, absent = count, clear, ~told
        return found, absent

    def _counted(
        self, value: Tensor, senders: Tensor, clients: int, memory: State
    ) -> tuple[Tensor, float]:
        """Interactions in each row, and the share of rows that came apart."""
        share, sent = memory["share"], senders.double()
        negatives = int(memory["negatives"])
        if not negatives:
            return sent, 0.0
        likely = share / (share + negatives * share.mean()).clamp_min(1e-12)
        guess = sent * likely
        lines = unmix(value, senders, min(clients, self.lines))
        chance = _positive(lines, likely)
        parts = torch.zeros_like(sent).index_add_(0, lines.row, torch.ones_like(chance))
        yes = torch.zeros_like(sent).index_add_(0, lines.row, chance)
        whole = (parts == sent) & (sent > 0)
        rows = max(1, int((sent > 0).sum()))
        return torch.where(whole, yes, guess), int(whole.sum()) / rows

    def guess(self, memory: State, prior: Prior) -> Items:
        clients, member = cohorts(memory, memory["round"])
        share = memory["share"]
        size = member.sum(1, keepdim=True)
        surprise = memory["count"].double() - size * share
        system = member @ member.T
        system.diagonal().add_(self.ridge)
        gain = torch.linalg.solve(system, surprise) if len(size) else surprise
        came_often = member.sum(0)[:, None].clamp_min(1)
        missing = member.T @ memory["absent"].double() / came_often
        score = share + member.T @ gain - missing
        alone = (member * (size > 1)).sum(0) == 0  # always the only one of its cohort
        chosen = torch.where(alone[:, None], score > 0.5, _best(score, share))
        return Items(clients, score.float(), chosen)


def _best(score: Tensor, share: Tensor) -> Tensor:
    """Each client's best scored items, as many as clients have in the mean."""
    best = score.topk(min(round(float(share.sum())), len(share)), dim=1).indices
    return torch.zeros_like(score, dtype=torch.bool).scatter(1, best, True)


def _positive(lines: Unmixed, likely: Tensor) -> Tensor:
    """How likely each part is of an interaction, (parts,).

    One side of a line holds interactions, the other negatives; ``likely`` of each row
    says how much the one is to be expected before the sides are looked at.
    """
    side = lines.along.sign()
    odds = likely.clamp(1e-6, 1 - 1e-6).logit()[lines.row] * side
    sums = odds.new_zeros(len(lines.axis)).index_add_(0, lines.line, odds)
    return (sums[lines.line] * side).sigmoid()
