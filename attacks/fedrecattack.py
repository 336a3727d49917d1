"""FedRecAttack: the published trace, the claim after 200 epochs, and what decides it.

Five sets of claims on MovieLens-100K, in the split of the authors' repository
(github.com/rdz98/FedRecAttack), 943 honest clients of federated BPR (width 32, rate
0.01, rows cut to 1) in rounds of 256, one target, 60 rows a malicious client, 1 % of
the interactions public:

- ``trace``: epochs 0 to 5 of the repository's README, from the vectors, negatives and
  public interactions that its seed draws; medians over 15 orders of clients and
  draws of the attack;
- ``plain``: nobody malicious, 200 epochs;
- ``attack``: 5 % malicious clients, 200 epochs, targets drawn at random;
- ``fewer``: the same with 3 %;
- ``profiles``: Random, Bandwagon and Popular in its place.

    python attacks/fedrecattack.py --data FOLDER

FOLDER holds train.txt, test.txt and train.part-1%.txt of the repository. Of every run
the line on the screen also says how many honest clients send a row for the target in a
round, which tells whether poisoning will succeed. "Earlier" figures are the project's
own, of another implementation.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Literal

import click
import numpy as np
import torch
from claims import Claim, tell
from torch import Tensor

from privfed.channels.plain import Plain
from privfed.data.cohort import Cohort, cohort_of
from privfed.data.interactions import DataError
from privfed.data.load import DataSettings, load, locate
from privfed.data.readers.adjacency import lists
from privfed.data.world import Ragged, Shape, World, ragged
from privfed.devices.negatives import Negatives
from privfed.errors import DataMissing
from privfed.evaluation.exposure import Exposure, exposed
from privfed.evaluation.marks import Marks
from privfed.evaluation.protocol import Protocol
from privfed.interfaces import Method, State
from privfed.machine import Machine
from privfed.methods.bpr import BPR
from privfed.metrics.score import means
from privfed.party import Party
from privfed.poisoners.shilling.average import RandomAttack
from privfed.poisoners.shilling.popular import Bandwagon, PopularAttack
from privfed.poisoners.targeted.fedrecattack import FedRecAttack
from privfed.poisoning import Poisoner
from privfed.rounds import Setup, run
from privfed.sampling import Sampling
from privfed.seeds import Stream

COHORT, EPOCHS = 256, 200
TRACES = 15  # orders of clients move the first epochs by 0.02 and more
SEED, TARGET = 20211111, 894  # the repository's, and the item that its seed draws
README = {  # epoch: HR@10, ER@5, ER@10, NDCG@10 of the target
    0: (0.0848, 0.0021, 0.0054, 0.0025),
    1: (0.0732, 0.3869, 0.4019, 0.3799),
    2: (0.0764, 0.5198, 0.5220, 0.5133),
    3: (0.0817, 0.6045, 0.6077, 0.6001),
    4: (0.1166, 0.7170, 0.7192, 0.7155),
    5: (0.2174, 0.7814, 0.7824, 0.7809),
}
NAMES = ("HR@10", "ER@5", "ER@10", "NDCG@10")
KEYS = ("utility.hr@10", "hijack.er@5", "hijack.er@10", "hijack.target_ndcg@10")
PROFILES: Mapping[str, tuple[Poisoner, float]] = {  # ER@10, earlier
    "Random": (RandomAttack(), 0.0005),
    "Bandwagon": (Bandwagon(), 0.0016),
    "Popular": (PopularAttack(), 0.0032),
}
PARTS = ("trace", "plain", "attack", "fewer", "profiles")
EARLIER, PUBLISHED = "earlier", "README"
Group = Literal["random", "tail", "torso", "head"]


@dataclass(frozen=True)
class Found:
    """What a run came to: figures by the names above, at each evaluation."""

    seed: int
    target: int
    positives: int
    honest_rows: float  # for the target, in a round
    malicious_rows: float
    log: Sequence[Sequence[float]]

    def line(self) -> str:
        """The run in a line."""
        last = ", ".join(
            f"{name} {value:.4f}"
            for name, value in zip(NAMES, self.log[-1], strict=True)
        )
        return (
            f"seed {self.seed}: item {self.target:4d} ({self.positives:3d} positives), "
            f"rows a round {self.honest_rows:5.1f} honest {self.malicious_rows:4.1f} "
            f"malicious; {last}"
        )


@dataclass(frozen=True)
class Draws:
    """Everything that the repository's seed draws before the first epoch."""

    items: Tensor  # (items, width)
    users: Tensor  # (clients, width)
    negatives: Tensor  # (interactions,)
    starts: Tensor  # (clients,) a client's first interaction


