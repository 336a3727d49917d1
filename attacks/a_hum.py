"""How few malicious clients does A-hum need? The trace of its released code again.

Rong, He and Chen (IJCAI 2022) poison an MLP recommender and know nothing but the model
that they are sent. The README of their code prints one run on MovieLens-1M: 6 malicious
clients beside 6,040 (0.1 %), item 1805 as the target, which one client took. Here are
the same split, settings and number of clients, first from the same first model, drawn
as the released code draws it (seed 20220110), then from first models of privfed's own
draws; all other draws are privfed's. ER@K is the share of clients that never met the
target and have it in their top K of all items.

    python attacks/a_hum.py --data PATH

PATH is the folder ``Data/ML`` of github.com/rdz98/PoisonFedDLRS, which holds their
split (train.dat and test.dat). A run of ten epochs takes about a minute on one core;
``--seeds`` says how many there are from models of privfed's own, ``--honest`` makes the
published one without malicious clients, too. ``--attack a_ra`` has random users in the
place of hard ones, and makes no claims.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt
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
from privfed.data.world import Shape, World
from privfed.evaluation.protocol import Protocol
from privfed.interfaces import Ranker, State
from privfed.machine import Machine
from privfed.methods.dl_frs import DLFRS, LAYERS
from privfed.party import Party
from privfed.poisoners.targeted.synthetic import AHum, ARa
from privfed.rounds import Outcome, Setup, run
from privfed.sampling import Sampling
from privfed.seeds import Stream

ATTACKS = {"a_hum": AHum(), "a_ra": ARa()}
SOURCE = "README, one run"
TARGET, SHARE, COHORT = 1805, 0.001, 256
SEED = 20220110  # of the released code
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
class Plan:
    """How long a run is, and what it begins with."""

    epochs: int
    seed: int = 0
    share: float = SHARE


@dataclass(frozen=True)
class Released(DLFRS):
    """DL-FRS from the first model of the released code, whatever the seed of a run."""

    def init(self, shape: Shape, stream: Stream) -> tuple[State, State]:
        rng = torch.Generator().manual_seed(SEED)
        model = {"items": _embedding(shape.items, self.width, rng)}
        sizes = (2 * self.width, self.width, self.width, 1)
        layers = dict(zip(LAYERS, pairwise(sizes), strict=True))
        for fan_in, fan_out in layers.values():  # what each layer is made with
            torch.empty(fan_out * fan_in).uniform_(generator=rng)
            torch.empty(fan_out).uniform_(generator=rng)
        for name, (fan_in, fan_out) in layers.items():
            bound = sqrt(6 / fan_in)
            weight = torch.empty(fan_out, fan_in)
            model[f"{name}.weight"] = weight.uniform_(-bound, bound, generator=rng)
            model[f"{name}.bias"] = torch.zeros(fan_out)
        users = [_embedding(1, self.width, rng) for _ in range(shape.clients)]
        return model, {"user": torch.cat(users)}


def _embedding(rows: int, width: int, rng: torch.Generator) -> Tensor:
    """As torch makes an embedding, and then as the released code does."""
    table = torch.empty(rows, width).normal_(generator=rng)
    return table.normal_(0.0, 0.01, generator=rng)


@dataclass(frozen=True)
class Run:
    """What one run came to: a figure by epoch, and how well clients are served."""

    trace: Trace
    served: Mapping[str, float]

    @property
    def taken(self) -> int | None:
        """The first epoch whose ER@10 is above one half."""
        above = (epoch for epoch, er in self.trace.items() if er["ER@10"] > 0.5)
        return min(above, default=None)


def measured(world: World, method: DLFRS, attack: str, plan: Plan) -> Run:
    """One run, measured after every epoch."""
    party = Party(poisoner=ATTACKS[attack], share=plan.share, target=str(TARGET))
    clients = len(world.eligible) + party.count(world)
    each = -(-clients // COHORT)
    setup = Setup(
        world,
        method,
        Plain(),
        sampling=Sampling("epoch", COHORT),
        protocol=Protocol("full", at=(20,), every=each),
        rounds=plan.epochs * each,
        seed=plan.seed,
        party=party,
    )
    outcome = run(setup, Machine(workers=1))
    rows = [row for row in outcome.state.log if "hijack.er@10" in row]
    trace = {
        int(row["round"]) // each: {f"ER@{k}": row[f"hijack.er@{k}"] for k in AT}
        for row in rows
    }
    return Run(trace, served(outcome, method))


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


def claims(published: Run, others: Sequence[Run]) -> list[Claim]:
    """The published run's figures, and what other first models say of them."""
    er, at = published.trace[LAST], f"epoch {LAST}"
    found = [
        Claim(f"ER@20, {at}", 0.95, er["ER@20"], 0.0, SOURCE, "at least"),
        Claim(f"ER@10, {at}", PUBLISHED[LAST][1], er["ER@10"], 0.1, SOURCE),
    ]
    for name, value in SERVED.items():
        ours = published.served[name]
        found.append(Claim(f"{name}, {at}", value, ours, 0.003, SOURCE))
    if others:
        ends = [one.trace[max(one.trace)]["ER@20"] for one in others]
        name = "ER@20 at the end, median of other first models"
        found.append(Claim(name, 0.95, median(ends), 0.0, SOURCE, "at least"))
    return found


def traced(runs: Mapping[str, Run]) -> Table:
    """Every run's ER@5/10/20 by epoch, beside the published one."""
    shown = Table(box=None, pad_edge=False)
    for name in ("ER@5 / 10 / 20", "README", *runs):
        shown.add_column(name, no_wrap=True)
    for epoch in sorted({epoch for one in runs.values() for epoch in one.trace}):
        each = [one.trace[epoch] for one in runs.values()]
        cells = [_told(PUBLISHED.get(epoch)), *(_told([*er.values()]) for er in each)]
        shown.add_row(f"epoch {epoch}", *cells)
    taken = [str(one.taken or "not yet") for one in runs.values()]
    shown.add_row("ER@10 above 1/2 from", "11 or later", *taken)
    return shown


def _told(values: Sequence[float] | None) -> str:
    return " ".join(f"{value:.3f}" for value in values) if values else ""


@click.command(help=__doc__, context_settings={"max_content_width": 100})
@click.option("--data", default="ml-1m/poisonfed-split", help="Their split.")
@click.option("--attack", type=click.Choice([*ATTACKS]), default="a_hum")
@click.option("--seeds", default=0, help="Runs from first models of privfed's own.")
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
    published = measured(world, Released(repeats="once"), attack, Plan(epochs))
    others = {
        f"own model {seed}": measured(world, DLFRS(), attack, Plan(epochs, seed))
        for seed in range(seeds)
    }
    shown = traced({"their first model": published, **others})
    if attack != "a_hum":  # of which nothing is published
        Console(width=22 * len(shown.columns)).print(shown, highlight=False)
        return
    found = claims(published, [*others.values()])
    if honest:
        plan = Plan(epochs, share=0.0)
        alone = measured(world, Released(repeats="once"), attack, plan)
        name = f"nobody malicious: ER@20, epoch {LAST}"
        er = alone.trace[LAST]["ER@20"]
        found.append(Claim(name, 0.0, er, 0.01, "what the attack adds", "at most"))
    if not as_json:
        Console(width=22 * len(shown.columns)).print(shown, highlight=False)
    tell(found, as_json)


if __name__ == "__main__":
    main()
