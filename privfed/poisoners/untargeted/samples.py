"""What a device would upload if its samples were others than its data says.

A public algorithm, repeated on samples of one's own choice: positives and negatives.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from privfed.devices.recipe import Recipe
from privfed.interfaces import Method
from privfed.messages import Uploads
from privfed.poisoners.crafting.rows import Crafted, replaced, scale_of
from privfed.poisoners.crafting.scorer import scorer
from privfed.poisoning import Plot, Sortie
from privfed.replay import replay
from privfed.surfaces import OneStep, Regularized, Replayable


@dataclass(frozen=True, eq=False)
class Samples:
    """Samples in groups: in each, one item against the others.

    ``taken`` says which are the positives, the first of a group or the others; the rest
    are negatives. Each group counts ``times``. An item comes once for each client.
    """

    item: Tensor  # (clients, groups, 1 + others)
    taken: Literal["first", "others"] = "first"
    times: int = 1

    @property
    def label(self) -> Tensor:
        """1.0 for a positive, (clients, groups, 1 + others)."""
        first = torch.zeros(self.item.shape)
        first[..., 0] = 1.0
        return first if self.taken == "first" else 1 - first

    def grouped(self, score: Tensor) -> Tensor:
        """Scores of the items as groups of a positive and its negatives.

        Of (clients, groups, 1 + others) as ``item``; where the others are positives,
        each is a group with the first as its negative.
        """
        if self.taken == "others":
            others = score[..., 1:]
            score = torch.stack([others, score[..., :1].expand_as(others)], -1)
            score = score.flatten(1, 2)
        return score.repeat_interleave(self.times, dim=1)


def misfit(method: Method) -> str:
    """Why samples of one's own choice cannot be trained on; empty where they can."""
    if isinstance(method, Replayable | OneStep):
        return ""
    return "it says too little of its training to repeat it on other samples"


def trained(samples: Samples, sortie: Sortie, plot: Plot) -> Uploads:
    """What the malicious clients would upload after training on these samples.

    They start where their devices stand: with their own tensors before the round.
    """
    method = plot.method
    if isinstance(method, Replayable):
        return _replayed(method.recipe(plot.shape, sortie.round), samples, sortie, plot)
    assert isinstance(method, OneStep)
    return _one_step(method, samples, sortie, plot)


def _one_step(method: OneStep, samples: Samples, sortie: Sortie, plot: Plot) -> Uploads:
    of, item = scorer(method, plot.shape), samples.item.flatten(1)
    rows = {n: v.requires_grad_() for n, v in of.rows(sortie.model, item).items()}
    own = of.samples(sortie.model, sortie.own, item)
    with torch.enable_grad():
        score = of.predict(rows, sortie.model, own).view(samples.item.shape)
        loss = method.group_loss(samples.grouped(score)).sum()
        found = torch.autograd.grad(loss, list(rows.values()))
    sent, changed = sortie.uploads, {}
    for name, gradient in zip(rows, found, strict=True):
        change = gradient * -scale_of(sent, name)
        changed[name] = Crafted(item, change + _known(method, name, sortie, item))
    return replaced(sent, changed, {}, plot.items)


def _known(method: Method, name: str, sortie: Sortie, item: Tensor) -> Tensor:
    """What the algorithm adds to a row whatever the data."""
    total = torch.zeros_like(sortie.model[name][item])
    if isinstance(method, Regularized):
        for part in method.known_parts().get(name, ()):
            row = sortie.model[part.of][item]
            total += (row.sign() if part.signs else row) * (part.factor or 0.0)
    return total


def _replayed(recipe: Recipe, samples: Samples, sortie: Sortie, plot: Plot) -> Uploads:
    of, item = scorer(plot.method, plot.shape), samples.item.flatten(1)
    label = samples.label.flatten(1)
    own = of.samples(sortie.model, sortie.own, item)
    often = torch.full_like(label, float(samples.times))
    moved = replay(recipe, sortie.model, own, item, label, often)
    rows = {name: Crafted(item, value) for name, value in moved.rows.items()}
    return replaced(sortie.uploads, rows, moved.shared, plot.items)
