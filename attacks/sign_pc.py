"""Which items did each client interact with? Sign-PC's figures, measured again.

Four sets of claims on MovieLens-100K, each of one upload of every client:

- federated BPR (the setting of FedRecAttack: width 32, rate 0.01, rows cut to 1) after
  0, 20 and 100 epochs, plain and with noise on the rows sent;
- PFedRec in rounds 0 to 5;
- FCF as first proposed, whose dense upload has a solution of its own (``fcf_dense``);
- noise on touched rows alone, which leaves the item ids as they are: the support's F1
  is unchanged, and an auditor who guesses from the ids which of two histories each
  device holds refutes every epsilon that so many devices can refute.

    python attacks/sign_pc.py

needs MovieLens-100K (``privfed data get ml-100k``) and takes five minutes on one core.
"Earlier" figures are the project's own, of another implementation.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import click
import torch
from claims import Claim, tell
from torch import Tensor

from privfed.adversary import Attack, Knowledge, Prior
from privfed.attacks.items.fcf_dense import FCFDense
from privfed.attacks.items.sign_pc import SignPC
from privfed.attacks.items.support import Support, sent
from privfed.audit.one_run import Guesses
from privfed.channels.plain import Plain
from privfed.config import run_settings
from privfed.data.load import DataSettings, load
from privfed.data.world import Shape, World, ragged
from privfed.defenses.gaussian import Gaussian
from privfed.evaluation.protocol import Protocol
from privfed.guesses import Items
from privfed.interfaces import Defense, Method, State, Turn
from privfed.messages import Uploads
from privfed.metrics.leakage import items
from privfed.rounds import Outcome, Setup, run
from privfed.sampling import Sampling
from privfed.seeds import Seeds
from privfed.views import ItemsView, ModelView, UploadsView, View
from privfed.watch import narrow

EPOCHS = (0, 20, 100)
SIGMAS = (0.0, 0.01, 0.1, 0.3)
BEFORE = {  # F1 by epoch and sigma
    0: (1.0, 0.9956, 0.5351, 0.5286),
    20: (1.0, 0.9990, 0.9287, 0.7146),
    100: (1.0, 0.9913, 0.8817, 0.7146),
}
COHORT = 256
EARLIER = "earlier"
DELTA = 1e-5
SEEDS = Seeds(0)


@dataclass(frozen=True)
class Window(Attack):
    """Another attack, shown some rounds only, with noise on the rows sent if asked."""

    attack: Attack
    first: int
    rounds: int
    sigma: float = 0.0
    shape: Shape = Shape(0, 0)  # noqa: RUF009 - frozen

    sees = (UploadsView, ModelView)
    tasks = ("ranking",)
    knows = Knowledge(popularity=True)
    paper = "as the attack inside"

    def prepare(self, prior: Prior) -> Attack:
        return replace(self, attack=self.attack.prepare(prior), shape=prior.shape)

    def start(self, prior: Prior) -> State:
        return self.attack.start(prior)

    def observe(self, memory: State, view: View) -> State:
        if not self.first <= view.round < self.first + self.rounds:
            return memory
        for kind in self.attack.sees:
            if isinstance(view, kind):
                if isinstance(view, UploadsView):
                    view = replace(view, uploads=self._noised(view))
                return self.attack.observe(memory, narrow(view, kind))
        return memory

    def _noised(self, view: UploadsView) -> Uploads:
        if self.sigma == 0:
            return view.uploads
        noise = Gaussian(variance=self.sigma**2, rows="touched")
        turn = Turn(view.round, self.shape, SEEDS("noise", view.round))
        return noise.on_upload(view.uploads, turn)

    def guess(self, memory: State, prior: Prior) -> Items:
        found = self.attack.guess(memory, prior)
        assert isinstance(found, Items)
        return found


@dataclass(frozen=True)
class Ids(Attack):
    """Which items each client sent in the first round: what an auditor compares."""

    sees = (ItemsView,)
    paper = "none"

    def start(self, prior: Prior) -> State:
        return {"came": torch.zeros(prior.clients, prior.items, dtype=torch.bool)}

    def observe(self, memory: State, view: View) -> State:
        assert isinstance(view, ItemsView)
        memory["came"][view.clients] = sent(view, memory["came"].shape[1])
        return memory

    def guess(self, memory: State, prior: Prior) -> Items:
        came = memory["came"]
        return Items(torch.arange(prior.clients), came.double(), came)


@click.command(help=__doc__)
@click.option("--json", "as_json", is_flag=True, help="Print the claims as JSON.")
def main(as_json: bool) -> None:
    """Measure every claim and print one table."""
    world = load(DataSettings("ml-100k", features=())).world
    found: list[Claim] = []
    for measure in (bpr, pfedrec, fcf, ids_alone):
        click.echo(f"{measure.__name__} ...", err=True)
        found += measure(world)
    tell(found, as_json)


def bpr(world: World) -> Iterator[Claim]:
    """Federated BPR, before and in training, plain and with noise on touched rows."""
    rounds = -(-len(world.eligible) // COHORT)
    method = made("bpr:learning_rate=0.01")
    attacks: dict[str, Attack] = {}
    for epoch in EPOCHS:
        for sigma in SIGMAS:
            window = Window(SignPC(), epoch * rounds, rounds, sigma)
            attacks[f"{epoch} {sigma}"] = window
    attacks["support"] = Window(Support(), 0, rounds)
    sampling = Sampling("queue", COHORT)
    total = (EPOCHS[-1] + 1) * rounds
    done = watched(world, method, attacks, total, sampling=sampling)
    yield Claim(
        "BPR, support alone: F1", 0.674, f1(done, world, "support"), 0.01, EARLIER
    )
    for epoch in EPOCHS:
        for sigma, before in zip(SIGMAS, BEFORE[epoch], strict=True):
            ours = f1(done, world, f"{epoch} {sigma}")
            name = f"BPR, epoch {epoch}, sigma {sigma:g}: F1"
            if sigma:
                yield Claim(name, before, ours, 0.03, EARLIER)
            else:
                yield Claim(name, before, ours, 5e-5, EARLIER)


def pfedrec(world: World) -> Iterator[Claim]:
    """PFedRec's first six rounds, one upload each."""
    attacks: dict[str, Attack] = {
        f"{number}": Window(SignPC(), number, 1) for number in range(6)
    }
    attacks["support"] = Window(Support(), 0, 1)
    done = watched(world, made("pfedrec"), attacks, 6)
    ours = f1(done, world, "support")
    yield Claim("PFedRec, support alone: F1", 0.363, ours, 0.01, EARLIER)
    for number in range(6):
        ours, name = f1(done, world, f"{number}"), f"PFedRec, round {number}: F1"
        yield Claim(name, 1.0, ours, 0.005, EARLIER, "at least")


