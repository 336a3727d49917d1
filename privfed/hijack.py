"""How far malicious clients moved a recommender: medians and ranges over seeds."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import median

from privfed.evaluation.exposure import STANDING, exposed
from privfed.metrics.score import means
from privfed.result import Figure
from privfed.rounds import Outcome

_SHIFT = "prediction_shift"


def figures(
    outcomes: Sequence[Outcome], baselines: Sequence[Outcome]
) -> Mapping[str, Figure]:
    """What a poisoner achieved by the last round.

    ``er@K`` is the share of honest clients that never met a promoted item and have it
    in their top K. ``*_drop`` is what the same run without malicious clients,
    of ``baselines``, reaches more; ``prediction_shift`` by how much less the promoted
    items stand there. Of several seeds the median, with the range as interval.
    """
    each = [
        dict(_of_run(outcome, *baselines[k : k + 1]))
        for k, outcome in enumerate(outcomes)
    ]
    return {
        f"hijack.{name}": _median([one[name] for one in each])
        for name in each[0]
        if all(name in one for one in each)
    }


def references(baselines: Sequence[Outcome]) -> dict[str, Mapping[str, float]]:
    """The same exposure where nobody is malicious, by key; medians over seeds."""
    each = [_exposure(outcome) for outcome in baselines]
    return {
        f"hijack.{name}": {"nobody": median(one[name] for one in each)}
        for name in (each[0] if each else {})
        if name != STANDING
    }


def _exposure(outcome: Outcome) -> Mapping[str, float]:
    return means([*exposed(outcome.state.marks).items()])


def _utility(outcome: Outcome) -> Mapping[str, float]:
    marks = outcome.state.marks["test"]
    return means([*outcome.task.scores(marks).items()])


def _of_run(
    outcome: Outcome, baseline: Outcome | None = None
) -> Iterator[tuple[str, float]]:
    if outcome.plot is None:
        return
    seen = _exposure(outcome)
    yield from ((name, value) for name, value in seen.items() if name != STANDING)
    if baseline is not None:
        before = _exposure(baseline)
        if STANDING in seen and STANDING in before:
            yield _SHIFT, seen[STANDING] - before[STANDING]
        yield from _drops(outcome, baseline)
    yield from _rows(outcome)


def _drops(outcome: Outcome, baseline: Outcome) -> Iterator[tuple[str, float]]:
    """How much worse honest clients are served; errors rise where rankings drop.

    Of rankings at the cut-off that runs are selected by.
    """
    task = outcome.task
    now, before = _utility(outcome), _utility(baseline)
    cutoff = task.select.partition("@")[2]
    for name in now:
        if not task.higher:
            yield f"{name}_rise", now[name] - before[name]
        elif name.partition("@")[2] == cutoff:
            yield f"{name}_drop", before[name] - now[name]


def _rows(outcome: Outcome) -> Iterator[tuple[str, float]]:
    """Rows for promoted items in a round, and what a rule that filters found."""
    traffic, plot = outcome.state.traffic, outcome.plot
    assert plot is not None
    if len(plot.targets) and traffic.rounds:
        each = traffic.rounds * len(plot.targets)
        yield "honest_rows", traffic.honest_rows / each
        yield "malicious_rows", traffic.malicious_rows / each
    if traffic.dropped:
        yield "detection_precision", traffic.malicious_dropped / traffic.dropped
    if traffic.malicious_cast and traffic.dropped:
        yield "detection_recall", traffic.malicious_dropped / traffic.malicious_cast


def _median(values: Sequence[float]) -> Figure:
    if len(values) < 2:
        return Figure(values[0])
    return Figure(median(values), min(values), max(values), "range")