@dataclass(frozen=True, eq=False)
class Given(Negatives):
    """Negatives that were drawn before; fresh ones for malicious clients."""

    draws: Draws = field(kw_only=True)

    def drawn(self, cohort: Cohort, within: Tensor, stream: Stream) -> Tensor:
        starts, negatives = self.draws.starts, self.draws.negatives
        client = cohort.clients[cohort.sender]
        honest = client < len(starts)
        place = starts[client.clamp_max(len(starts) - 1)] + within
        given = negatives[place.clamp_max(len(negatives) - 1), None]
        fresh = super().drawn(cohort, within, stream)
        return torch.where(honest[:, None], given, fresh)


@dataclass(frozen=True, eq=False)
class FromDraws(BPR):
    """BPR that begins with vectors and negatives drawn before."""

    given: Given = field(kw_only=True)

    def init(self, shape: Shape, stream: Stream) -> tuple[State, State]:
        model, private = super().init(shape, stream)
        users, draws = private["users"].clone(), self.given.draws
        users[: len(draws.users)] = draws.users
        return {**model, "items": draws.items.clone()}, {"users": users}

    def sampling(self) -> Negatives:
        return self.given


@dataclass(frozen=True)
class Scene:
    """The data, and what the authors made public of it."""

    world: World
    public: Ragged
    epochs: int
    group: Group

    def run(
        self,
        seed: int,
        poisoner: Poisoner,
        share: float,
        method: Method = BPR(),  # noqa: B008 - frozen
        target: str | None = None,
        epochs: int | None = None,
        every: int | None = None,
    ) -> Found:
        """A run of so many epochs, evaluated in the end or every so many epochs."""
        clients = len(self.world.eligible)
        rounds = -(-(clients + int(share * clients)) // COHORT)
        epochs = epochs or self.epochs
        party = Party(
            poisoner=poisoner,
            share=share,
            target=target or self.group,
            public=self.public if poisoner.public_share() else None,
        )
        setup = Setup(
            self.world,
            method,
            Plain(),
            sampling=Sampling("epoch", COHORT),
            protocol=Protocol(every=rounds * (every or epochs)),
            rounds=rounds * epochs,
            seed=seed,
            party=party,
        )
        done = run(setup, Machine(workers=1))
        assert done.plot is not None
        item, traffic = int(done.plot.targets[0]), done.state.traffic
        log = [[row[key] for key in KEYS] for row in done.state.log if KEYS[0] in row]
        found = Found(
            seed,
            item,
            int(self.world.popularity[item]),
            traffic.honest_rows / traffic.rounds,
            traffic.malicious_rows / traffic.rounds,
            log,
        )
        click.echo(f"  {found.line()}", err=True)
        return found


@click.command(help=__doc__)
@click.option("--data", default="fedrecattack/ml-100k", help="The repository's folder.")
@click.option("--seeds", default=5, show_default=True)
@click.option("--epochs", default=EPOCHS, show_default=True)
@click.option("--only", multiple=True, type=click.Choice(PARTS), help="Default: all.")
@click.option(
    "--target",
    default="random",
    type=click.Choice(["random", "tail", "torso", "head"]),
    help="Where targets come from; claims are made for random ones.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the claims as JSON.")
def main(
    data: str,
    seeds: int,
    epochs: int,
    only: tuple[str, ...],
    target: Group,
    as_json: bool,
) -> None:
    """Measure every claim and print one table."""
    try:
        world = load(DataSettings(data, format="adjacency", features=())).world
        public = public_of(locate(data) / "train.part-1%.txt", world)
    except (DataMissing, DataError) as missing:
        raise click.UsageError(str(missing)) from missing
    scene = Scene(world, public, epochs, target)
    tell([*claims(scene, range(seeds), only or PARTS)], as_json)


def claims(scene: Scene, seeds: Sequence[int], parts: Sequence[str]) -> Iterator[Claim]:
    """The claims asked for, in turn."""
    runs: dict[str, list[Found]] = {}
    shares = {"plain": 0.0, "attack": 0.05, "fewer": 0.03}
    for part in parts:
        click.echo(f"{part} ...", err=True)
        if part in shares:
            one = [scene.run(seed, FedRecAttack(), shares[part]) for seed in seeds]
            runs[part] = one
    if "trace" in parts:
        yield from trace(scene)
    if "plain" in runs:
        yield from plain(runs["plain"])
    if "attack" in runs:
        yield from attack(runs["attack"], runs.get("plain", []))
    if "fewer" in runs:
        yield from fewer(runs["fewer"])
    if "profiles" in parts:
        yield from profiles(scene, seeds)


def trace(scene: Scene) -> Iterator[Claim]:
    """Epochs 0 to 5 from the repository's own draws."""
    method = FromDraws(given=Given(1, draws=official(scene.world)))
    for name, published, ours in zip(
        NAMES[1:], README[0][1:], at_start(scene.world, method), strict=True
    ):
        yield Claim(f"epoch 0: {name}", published, ours, 5e-5, PUBLISHED)
    found = [
        scene.run(seed, FedRecAttack(), 0.05, method, str(TARGET), epochs=5, every=1)
        for seed in range(TRACES)
    ]
    for epoch in range(1, 6):
        for at, name in enumerate(NAMES):
            ours = median(one.log[epoch - 1][at] for one in found)
            told = f"epoch {epoch}: {name}"
            yield Claim(told, README[epoch][at], ours, 0.02, PUBLISHED)


def plain(runs: Sequence[Found]) -> Iterator[Claim]:
    """Nobody is malicious."""
    yield Claim("nobody: HR@10", 0.5795, middle(runs, 0), 0.012, EARLIER)
    yield Claim("nobody: ER@10", 0.0, middle(runs, 2), 0.002, EARLIER, "at most")


def attack(runs: Sequence[Found], without: Sequence[Found]) -> Iterator[Claim]:
    """5 % malicious clients."""
    yield Claim(
        "5 %: ER@10 in most lists", 0.93, middle(runs, 2), 0.0, EARLIER, "at least"
    )
    for at, earlier in ((1, 0.9454), (2, 0.9530), (3, 0.9422)):
        yield Claim(f"5 %: {NAMES[at]}", earlier, middle(runs, at), 0.03, EARLIER)
    if without:
        change = middle(runs, 0) - middle(without, 0)
        yield Claim("5 %: change of HR@10", 0.0, change, 0.01, EARLIER)


def fewer(runs: Sequence[Found]) -> Iterator[Claim]:
    """3 % malicious clients."""
    yield Claim("3 %: ER@10", 0.5, middle(runs, 2), 0.0, EARLIER, "at most")


def profiles(scene: Scene, seeds: Sequence[int]) -> Iterator[Claim]:
    """5 % malicious clients that train on made-up interactions."""
    for name, (poisoner, earlier) in PROFILES.items():
        click.echo(f"{name} ...", err=True)
        found = [scene.run(seed, poisoner, 0.05) for seed in seeds]
        told = f"{name}, 5 %: ER@10 (earlier {earlier:g})"
        yield Claim(told, 0.01, middle(found, 2), 0.0, EARLIER, "at most")


def middle(runs: Sequence[Found], at: int) -> float:
    """The median of a figure in the end."""
    return median(one.log[-1][at] for one in runs)


def public_of(path: Path, world: World) -> Ragged:
    """Public interactions from the repository's own list."""
    frame = lists(path, users_may_be_empty=True)
    user, item = (torch.tensor(frame[name].to_numpy()) for name in ("user", "item"))
    return ragged(world.shape.clients, user, item, torch.ones(len(user)))


def official(world: World) -> Draws:
    """What the repository draws before its first epoch, in its order.

    NumPy draws the target and then each client's negatives, PyTorch the item vectors
    and then each client's vector; a table is drawn twice, once as its class does.
    """
    width, items = BPR().width, world.shape.items
    state, rng = np.random.RandomState(SEED), torch.Generator().manual_seed(SEED)
    if state.choice(items, 1, replace=False).tolist() != [TARGET]:
        raise click.UsageError("the README's trace is of MovieLens-100K; leave it out")

    def table(rows: int) -> Tensor:
        torch.randn(rows, width, generator=rng)
        return torch.empty(rows, width).normal_(std=0.01, generator=rng)

    vectors, users, negatives = table(items), [], []
    for client in range(world.shape.clients):
        own = {*world.train.of(torch.tensor([client])).item.tolist()}
        for _ in range(int(world.train.counts[client])):
            item = state.randint(items)
            while item in own:
                item = state.randint(items)
            negatives.append(item)
        users.append(table(1))
    starts = world.train.offsets[:-1]
    return Draws(vectors, torch.cat(users), torch.tensor(negatives), starts)


def at_start(world: World, method: Method) -> Sequence[float]:
    """ER@5, ER@10 and NDCG@10 of the target before the first epoch."""
    assert isinstance(method, BPR)
    model, private = method.init(world.shape, Stream(0))
    exposure = Exposure.of(world, torch.tensor([TARGET]))
    cohort = cohort_of(world, world.eligible)
    measured = exposure.measure(method.score(model, private, cohort), cohort)
    marks = {name: Marks.none(held) for name, held in exposure.held().items()}
    for name, value in measured.items():
        marks[name].put(cohort.clients, value)
    found = means([*exposed(marks).items()])
    return [found[key.removeprefix("hijack.")] for key in KEYS[1:]]


if __name__ == "__main__":
    main()