def fcf(world: World) -> Iterator[Claim]:
    """FCF as first proposed, whose devices send a gradient of every row."""
    attacks: dict[str, Attack] = {
        f"{number}": Window(FCFDense("first"), number, 1) for number in (0, 3)
    }
    done = watched(world, made("fcf_original"), attacks, 4)
    yield Claim("FCF, round 0: F1", 1.0, f1(done, world, "0"), 5e-5, EARLIER)
    yield Claim("FCF, round 3: F1", 1.0, f1(done, world, "3"), 1e-3, EARLIER)


def ids_alone(world: World) -> Iterator[Claim]:
    """Noise on the rows sent and none on which they are."""
    for name in ("bpr", "pfedrec"):
        method, attacks = made(name), {"support": Support()}
        bare = f1(watched(world, method, attacks, 1), world, "support")
        for spec in ("imia_ldp", "gaussian:rows=touched"):
            done = watched(world, method, attacks, 1, [defense(spec)])
            told = f"{name}, {spec}: support's F1 as without it"
            yield Claim(told, bare, f1(done, world, "support"), 1e-12, EARLIER)
        bound = audited(world, method, defense("imia_ldp"))
        yield Claim(f"{name}, imia_ldp: epsilon refuted", 5.725, bound, 5e-3, EARLIER)


def audited(world: World, method: Method, noise: Defense) -> float:
    """Epsilon that guesses from item ids alone refute, one coin for each device.

    Heads, a device holds its own history, tails, that of the next device. The auditor
    knows both and guesses the one of which more was sent.
    """
    clients = world.eligible
    heads = SEEDS("coins").bits(clients, torch.zeros_like(clients)) % 2 == 0
    holder = torch.where(heads, clients, clients.roll(-1))
    played = holding(world, clients, holder)
    came = watched(played, method, {"ids": Ids()}, 1, [noise]).guesses["ids"]
    assert isinstance(came, Items)
    own, other = (
        nearness(came.chosen[clients], histories(world, of))
        for of in (clients, clients.roll(-1))
    )
    correct = int(((own > other) == heads).sum())
    return Guesses(len(clients), len(clients), correct).epsilon(DELTA)


def holding(world: World, clients: Tensor, holder: Tensor) -> World:
    """The world in which ``clients`` hold the histories of ``holder``."""
    own = world.train.of(holder)
    train = ragged(world.shape.clients, clients[own.sender], own.item, own.label)
    return replace(world, train=train)


def histories(world: World, clients: Tensor) -> Tensor:
    """Who interacted with what, (clients, items) bool."""
    own = world.train.of(clients)
    real = torch.zeros(len(clients), world.shape.items, dtype=torch.bool)
    real[own.sender, own.item] = True
    return real


def nearness(came: Tensor, history: Tensor) -> Tensor:
    """How much of a history was sent, and of equals Jaccard's index, (clients,)."""
    common = (came & history).sum(1).double()
    return common / history.sum(1) + 1e-6 * common / (came | history).sum(1)


def made(spec: str) -> Method:
    """A method of the catalog."""
    return run_settings({"method": spec}).method.part


def defense(spec: str) -> Defense:
    """A defense of the catalog."""
    return run_settings({"defense": [spec]}).defense[0].part


def watched(
    world: World,
    method: Method,
    attacks: Mapping[str, Attack],
    rounds: int,
    defenses: Sequence[Defense] = (),
    sampling: Sampling = Sampling(),  # noqa: B008 - frozen
) -> Outcome:
    """A run that is watched and never evaluated but at its end."""
    setup = Setup(world, method, Plain(), defenses, attacks, sampling)
    return run(replace(setup, protocol=Protocol(every=rounds), rounds=rounds))


def f1(done: Outcome, world: World, attack: str) -> float:
    """The mean over clients."""
    guess = done.guesses[attack]
    assert isinstance(guess, Items)
    return float(items.score(guess, world.train)["f1"].nanmean())


if __name__ == "__main__":
    main()
