"""The options of ``privfed run``. An option's name is the key that it sets.

``sampling__kind`` is ``kind`` in the section ``sampling``. No option has a default
here: the settings' own hold, and the help repeats them.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def _option(
    flag: str, name: str, help: str, *, default_is: str, **how: Any
) -> Callable[[F], F]:
    """An option that may also come from ``PRIVFED_<OPTION>``."""
    word = flag.split("/")[0].removeprefix("--").replace("-", "_").upper()
    how.setdefault("envvar", f"PRIVFED_{word}")
    told = f"{help}  [default: {default_is}]"
    return click.option(flag, name, help=told, default=None, **how)


OPTIONS: Sequence[Callable[[Any], Any]] = (
    _option(
        "--method",
        "method",
        "Recommender to train, with its settings: fedmr:backbone=fcf,fusion=mix. "
        "`privfed list methods` has the names.",
        metavar="SPEC",
        default_is="fedmr",
    ),
    _option(
        "--defense",
        "defense",
        "Defense, with its settings: dp:epsilon=4. Repeat it to combine several; "
        "they act in the order given.",
        metavar="SPEC",
        multiple=True,
        default_is="none",
    ),
    _option(
        "--attack",
        "attack",
        "Attack to measure leakage with: `privfed list attacks`. Repeat it, or give "
        "none, or all of them. One may be a poisoner: `privfed list poisoners`.",
        metavar="SPEC",
        multiple=True,
        default_is="support, sign_pc",
    ),
    _option(
        "--malicious",
        "malicious__share",
        "A poisoner's clients, as a share of the honest ones; they are added to them.",
        metavar="SHARE",
        default_is="0.05",
    ),
    _option(
        "--target",
        "malicious__target",
        "What a poisoner promotes: an item drawn from the tail (less popular half), "
        "torso, head (most popular tenth) or random ones; the least popular; or items "
        "by number: 894+12.",
        metavar="NAME|ITEMS",
        default_is="tail",
    ),
    _option(
        "--targets",
        "malicious__targets",
        "How many items to draw.",
        metavar="N",
        default_is="1",
    ),
    _option(
        "--baseline/--no-baseline",
        "malicious__baseline",
        "With a poisoner: run again without its clients, to say what they changed.",
        default_is="baseline",
    ),
    _option(
        "--data",
        "data__data",
        "Data set by name (`privfed data list`), or the path of your own file.",
        metavar="NAME|PATH",
        default_is="demo",
        envvar="PRIVFED_DATASET",  # PRIVFED_DATA is the folder of data sets
    ),
    _option(
        "--format",
        "data__format",
        "How the data is written: ml-1m, recbole, table, ...",
        metavar="NAME",
        default_is="auto",
    ),
    _option(
        "--split",
        "data__split",
        "auto (as the source says, else what suits the method), leave-one-out, ratio, "
        "given, clients (others train than test), or warm (by time, and what is held "
        "out occurs in training).",
        metavar="NAME",
        default_is="auto",
    ),
    _option(
        "--support",
        "data__support",
        "Split clients: the share of its records that a client adapts to.",
        metavar="SHARE",
        default_is="0.8",
    ),
    _option(
        "--query",
        "data__query",
        "Split clients: the share of its records, the last, that it is tested on.",
        metavar="SHARE",
        default_is="0.2",
    ),
    _option(
        "--features",
        "data__features",
        "Item features: auto, none, given, an encoder (tfidf), or one for each "
        "modality: title=minilm. Repeat it to add up.",
        metavar="SPEC",
        multiple=True,
        default_is="auto",
    ),
    _option(
        "--rounds",
        "rounds",
        "Rounds of training, at most.",
        metavar="N",
        default_is="30",
    ),
    _option(
        "--patience",
        "patience",
        "End early after N evaluations without a better validation score; 0: never.",
        metavar="N",
        default_is="0",
    ),
    _option(
        "--sampling",
        "sampling__kind",
        "Clients of a round: all; uniform, at random; poisson, each by chance; queue, "
        "taking turns; epoch, all once, then all anew; or interactions: those that "
        "a batch of everybody's interactions belongs to.",
        metavar="NAME",
        default_is="all",
    ),
    _option(
        "--clients-per-round",
        "sampling__clients_per_round",
        "Clients of a round, where sampling is uniform, queue, epoch or poisson "
        "(expected).",
        metavar="N",
        default_is="100",
    ),
    _option(
        "--interactions-per-round",
        "sampling__interactions_per_round",
        "Interactions of a round, where sampling is interactions.",
        metavar="N",
        default_is="64",
    ),
    _option(
        "--rest/--no-rest",
        "sampling__rest",
        "No client in two rounds on end, as far as there are enough.",
        default_is="no-rest",
    ),
    _option(
        "--ranking",
        "protocol__ranking",
        "Rank a held-out item against sampled negatives, or all items: full.",
        metavar="NAME",
        default_is="sampled",
    ),
    _option(
        "--negatives-eval",
        "protocol__negatives",
        "Negatives that a held-out item is ranked against.",
        metavar="N",
        default_is="99",
    ),
    _option(
        "--at",
        "protocol__at",
        "Cut-offs K of HR@K and NDCG@K; the first one selects the best round.",
        metavar="K,K",
        default_is="10,5,20",
    ),
    _option(
        "--seed",
        "seed",
        "Seed of every random draw.",
        metavar="N",
        default_is="0",
    ),
    _option(
        "--seeds",
        "seeds",
        "Runs to make, with seeds N, N+1, ...; gives intervals over seeds.",
        metavar="N",
        default_is="1",
    ),
    _option(
        "--device",
        "machine__device",
        "cpu, cuda or cuda:1. Changes no draw.",
        metavar="NAME",
        default_is="cpu",
    ),
    _option(
        "--memory",
        "machine__memory",
        "Memory that training may use: 500MB, 4GiB.",
        metavar="SIZE",
        default_is="2GiB",
    ),
    _option(
        "--workers",
        "machine__workers",
        "Threads that train clients.",
        metavar="N",
        default_is="2",
    ),
    _option(
        "--out",
        "out",
        "Folder for run folders: result, settings, checkpoints.",
        metavar="FOLDER",
        default_is="runs",
    ),
    _option(
        "--checkpoint-every",
        "checkpoint_every",
        "Rounds between checkpoints.",
        metavar="N",
        default_is="10",
    ),
)


def settable(command: F) -> F:
    """Give a command all options of a run, in the order of the table."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def layer(options: Mapping[str, Any]) -> Mapping[str, Any]:
    """The settings that were given, nested by section."""
    given: dict[str, Any] = {}
    for name, value in options.items():
        section, _, key = name.rpartition("__")
        if value is None or value == ():
            continue
        if section:
            given.setdefault(section, {})[key] = value
        else:
            given[key] = value
    return given
