"""From settings to a result and a run folder."""

import hashlib
import json
import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import privfed
from privfed import figures, hijack
from privfed.accounting.guarantee import Guarantee
from privfed.choices import Chosen
from privfed.config import RunSettings
from privfed.data.load import load
from privfed.data.world import Source
from privfed.evaluation.task import Task
from privfed.result import Result
from privfed.rounds import Keeping, Outcome, Setup, run
from privfed.seeds import Seeds
from privfed.views import UploadsView

Progress = Callable[[int, float, int, Mapping[str, float]], None]

_LIBRARIES = ("torch", "numpy", "scipy", "dp-accounting", "safetensors")
_NO_MATTER = ("machine", "out", "checkpoint_every")  # what changes no result


def execute(settings: RunSettings, resume: bool, progress: Progress) -> Result:
    """Run every seed, measure, and leave a run folder.

    The folder, ``settings.out / result.id``, holds ``result.json``,
    ``rounds.jsonl``, ``settings.toml`` and checkpoints. Its name is a hash of
    settings, data and code, so ``resume`` finds the run that it goes on with.
    """
    source = load(settings.data, settings.method.part.task)
    name = run_id(settings, source)
    folder = settings.out / name
    runs = [
        _one_seed(settings, source, folder, seed, resume, progress)
        for seed in range(settings.seed, settings.seed + settings.seeds)
    ]
    result = assemble(settings, source, name, runs)
    lines = [json.dumps(row, allow_nan=False) for row in result.rounds]
    _write(folder / "rounds.jsonl", "\n".join(lines) + "\n")
    _write(folder / "result.json", json.dumps(result.json(), indent=2, allow_nan=False))
    return result


def run_id(settings: RunSettings, source: Source) -> str:
    """Method, defenses and a hash of all that the result depends on."""
    plain = {k: v for k, v in settings.plain().items() if k not in _NO_MATTER}
    told = json.dumps([plain, source.world.fingerprint, _code()], sort_keys=True)
    parts = [
        settings.method.name,
        *(spec.partition(":")[0] for spec in _specs(settings)),
    ]
    return "-".join([*parts, hashlib.sha256(told.encode()).hexdigest()[:8]])


@cache
def _code() -> str:
    """A hash of privfed's own source: a change of code is another run."""
    digest = hashlib.sha256()
    root = Path(privfed.__file__).parent
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def _one_seed(
    settings: RunSettings,
    source: Source,
    folder: Path,
    seed: int,
    resume: bool,
    progress: Progress,
) -> Sequence[Outcome]:
    """What was asked for; with a poisoner also the same run without its clients."""
    setup = Setup(
        source.world,
        settings.method.part,
        settings.channel.part,
        tuple(one.part for one in settings.defense),
        {one.name: one.part for one in settings.attack},
        settings.sampling,
        settings.protocol,
        settings.rounds,
        settings.patience,
        seed,
        settings.party,
    )
    setups = {f"seed-{seed}": setup}
    if setup.party and settings.malicious.baseline:
        nobody = replace(setup.party, share=0.0)
        setups[f"seed-{seed}-baseline"] = replace(setup, attacks={}, party=nobody)

    def told(
        done: int, path: Path, round: float, rounds: int, row: Mapping[str, float]
    ) -> None:
        if row and not path.parent.exists():  # only now is it known that parts fit
            path.parent.mkdir(parents=True)
            _write(folder / "settings.toml", settings.to_toml())
        shown = {} if done else row
        progress(seed, done * rounds + round, len(setups) * rounds, shown)

    found = []
    for done, (name, one) in enumerate(setups.items()):
        path = folder / "checkpoints" / f"{name}.safetensors"
        keeping = Keeping(path, settings.checkpoint_every, resume)
        found.append(run(one, settings.machine, keeping, partial(told, done, path)))
    return found


def assemble(
    settings: RunSettings,
    source: Source,
    name: str,
    runs: Sequence[Sequence[Outcome]],
) -> Result:
    """Everything measured, as one result; ``runs`` holds what each seed came to."""
    outcomes = [run[0] for run in runs]
    baselines = [run[1] for run in runs if len(run) > 1]
    task = outcomes[0].task
    seeds = tuple(range(settings.seed, settings.seed + settings.seeds))
    draws = Seeds(settings.seed)("bootstrap")
    leaked = figures.recovered(outcomes, draws)
    references = figures.references([outcome.task for outcome in outcomes])
    result = Result(
        id=name,
        method=settings.method.spec,
        defenses=_specs(settings),
        attacks=tuple(one.spec for one in settings.attacks),
        data=_described(source),
        protocol=task.describe(),
        seeds=seeds,
        figures={
            **figures.utility(outcomes, draws),
            **leaked.figures,
            **hijack.figures(outcomes, baselines),
            **figures.costs(outcomes),
        },
        references={**references, **leaked.prior, **hijack.references(baselines)},
        privacy=_promises(settings, outcomes[0]),
        adversaries={
            **{
                one.name: f"sees {one.part.means()}"
                for one in settings.attack
                if one.name not in leaked.refused
            },
            **_poisoner(settings, outcomes),
        },
        not_applicable=leaked.refused,
        rounds=_rounds(seeds, outcomes),
        settings=settings.plain(),
        versions=_versions(),
    )
    return replace(result, notes=tuple(_notes(settings, source, outcomes, result)))


