"""RAIFLE: interactions by optimization through the whole of local training.

Pham et al., RAIFLE: Reconstruction Attacks on Interaction-based Federated Learning with
Adversarial Data Manipulation, NDSS 2025, in its passive form: the server sends honest
models. (Its active form chooses item features so that what comes back tells more.)
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import log

import torch
from torch import Tensor

from privfed.adversary import Attack, Prior
from privfed.attacks.reading import records
from privfed.attacks.reading.descent import Found, Objective, lbfgs
from privfed.attacks.reading.simulation import Distance, best_of
from privfed.checks import at_least, not_negative
from privfed.guesses import Items
from privfed.interfaces import Method, Ranker, State
from privfed.surfaces import Replayable
from privfed.views import ModelView, UploadsView, View

_CELLS = 2**14  # samples of victims that are attacked at once
_ENOUGH = 1e-10  # of an upload's squared length
_SURE = 30.0  # a logit beyond which nothing changes


@dataclass(frozen=True)
class Raifle(Attack):
    """Interacted items by repeating local training until it gives what was uploaded.

    Attacks ``victims`` clients, drawn among those seen, by their first upload. Unknown
    are a client's private tensors, which start from ``tries`` draws of the public
    algorithm, and the label of each item sent, which starts at the public share of
    positives and is kept near it. It claims as many items as so many negatives for each
    would make it send.
    Rounds before ``after`` are passed over.
    """

    victims: int = 16
    tries: int = 2
    iterations: int = 50
    distance: Distance = "l2"
    after: int = 0

    sees = (UploadsView, ModelView)
    tasks = ("ranking",)
    paper = "Pham et al. (RAIFLE), NDSS 2025"

    def __post_init__(self) -> None:
        not_negative(self, "after")
        at_least(self, 1, "victims", "tries", "iterations")

    def misfit(self, method: Method) -> str:
        if isinstance(method, Replayable) and isinstance(method, Ranker):
            return ""
        return "cannot repeat this method's local training"

    def start(self, prior: Prior) -> State:
        return records.begin(prior)

    def observe(self, memory: State, view: View) -> State:
        if view.round < self.after:
            return memory
        return records.observed(memory, view, self.victims, 1)

    def guess(self, memory: State, prior: Prior) -> Items:
        who = records.victims(memory, torch.float32)
        score = torch.full((len(who.clients), prior.items), -_SURE - 1)
        chosen = torch.zeros(score.shape, dtype=torch.bool)
        for group, logit in self._claims(who, prior):
            victim, at = group.real.nonzero(as_tuple=True)
            row = torch.searchsorted(who.clients, group.clients)[victim]
            sure = logit.masked_fill(~group.real, -torch.inf)
            rank = sure.argsort(dim=1, descending=True, stable=True).argsort(1)
            count = likely_count(group.real.sum(1), prior.negatives, prior.items)
            best = rank < count[:, None]
            score[row, group.item[victim, at]] = logit[victim, at]
            chosen[row, group.item[victim, at]] = best[victim, at]
        return Items(who.clients, score, chosen)

    def _claims(
        self, who: records.Victims, prior: Prior
    ) -> Iterator[tuple[records.Victims, Tensor]]:
        for group in who.groups(_CELLS):
            yield group, self.recovered(group, prior)

    def recovered(self, who: records.Victims, prior: Prior) -> Tensor:
        """The logit of each label, (victims, samples)."""
        start = torch.full(who.item.shape, -log(max(1, prior.negatives)))
        sent = who.real.sum(1)
        logit, _ = best_of(
            prior,
            who,
            self.tries,
            start,
            torch.sigmoid,
            self.distance,
            self._minimized,
            likely_count(sent, prior.negatives, prior.items) / sent.clamp_min(1),
        )
        return logit.nan_to_num(0.0).clamp(-_SURE, _SURE)

    def _minimized(self, objective: Objective, start: Tensor) -> Found:
        return lbfgs(objective, start, self.iterations, enough=_ENOUGH)


def likely_count(sent: Tensor, negatives: int, items: int) -> Tensor:
    """Positives of a client that sent so many different items, (clients,).

    The number whose expected number of different items is nearest: ``negatives`` are
    drawn for each positive from all that is none.
    """
    count = torch.arange(1, items + 1, dtype=torch.float64, device=sent.device)
    others = (items - count).clamp_min(1)
    drawn = others * (1 - (1 - 1 / others) ** (negatives * count))
    expected = count + drawn.where(count < items, 0.0)
    nearest = (expected - sent[:, None]).abs().argmin(1) + 1
    return torch.minimum(nearest, sent)
