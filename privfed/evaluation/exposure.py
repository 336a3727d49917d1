"""How far up the items that an adversary promotes stand in honest clients' lists."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.linalg import vector_norm

from privfed.data.cohort import Cohort
from privfed.data.world import Ragged, World, ragged, spans
from privfed.evaluation.marks import Marks
from privfed.metrics.score import Score, mean_of
from privfed.metrics.utility import hit_rate, met_pairs, ndcg

AT = (5, 10, 20)
RANK, STANDING = "exposure", "standing"  # what is measured of each pair


@dataclass(frozen=True, eq=False)
class Exposure:
    """The promoted items, before all honest clients that never met them.

    An item is ranked among the whole catalog but for what the client met, which is all
    in its training, validation and test pairs; a tie counts against it (ER@K of
    FedRecAttack, Rong et al., ICDE 2022). ``standing`` is its score in standard
    deviations from the mean score of the client's catalog, or the rating that is
    predicted for it.
    """

    pairs: Ragged  # (client, promoted item)
    met: Ragged  # every item that a client met, once
    ratings: bool

    @classmethod
    def of(cls, world: World, targets: Tensor) -> "Exposure":
        """Everybody who may be shown the targets, (targets,) distinct items."""
        clients = world.eligible[world.eligible < world.honest]
        fresh = torch.zeros(world.shape.clients, len(targets), dtype=torch.bool)
        fresh[clients] = True
        place = torch.full((world.shape.items,), -1)
        place[targets] = torch.arange(len(targets))
        for part in (world.train, world.validation, world.test):
            at = place[part.item]
            met = at >= 0
            fresh[part.owner[met], at[met]] = False
        owner, which = fresh.nonzero(as_tuple=True)
        pairs = ragged(len(fresh), owner, targets[which], torch.ones(len(owner)))
        return cls(pairs, _met(world), world.task == "rating")

    def held(self) -> Mapping[str, Ragged]:
        """The pairs, by what is measured of them."""
        return {RANK: self.pairs, STANDING: self.pairs}

    def measure(self, scores: Tensor, cohort: Cohort) -> Mapping[str, Tensor]:
        """Ranks and standings of a cohort's pairs by its scores, (clients, items).

        Raises ArithmeticError where a score is NaN.
        """
        own = self.pairs.of(cohort.clients)
        value = scores[own.sender, own.item]
        standing = value if self.ratings else _deviations(value, scores, own.sender)
        if bool(standing.isnan().any()):
            raise ArithmeticError("a score is NaN: the model diverged")
        clients = cohort.clients[own.sender]
        pair, at = spans(self.met.offsets[clients], self.met.counts[clients])
        met = self.met.item.index_select(0, at)
        return {
            RANK: _ranks(scores, value, own.sender, pair, met),
            STANDING: standing,
        }


def _deviations(value: Tensor, scores: Tensor, sender: Tensor) -> Tensor:
    mean = scores.mean(1, keepdim=True)
    # torch.std_mean takes 20 times as long
    spread: Tensor = vector_norm(scores - mean, dim=1) / (scores.shape[1] - 1) ** 0.5
    return (value - mean[sender, 0]) / spread.clamp_min(1e-12)[sender]


def _met(world: World) -> Ragged:
    """Training, validation and test items of every client, each once."""
    key, items = met_pairs(world), world.shape.items
    owner = key // items
    return ragged(world.shape.clients, owner, key % items, torch.ones(len(key)))


def _ranks(
    scores: Tensor, value: Tensor, sender: Tensor, pair: Tensor, met: Tensor
) -> Tensor:
    """1 + how many items score no less than a pair's, (pairs,).

    Items ``met`` do not count, ``pair`` says for which of the pairs; the pair's own
    item stands for the 1.
    """
    here = torch.arange(len(scores))
    everyone = len(sender) == len(here) and bool((sender == here).all())
    table = scores if everyone else scores[sender]
    at = sender.index_select(0, pair) * scores.shape[1] + met
    beaten = scores.flatten().index_select(0, at) >= value.index_select(0, pair)
    above = (table >= value[:, None]).sum(1)
    return above - torch.bincount(pair[beaten], minlength=len(value))


def exposed(marks: Mapping[str, Marks]) -> Mapping[str, Score]:
    """ER@K, NDCG@10 of the promoted items, and their standing; means over clients."""
    if RANK not in marks:
        return {}
    position, rank, clients = marks[RANK].measured()
    found = {f"er@{k}": mean_of(hit_rate(rank, position, clients, k)) for k in AT}
    found["target_ndcg@10"] = mean_of(ndcg(rank, position, clients, 10))
    position, standing, clients = marks[STANDING].measured()
    total = torch.zeros(clients, dtype=torch.float64).index_add_(0, position, standing)
    found[STANDING] = Score(total, torch.bincount(position, minlength=clients))
    return found


def everything(cohort: Cohort) -> tuple[Tensor, Tensor]:
    """Every client of a cohort with every item: (sender, item)."""
    clients, items = len(cohort.clients), cohort.shape.items
    sender = torch.arange(clients).repeat_interleave(items)
    return sender, torch.arange(items).repeat(clients)