def _poisoner(settings: RunSettings, outcomes: Sequence[Outcome]) -> Mapping[str, str]:
    """Whom the poisoner owns, what it sees and what it is after."""
    if settings.poisoner is None:
        return {}
    plots = [outcome.plot for outcome in outcomes if outcome.plot]
    part, world = settings.poisoner.part, outcomes[0].world
    told = f"owns {world.malicious} clients beside {world.honest} honest ones; sees "
    told += part.means()
    if share := part.public_share():
        told += f"; knows {share:.3g} of every client's interactions"
    items = sorted({item for plot in plots for item in plot.targets.tolist()})
    if items:
        met = [int(world.popularity[item]) for item in items]
        each = [f"{i} ({n} interactions)" for i, n in zip(items, met, strict=True)]
        several = "items" if len(items) > 1 else "item"
        told += f"; promotes {several} {', '.join(each)}"
        if len(items) > len(plots[0].targets):
            told += ", drawn anew for each seed"
    return {settings.poisoner.name: told}


def _specs(settings: RunSettings) -> tuple[str, ...]:
    """Defenses as they were asked for; the channel last, where it hides anything."""
    parts: list[Chosen[Any]] = [*settings.defense]
    if settings.channel.name != "plain":
        parts.append(settings.channel)
    return tuple(one.spec for one in parts)


def _promises(settings: RunSettings, outcome: Outcome) -> dict[str, Guarantee]:
    """What each defense and the channel promise, by name."""
    names = [one.name for one in settings.defense]
    found = dict(zip(names, outcome.guarantees, strict=True))
    if outcome.carried is not None:
        found[settings.channel.name] = outcome.carried
    return found


def _described(source: Source) -> dict[str, Any]:
    world = source.world
    return {
        "name": world.name,
        "clients": world.shape.clients,
        "items": world.shape.items,
        "interactions": sum(
            len(part.item) for part in (world.train, world.validation, world.test)
        ),
        "split": source.split,
        "features": dict(world.shape.widths),
        "fingerprint": world.fingerprint,
    }


def _rounds(
    seeds: Sequence[int], outcomes: Sequence[Outcome]
) -> tuple[Mapping[str, float], ...]:
    return tuple(
        {"seed": float(seed), **row}
        for seed, outcome in zip(seeds, outcomes, strict=True)
        for row in outcome.state.log
    )


def _notes(
    settings: RunSettings,
    source: Source,
    outcomes: Sequence[Outcome],
    result: Result,
) -> list[str]:
    """What a reader must know to read the figures rightly."""
    best = ", ".join(str(outcome.state.best.round) for outcome in outcomes)
    told = [f"utility is that of round {best}, chosen on validation data"]
    told += settings.method.part.warnings()
    told += _floors(outcomes[0].task, result)
    told += _sums(settings)
    told += _poisoned(settings)
    return told + list(source.notes)


def _floors(task: Task, result: Result) -> Iterator[str]:
    """What needs no model and still serves clients better."""
    key = f"utility.{task.select}"
    figure = result.figures.get(key)
    if figure is None:
        return
    for who, value in result.references.get(key, {}).items():
        ahead = value - figure.value if task.higher else figure.value - value
        if ahead >= 0:
            how = "better than" if ahead > 0 else "as well as"
            yield f"{who} alone serves clients {how} this run does"


def _sums(settings: RunSettings) -> Iterator[str]:
    """What hiding uploads in a sum does not hide."""
    shown, sampling = settings.channel.part.shows, settings.sampling
    if any(issubclass(view, UploadsView) for view in shown) or sampling.kind == "all":
        return
    yield (
        "the server or the key holders see sums over the clients of a round; where "
        "cohorts change, sums of 50 gave up items and ratings (attacks sum_items, "
        "sum_ratings): only noise added on the devices prevents it"
    )


def _poisoned(settings: RunSettings) -> Iterator[str]:
    """What one run of a poisoning attack does not tell."""
    if settings.poisoner is None:
        return
    yield f"hijack is told of the last round, {settings.rounds}"
    if settings.seeds < 5:
        yield (
            "whether poisoning succeeds depends on target and draws, often all or "
            "nothing: take --seeds 5 for a median and a range"
        )
    if settings.defense and not any(
        issubclass(view, UploadsView) for view in settings.channel.part.shows
    ):
        yield (
            "malicious clients are taken to keep to the defenses on their devices; the "
            "channel hides uploads, so no server can check that they do"
        )


def _versions() -> dict[str, str]:
    found = {name: version(name) for name in _LIBRARIES}
    return {
        "privfed": privfed.__version__,
        "python": platform.python_version(),
        **found,
        "code": _code()[:16],
    }


def _write(path: Path, text: str) -> None:
    """Write a whole file or none."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, path)
