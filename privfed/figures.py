"""What runs measured, as figures with intervals over clients or over seeds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from privfed.adversary import NotApplicable
from privfed.evaluation.task import Task
from privfed.metrics import fairness, intervals
from privfed.metrics.leakage import judge
from privfed.metrics.leakage.judged import Judged, Measure, Truth, interval
from privfed.metrics.score import means
from privfed.result import Figure
from privfed.rounds import Outcome
from privfed.seeds import Stream

Figures = Mapping[str, Figure]


def utility(outcomes: Sequence[Outcome], draws: Stream) -> Figures:
    """How well held-out test pairs are predicted, at the round validation chose.

    With it the standard deviation over clients of the figure that runs are chosen by.
    """
    each = [outcome.task.scores(outcome.state.best_test) for outcome in outcomes]
    found = {
        f"utility.{name}": _over([one[name] for one in each], draws.of(name))
        for name in each[0]
        if all(len(one[name]) for one in each)
    }
    key = outcomes[0].task.select
    spread = [fairness.deviation(one[key].each) for one in each if len(one[key])]
    if spread:
        found[f"fairness.{key}_std"] = _of_seeds(spread)
    return found


def references(tasks: Sequence[Task]) -> dict[str, dict[str, float]]:
    """What predictors without a model reach, by utility key; means over seeds."""
    each: dict[str, dict[str, list[float]]] = {}
    for task in tasks:
        for who, marks in task.references().items():
            for name, value in means([*task.scores(marks).items()]).items():
                row = each.setdefault(f"utility.{name}", {})
                row.setdefault(who, []).append(value)
    return {
        key: {who: sum(values) / len(values) for who, values in row.items()}
        for key, row in each.items()
    }


@dataclass(frozen=True)
class Leakage:
    """What attacks recovered: figures, what the prior alone reaches, who could not."""

    figures: dict[str, Figure] = field(default_factory=dict)
    prior: dict[str, Mapping[str, float]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


def recovered(outcomes: Sequence[Outcome], draws: Stream) -> Leakage:
    """How well each attack's claim compares with the truth."""
    found = Leakage()
    for name in outcomes[0].guesses:
        judged = [_judged(outcome, name) for outcome in outcomes]
        known = [one for one in judged if isinstance(one, Judged)]
        if len(known) < len(judged):
            refusals = [one for one in judged if isinstance(one, NotApplicable)]
            found.refused[name] = refusals[0].reason
            continue
        for metric in known[0].scores:
            key = f"leakage.{name}.{metric}"
            each = [one.scores[metric] for one in known]
            found.figures[key] = _over(each, draws.of(key))
            floors = [one.floor[metric].mean() for one in known if metric in one.floor]
            if floors:
                found.prior[key] = {"prior": sum(floors) / len(floors)}
        key = f"leakage.{name}.{known[0].lead}_advantage"
        found.figures[key] = _over([one.advantage() for one in known], draws.of(name))
        seconds = [outcome.state.costs.attacks[name] for outcome in outcomes]
        found.figures[f"leakage.{name}.seconds"] = Figure(sum(seconds) / len(seconds))
    return found


def _judged(outcome: Outcome, name: str) -> Judged | NotApplicable:
    guess = outcome.guesses[name]
    if isinstance(guess, NotApplicable):
        return guess
    if not len(guess.clients):
        return NotApplicable("saw no client that it could say anything about")
    state = outcome.state
    truth = Truth(
        outcome.world,
        {name: value.cpu() for name, value in state.model.items()},
        {name: value.cpu() for name, value in state.private.items()},
        state.took_part.cpu(),
    )
    return judge(guess, truth, outcome.priors[name])


def costs(outcomes: Sequence[Outcome]) -> Figures:
    """Bytes and seconds of a client in a round, and seconds of the server."""
    spent = [outcome.state.costs for outcome in outcomes]

    def mean(pick: Callable[[int], float]) -> Figure:
        return Figure(sum(map(pick, range(len(spent)))) / len(spent))

    return {
        "cost.bytes_up": mean(lambda k: spent[k].bytes_up / spent[k].uploads),
        "cost.bytes_down": mean(lambda k: spent[k].bytes_down / spent[k].uploads),
        "cost.client_seconds": mean(
            lambda k: spent[k].client_seconds / spent[k].uploads
        ),
        "cost.server_seconds": mean(
            lambda k: spent[k].server_seconds / spent[k].rounds
        ),
        **{
            f"cost.{name}": mean(lambda k, n=name: spent[k].other[n] / spent[k].rounds)  # type: ignore[misc]
            for name in spent[0].other
        },
    }


def _over(each: Sequence[Measure], draws: Stream) -> Figure:
    """A mean; its interval over seeds, or over clients for one seed."""
    values = [score.mean() for score in each]
    if len(each) > 1:
        return _of_seeds(values)
    low, high = interval(each[0], draws)
    if low != low:  # too few clients to resample
        return Figure(values[0])
    return Figure(values[0], low, high, "clients")


def _of_seeds(values: Sequence[float]) -> Figure:
    mean = sum(values) / len(values)
    if len(values) < 2:
        return Figure(mean)
    low, high = intervals.over_seeds(values)
    return Figure(mean, low, high, "seeds")
