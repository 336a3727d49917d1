"""Errors of predicted ratings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from privfed.data.cohort import Cohort
from privfed.data.world import Pairs, World
from privfed.evaluation.exposure import Exposure, everything
from privfed.evaluation.marks import Marks
from privfed.evaluation.task import PairTask, by_pairs, split, whole
from privfed.interfaces import Rater, State
from privfed.metrics.score import Score
from privfed.references import item_means, user_means


@dataclass(frozen=True, eq=False)
class Rating(PairTask):
    """Held-out ratings predicted: MAE, MSE and RMSE over all of them."""

    world: World
    method: Rater
    exposure: Exposure | None = None

    select = "mse"
    higher = False

    def describe(self) -> str:
        return f"{len(self.world.test.item):,} held-out ratings"

    def marks(
        self, model: State, private: State, cohort: Cohort, pairs: Pairs
    ) -> Tensor:
        error = self.method.predict(model, private, cohort, pairs) - pairs.label
        if not bool(error.isfinite().all()):
            raise ArithmeticError("a predicted rating is not finite")
        return error

    def table(self, model: State, private: State, cohort: Cohort) -> Tensor:
        sender, item = everything(cohort)
        width = cohort.context.shape[1]
        none = torch.zeros(len(item)), torch.zeros(len(item), width)
        pairs = Pairs(sender, item, *none)
        predicted = self.method.predict(model, private, cohort, pairs)
        return predicted.view(len(cohort.clients), -1)

    def scores(self, marks: Marks) -> Mapping[str, Score]:
        mse = by_pairs(marks, torch.square)
        return {
            "mae": by_pairs(marks, torch.abs),
            "mse": mse,
            "rmse": replace(mse, root=True),
        }

    def references(self) -> Mapping[str, Marks]:
        test = self.world.test
        users, items = user_means(self.world), item_means(self.world)
        return {
            "user mean": whole(test, users[test.owner] - test.label),
            "item mean": whole(test, items[test.item] - test.label),
        }

    def chunks(self) -> Sequence[Tensor]:
        counts = self.world.validation.counts + self.world.test.counts
        mean = int(counts.sum()) // max(1, int((counts > 0).sum()))
        most = self.world.shape.items if self.exposure else mean + 1
        return split(self, self.method, most)
