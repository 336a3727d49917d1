"""How few malicious clients does A-hum need? The trace of its released code again.

Rong, He and Chen (IJCAI 2022) poison an MLP recommender that knows nothing but the
model it is sent. The README of their code prints one run on MovieLens-1M: 6 malicious
clients beside 6,040 (0.1 %), item 1805 as the target, which one client took. Here are
the same split, method, settings and number of clients; draws are privfed's own. ER@K is
the share of clients that never met the target and have it in their top K of all items.

    python attacks/a_hum.py --data PATH

PATH is the folder ``Data/ML`` of github.com/rdz98/PoisonFedDLRS, which holds their
split (train.dat and test.dat). Ten epochs take about a minute and a half on one core;
``--seeds 3`` gives medians. ``--honest`` makes the run without malicious clients, too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import click
import torch
from claims import Claim, tell
from rich.console import Console
from rich.table import Table
from torch import Tensor

from privfed.channels.plain import Plain
from privfed.data.cohort import cohort_of
from privfed.data.load import DataSettings, load
from privfed.data.world import World
from privfed.evaluation.protocol import Protocol
from privfed.interfaces import Ranker
from privfed.machine import Machine
from privfed.methods.dl_frs import DLFRS
from privfed.party import Party
from privfed.poisoners.targeted.synthetic import AHum, ARa
from privfed.rounds import Outcome, Setup, run
from privfed.sampling import Sampling

METHOD = DLFRS(repeats="once")
ATTACKS = {"a_hum": AHum(), "a_ra": ARa()}
SOURCE = "README, one run"
TARGET, SHARE, COHORT = 1805, 0.001, 256
AT = (5, 10, 20)
PUBLISHED = {  # by epoch: ER@5, ER@10, ER@20
    7: (0.0, 0.0025, 0.0338),
    8: (0.0237, 0.0833, 0.3062),
    9: (0.0748, 0.2204, 0.7771),
    10: (0.1873, 0.4744, 1.0),
}
SERVED = {"HR@20": 0.0214, "precision@20": 0.0365, "NDCG@20": 0.0364}
LAST = max(PUBLISHED)

Trace = Mapping[int, Mapping[str, float]]  # by epoch and name


@dataclass(frozen=True)
class Run:
    """What one seed came to: a figure by epoch, and how well clients are served."""

    trace: Trace
    served: Mapping[str, float]


def measured(world: World, attack: str, seed: int, epochs: int, share: float) -> Run:
    """One run, measured after every epoch."""
    party = Party(poisoner=ATTACKS[attack], share=share, target=str(TARGET))
    clients = len(world.eligible) + party.count(world)
    each = -(-clients // COHORT)
    setup = Setup(
        world,
        METHOD,
        Plain(),
        sampling=Sampling("epoch", COHORT),
        protocol=Protocol("full", at=(20,), every=each),
        rounds=epochs * each,
        seed=seed,
        party=party,
    )
    outcome = run(setup, Machine(workers=1))
    rows = [row for row in outcome.state.log if "hijack.er@10" in row]
    trace = {
        int(row["round"]) // each: {f"ER@{k}": row[f"hijack.er@{k}"] for k in AT}
        for row in rows
    }
    return Run(trace, served(outcome, METHOD))


def served(outcome: Outcome, method: Ranker) -> Mapping[str, float]:
    """Means over clients, as the released code takes them, at the last epoch.

    The top 20 of all items that a client did not train on; the ideal NDCG has all of
    them right, or as many as the client tests on.
    """
    world, state = outcome.world, outcome.state
    gain = 1 / (torch.arange(20) + 2.0).log2()
    ideal = gain.cumsum(0)
    found: list[Tensor] = []
    for clients in torch.split(world.test.counts.nonzero()[:, 0], 256):
        cohort = cohort_of(world, clients)
        scores = method.score(state.model, state.private, cohort)
        scores[cohort.sender, cohort.item] = -torch.inf
        held, wanted = world.test.of(clients), torch.zeros_like(scores)
        wanted[held.sender, held.item] = 1.0
        hit, count = wanted.gather(1, scores.topk(20).indices), wanted.sum(1)
        best = ideal[count.long().clamp_max(20) - 1]
        found.append(torch.stack([hit.sum(1) / count, hit.mean(1), hit @ gain / best]))
    means = torch.cat(found, 1).mean(1).tolist()
    return dict(zip(SERVED, means, strict=True))


def claims(runs: Sequence[Run]) -> list[Claim]:
    """Medians over seeds beside the published run."""
    last = [one.trace[LAST] for one in runs]
    found = [
        Claim(
            f"ER@20, epoch {LAST}",
            0.95,
            median(one["ER@20"] for one in last),
            0.0,
            SOURCE,
            "at least",
        ),
        Claim(
            f"ER@10, epoch {LAST}",
            PUBLISHED[LAST][1],
            median(one["ER@10"] for one in last),
            0.1,
            SOURCE,
        ),
    ]
    for name, value in SERVED.items():
        ours = median(one.served[name] for one in runs)
        found.append(Claim(f"{name}, epoch {LAST}", value, ours, 0.005, SOURCE))
    return found


def traced(runs: Mapping[int, Run]) -> Table:
    """Every seed's ER@5/10/20 by epoch, beside the published run's."""
    shown = Table(box=None, pad_edge=False)
    shown.add_column("ER@5 / 10 / 20, epoch")
    shown.add_column("README", no_wrap=True)
    for seed in runs:
        shown.add_column(f"seed {seed}", no_wrap=True)
    epochs = sorted({epoch for one in runs.values() for epoch in one.trace})
    for epoch in epochs:
        if epoch < min(PUBLISHED):
            continue
        each = [[one.trace[epoch][f"ER@{k}"] for k in AT] for one in runs.values()]
        shown.add_row(str(epoch), *map(_told, [PUBLISHED.get(epoch), *each]))
    return shown


def _told(values: Sequence[float] | None) -> str:
    return " / ".join(f"{value:.3f}" for value in values) if values else ""


@click.command(help=__doc__, context_settings={"max_content_width": 100})
@click.option("--data", default="ml-1m/poisonfed-split", help="Their split.")
@click.option("--attack", type=click.Choice([*ATTACKS]), default="a_hum")
@click.option("--seeds", default=1, help="Runs, with seeds 0, 1, ...")
@click.option("--epochs", default=LAST, help=f"At least {LAST}.")
@click.option("--honest", is_flag=True, help="Run without malicious clients, too.")
@click.option("--json", "as_json", is_flag=True, help="Claims as JSON.")
def main(
    data: str, attack: str, seeds: int, epochs: int, honest: bool, as_json: bool
) -> None:
    """Run, and tell."""
    if epochs < LAST:
        raise click.BadParameter(f"the published run ends after {LAST} epochs")
    world = load(DataSettings(data)).world
    runs = {s: measured(world, attack, s, epochs, SHARE) for s in range(seeds)}
    found = claims([*runs.values()])
    if honest:
        alone = measured(world, attack, 0, epochs, 0.0).trace[LAST]["ER@20"]
        name = f"nobody malicious: ER@20, epoch {LAST}"
        found.append(Claim(name, 0.0, alone, 0.01, "what an attack adds", "at most"))
    if not as_json:
        Console(width=110).print(traced(runs), highlight=False)
    tell(found, as_json)


if __name__ == "__main__":
    main()
