"""What runs measured, as figures with intervals over clients or over seeds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch

from privfed.data.world import World
from privfed.evaluation.marks import Score, mean_of, means
from privfed.evaluation.task import Task
from privfed.interfaces import NotApplicable
from privfed.metrics import fairness, intervals, leakage
from privfed.result import Figure
from privfed.rounds import Outcome
from privfed.seeds import Stream
from privfed.views import Guess, Prior

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


def recovered(
    outcomes: Sequence[Outcome], world: World, draws: Stream
) -> tuple[Figures, Mapping[str, Mapping[str, float]], Mapping[str, str]]:
    """How well attacks recovered the interactions that devices trained on.

    Returns the figures, what the prior alone reaches by key, and the attacks that
    could not run with their reasons.
    """
    figures: dict[str, Figure] = {}
    prior: dict[str, Mapping[str, float]] = {}
    refused: dict[str, str] = {}
    for name, guess in outcomes[0].guesses.items():
        if isinstance(guess, NotApplicable):
            refused[name] = guess.reason
            continue
        guesses = [_guess(outcome, name) for outcome in outcomes]
        blind = [
            _without_uploads(outcome.priors[name], one, world)
            for outcome, one in zip(outcomes, guesses, strict=True)
        ]
        scores = [leakage.score(one, world.train) for one in guesses]
        floors = [leakage.score(one, world.train) for one in blind]
        for metric in scores[0]:
            key = f"leakage.{name}.{metric}"
            figures[key] = _over([mean_of(s[metric]) for s in scores], draws.of(key))
            floor = torch.stack([f[metric].nanmean() for f in floors])
            prior[key] = {"prior": float(floor.mean())}
        gain = [mean_of(s["f1"] - f["f1"]) for s, f in zip(scores, floors, strict=True)]
        figures[f"leakage.{name}.f1_advantage"] = _over(gain, draws.of(name))
    return figures, prior, refused


def _guess(outcome: Outcome, name: str) -> Guess:
    guess = outcome.guesses[name]
    assert isinstance(guess, Guess)
    return guess


def _without_uploads(prior: Prior, guess: Guess, world: World) -> Guess:
    """A guess from popularity alone: an attack must tell more than this."""
    known = replace(prior, popularity=world.popularity)
    mean = len(world.train.item) / max(1, int((world.train.counts > 0).sum()))
    return leakage.prior_guess(known, guess.clients, mean)


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


def _over(each: Sequence[Score], draws: Stream) -> Figure:
    """A mean; its interval over seeds, or over clients for one seed."""
    values = [score.mean() for score in each]
    if len(each) > 1:
        return _of_seeds(values)
    one = each[0]
    low, high = intervals.bootstrap(one.total, draws, one.count)
    if low != low:  # too few clients to resample
        return Figure(values[0])
    if one.root:
        low, high = low**0.5, high**0.5
    return Figure(values[0], low, high, "clients")


def _of_seeds(values: Sequence[float]) -> Figure:
    mean = sum(values) / len(values)
    if len(values) < 2:
        return Figure(mean)
    low, high = intervals.over_seeds(values)
    return Figure(mean, low, high, "seeds")
