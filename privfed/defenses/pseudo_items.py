"""Made-up ratings of unrated items, for any method that learns from ratings.

FedRec's virtual ratings (Lin et al., IEEE Intelligent Systems 2021) as a defense of its
own: what a device trains on, and hence what it uploads, has them among the real ones.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from privfed.accounting.guarantee import Guarantee, not_private
from privfed.checks import not_negative
from privfed.data.cohort import Cohort, part_of
from privfed.data.world import Pairs
from privfed.devices.virtual import unrated
from privfed.errors import SettingsError
from privfed.interfaces import Defense, Method, Plan, Rater, Turn

_CLIENTS = 256  # at a time: unrated items are drawn from (clients, items)


@dataclass(frozen=True)
class PseudoItems(Defense):
    """Train on ``share`` unrated items for each rated one as well, drawn each round.

    Their rating is the client's mean (``fill="mean"``) or, with ``hybrid``, after
    ``predict_after`` rounds what its model predicts now, cut to the rating scale. A
    real rating is trained on as it is. For methods that rate; the same without its
    loss of accuracy is FedRec++: --method fedrec_pp --defense denoiser.
    """

    share: int = 1
    fill: Literal["mean", "hybrid"] = "hybrid"
    predict_after: int = 10

    hides = "which of the items sent are rated, among as many made up"
    does_not_hide = (
        "values: real gradients are sent as they are, made-up ones of one rating can "
        "be grouped; an item sent in every round is rated, since fakes are drawn anew"
    )
    trust = "nobody, and nothing is promised: the server sees all rows"
    cost = "accuracy, since made-up ratings are learned; larger uploads; device time"
    paper = "Lin et al. (FedRec), IEEE Intelligent Systems 2021"

    def __post_init__(self) -> None:
        not_negative(self, "share", "predict_after")

    def prepare(self, plan: Plan) -> "PseudoItems":
        if plan.sampling.kind == "interactions":
            raise SettingsError(
                "pseudo_items: with --sampling interactions a round has some of a "
                "client's ratings only, so rated items would be drawn as unrated; take "
                "--sampling uniform"
            )
        return self

    def method(self, method: Method) -> Method:
        if not isinstance(method, Rater):
            raise SettingsError(
                f"pseudo_items makes up ratings, and {type(method).__name__} learns "
                "from none; take --defense fedgnn, or a method that rates"
            )
        if getattr(method, "virtual", 0):
            raise SettingsError(
                f"pseudo_items: {type(method).__name__} adds virtual ratings itself; "
                "give it virtual=0, or leave pseudo_items out; what loses no accuracy "
                "is --method fedrec_pp --defense denoiser"
            )
        return method

    def on_data(self, cohort: Cohort, turn: Turn) -> Cohort:
        if self.share == 0:
            return cohort
        sender, item = self._drawn(cohort, turn)
        label = self._ratings(cohort, sender, item, turn)
        blank = cohort.context.new_zeros(len(item), cohort.context.shape[1])
        sender = torch.cat([cohort.sender, sender])
        order = sender.argsort(stable=True)  # each client's own ratings come first
        return replace(
            cohort,
            sender=sender[order],
            item=torch.cat([cohort.item, item])[order],
            label=torch.cat([cohort.label, label])[order],
            context=torch.cat([cohort.context, blank])[order],
        )

    def _drawn(self, cohort: Cohort, turn: Turn) -> tuple[Tensor, Tensor]:
        """Sender and item of what is made up."""
        senders, items = [], []
        for at in torch.split(torch.arange(len(cohort.clients)), _CLIENTS):
            some = part_of(cohort, at)
            item, real = unrated(some, self.share, turn.stream.of("virtual"))
            senders.append(at[real.nonzero()[:, 0]])
            items.append(item[real])
        return torch.cat(senders), torch.cat(items)

    def _ratings(
        self, cohort: Cohort, sender: Tensor, item: Tensor, turn: Turn
    ) -> Tensor:
        if self.fill == "hybrid" and turn.number > self.predict_after:
            assert turn.predict is not None
            nothing = cohort.label.new_zeros(len(item))
            blank = cohort.context.new_zeros(len(item), cohort.context.shape[1])
            found = turn.predict(cohort, Pairs(sender, item, nothing, blank))
            scale = cohort.shape.scale
            return found if scale is None else found.clamp(*scale)
        label = cohort.label.float()
        total = label.new_zeros(len(cohort.clients))
        total = total.index_add(0, cohort.sender, label)
        return (total / cohort.counts.clamp_min(1))[sender]

    def guarantee(self) -> Guarantee:
        return not_private(
            trust="the server sees the rows of rated and of made-up items alike",
            covers="the items of an upload, to which made-up ones are added",
            caveats=(
                "not DP: an item that is not sent was not rated, and a rated item is "
                "sent in each of its client's rounds, a made-up one in few",
                "values of real ratings are exact: they can be recovered",
            ),
        )
