"""Errors of ratings and ranks of choices, against sums made by hand."""

import pytest
import torch
from sklearn.metrics import mean_absolute_error, mean_squared_error
from torch import Tensor

from privfed.data.cohort import Cohort, cohort_of
from privfed.data.interactions import Interactions
from privfed.data.load import DataSettings, load
from privfed.data.splits import by_clients
from privfed.data.world import Pairs, Shape, World
from privfed.errors import SettingsError
from privfed.evaluation.choice import Choice
from privfed.evaluation.judge import task_of
from privfed.evaluation.marks import Marks
from privfed.evaluation.protocol import Protocol
from privfed.evaluation.rating import Rating
from privfed.evaluation.task import Task
from privfed.interfaces import Chooser, Method, Rater, Round, State, Trained
from privfed.messages import Uploads
from privfed.methods.fcf import FCF
from privfed.metrics import intervals
from privfed.metrics.score import means
from privfed.seeds import Seeds, Stream


class Untrained(Method):
    """A method that has nothing to learn."""

    def init(self, shape: Shape, stream: Stream) -> tuple[State, State]:
        return {}, {}

    def train(
        self, model: State, private: State, cohort: Cohort, round: Round
    ) -> Trained:
        return Trained({}, {}, Uploads(cohort.clients), torch.zeros(0))

    def footprint(self, shape: Shape, positives: int) -> int:
        return 4 * positives + shape.items


class Constant(Rater, Untrained):
    """Predicts item number / 100 plus client number / 10."""

    def predict(
        self, model: State, private: State, cohort: Cohort, pairs: Pairs
    ) -> Tensor:
        return pairs.item / 100 + cohort.clients[pairs.sender] / 10


class Echo(Chooser, Untrained):
    """Scores items by the context itself."""

    def choose(
        self, model: State, private: State, cohort: Cohort, pairs: Pairs
    ) -> Tensor:
        return pairs.context


def measured(task: Task, world: World) -> Marks:
    marks = Marks.none(world.test)
    for clients in task.chunks():
        marks.put(clients, task.measure({}, {}, cohort_of(world, clients))["test"])
    return marks


def test_rating_errors_are_means_over_ratings() -> None:
    world = load(DataSettings(features=()), "rating").world
    task = Rating(world, Constant())
    scores = task.scores(measured(task, world))

    label = world.test.label.double()
    guess = world.test.item / 100 + world.test.owner / 10
    assert scores["mae"].mean() == pytest.approx(
        mean_absolute_error(label, guess), rel=1e-6
    )
    wanted = mean_squared_error(label, guess)
    assert scores["mse"].mean() == pytest.approx(wanted, rel=1e-6)
    assert scores["rmse"].mean() == pytest.approx(wanted**0.5, rel=1e-6)
    one = scores["mae"].each[3]
    mine = world.test.owner == torch.unique(world.test.owner)[3]
    assert float(one) == pytest.approx(float((guess - label)[mine].abs().mean()))


def test_mean_ratings_are_the_references() -> None:
    world = load(DataSettings(features=()), "rating").world
    marks = Rating(world, Constant()).references()

    pair = 17
    for who, key in (("user mean", "owner"), ("item mean", "item")):
        train, test = getattr(world.train, key), getattr(world.test, key)
        mean = world.train.label[train == test[pair]].double().mean()
        error = marks[who].value[pair]
        assert float(error) == pytest.approx(float(mean - world.test.label[pair]))


def choices(users: int = 20, records: int = 10, labels: int = 4) -> Interactions:
    rng = torch.Generator().manual_seed(0)
    count = users * records
    return Interactions(
        "choices",
        users,
        labels,
        torch.arange(users).repeat_interleave(records),
        torch.randint(labels, (count,), generator=rng),
        time=torch.arange(records).repeat(users),
        choices=torch.rand(count, labels, generator=rng),
    )


def test_accuracy_is_the_share_of_choices_ranked_first_or_fourth() -> None:
    world = by_clients(choices(labels=6), 0)
    task = Choice(world, Echo())
    scores = task.scores(measured(task, world))

    order = world.test.context.argsort(1, descending=True)
    place = (order == world.test.item[:, None]).int().argmax(1)
    for k in (1, 4):
        wanted = float((place < k).double().mean())
        assert scores[f"accuracy@{k}"].mean() == pytest.approx(wanted)


def test_the_most_frequent_choice_is_the_reference() -> None:
    data = choices()
    always = Interactions(
        "always", 20, 4, data.user, data.user % 4, choices=data.choices
    )
    world = by_clients(always, 0)
    task = Choice(world, Echo())
    found = means([*task.scores(task.references()["most frequent"]).items()])

    assert found == {"accuracy@1": 1.0, "accuracy@4": 1.0}


@pytest.mark.parametrize(("support", "query"), [(0.8, 0.2), (0.1, 0.2), (0.2, 0.8)])
def test_clients_that_test_never_train(support: float, query: float) -> None:
    data = choices()
    world = by_clients(data, 3, support, query)
    counts = [part.counts for part in (world.train, world.validation, world.test)]
    assert world.learners is not None

    train = world.learners
    assert (int(train.sum()), *((c > 0).sum() for c in counts[1:])) == (16, 2, 2)
    assert torch.equal(world.eligible, train.nonzero()[:, 0])
    assert (counts[0][train] == 10).all()
    assert (counts[0][~train] == round(10 * support)).all()
    assert ((counts[1] + counts[2])[~train] == round(10 * query)).all()
    client = int(world.test.owner[0])
    mine = data.item[data.user == client].tolist()
    held = world.test.item[world.test.owner == client].tolist()
    kept = world.train.item[world.train.owner == client].tolist()
    assert held == mine[-len(held) :]
    assert kept == mine[-len(held) - len(kept) : -len(held)]


def test_shares_must_leave_something_to_ask() -> None:
    with pytest.raises(ValueError, match="at most 1 together"):
        by_clients(choices(), 0, 0.9, 0.2)


def test_a_method_is_measured_only_by_its_own_task() -> None:
    world = load(DataSettings(features=()), "rating").world

    with pytest.raises(SettingsError, match=r"split for rating, .* task is ranking"):
        task_of(FCF(), world, Protocol(), Seeds(0))


def test_the_interval_of_a_ratio_weighs_clients_by_their_pairs() -> None:
    rng = torch.Generator().manual_seed(0)
    count = torch.randint(1, 30, (400,), generator=rng)
    total = count * torch.rand(400, generator=rng)
    low, high = intervals.bootstrap(total, Seeds(0)("x"), count)

    assert low < float(total.sum() / count.sum()) < high
    assert high - low < 0.2
    same = intervals.bootstrap(total * 3, Seeds(0)("x"), count)
    assert same == pytest.approx((3 * low, 3 * high))
