"""FedMeta's recommendation task: which service, or which store, comes next?

The paper's log of 9,369 phones is not public, so none of its figures can be checked;
they stand beside those of two stand-ins. ``usage`` is generated; ``complete-journey``
is real: the store that each of 2,469 households goes to next, in one year.

    privfed data get complete-journey
    python benchmarks/fedmeta.py
    python benchmarks/fedmeta.py --data usage --clients 9369 --most 5000  # as many

MIXED trains one model for everybody in one place, SELF one for each client from its
support alone, META adapts what was learned in 20,000 episodes of one client each. A
client that tests has the last fifth of its records asked and the 80 or 5 % before them
for support. Everything is measured on the same clients and records.

Chen et al., Federated Meta-Learning with Fast Convergence and Efficient Communication,
2018, Table 3.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from math import sqrt
from typing import Literal

import click
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn.functional import cross_entropy, embedding_bag

from privfed.channels.plain import Plain
from privfed.data.choices import CLASSES, choice_records, chosen_things, local_labels
from privfed.data.cohort import Cohort, cohort_of
from privfed.data.interactions import Interactions
from privfed.data.load import DataSettings, interactions
from privfed.data.splits import by_clients
from privfed.data.usage import Population, usage_log
from privfed.data.world import Pairs, World
from privfed.evaluation.choice import ranks
from privfed.evaluation.protocol import Protocol
from privfed.machine import Machine
from privfed.methods.fedmeta import FedMeta
from privfed.rounds import Setup, run
from privfed.sampling import Sampling
from privfed.seeds import Seeds

SUPPORTS = (0.8, 0.05)
QUERY = 0.2
PUBLISHED = {  # top 1 / top 4 in %, at 80 % and 5 % support
    "MIXED NN-unified": ((76.72, 89.13), (66.47, 79.88)),
    "SELF MFU": ((42.92, 81.49), (42.18, 72.87)),
    "SELF MRU": ((70.44, 81.43), (70.44, 81.43)),
    "SELF NB": ((78.18, 92.57), (59.16, 72.83)),
    "SELF LR, 100 steps": ((58.30, 86.52), (52.53, 75.25)),
    "SELF LR, long": ((78.31, 93.70), (65.35, 77.11)),
    "SELF NN, 100 steps": ((57.20, 88.37), (49.89, 75.26)),
    "SELF NN, long": ((83.79, 94.56), (68.87, 77.66)),
    "META MAML+LR": ((47.69, 71.60), (46.75, 66.26)),
    "META Meta-SGD+LR": ((81.70, 93.56), (72.32, 77.94)),
    "META MAML+NN": ((83.87, 94.88), (73.08, 78.02)),
    "META Meta-SGD+NN": ((86.23, 96.46), (72.98, 78.17)),
}
_MODELS: Mapping[str, Literal["logistic", "network"]] = {
    "LR": "logistic",
    "NN": "network",
}
_LEARNERS: Mapping[str, Literal["maml", "meta_sgd"]] = {
    "MAML": "maml",
    "Meta-SGD": "meta_sgd",
}
Accuracies = tuple[float, float]
Row = tuple[float, Accuracies]  # the support, and what it reached


@dataclass(frozen=True, eq=False)
class Task:
    """Records of choices, the worlds of each support, and who tests."""

    name: str
    records: Interactions
    service: Tensor  # (records,) the choice's number among everybody's
    services: int
    worlds: Mapping[float, World]
    testers: Tensor

    def cohort(self, support: float) -> Cohort:
        """Those who test, with their support."""
        return cohort_of(self.worlds[support], self.testers)

    @property
    def asked(self) -> Pairs:
        return self.worlds[SUPPORTS[0]].test.of(self.testers)

    @property
    def asked_at(self) -> Tensor:
        """Places of what is asked among the records."""
        ends = self.records.offsets[1:][self.testers]
        counts = self.worlds[SUPPORTS[0]].test.counts[self.testers]
        one = torch.repeat_interleave(ends - counts.cumsum(0), counts)
        return one + torch.arange(len(one))


def task_of(log: Interactions, levels: Tensor | None, seed: int) -> Task:
    """The recommendation task of a log."""
    records, _ = choice_records(log, levels)
    labels = local_labels(log.user, chosen_things(log)[0])
    worlds = {share: by_clients(records, seed, share, QUERY) for share in SUPPORTS}
    testers = worlds[SUPPORTS[0]].test.counts.nonzero()[:, 0]
    service = chosen_things(log)[0][labels.row]
    return Task(log.name, records, service, log.items, worlds, testers)


def accuracy(scores: Tensor, item: Tensor) -> Accuracies:
    """Top 1 and top 4 in %; a tie counts against the right answer."""
    place = ranks(scores, item)
    top = [100 * float((place <= k).double().mean()) for k in (1, 4)]
    return top[0], top[1]


def most_frequent(task: Task, support: float) -> Tensor:
    """MFU: how often each was chosen in the support."""
    own = task.cohort(support)
    counts = torch.zeros(len(task.testers), CLASSES)
    counts.index_put_((own.sender, own.item), torch.ones(()), accumulate=True)
    return _untied(counts)[task.asked.sender]


def most_recent(task: Task, _: float) -> Tensor:
    """MRU: how long ago each was chosen, up to the record asked; no support matters."""
    user, item = task.records.user, task.records.item
    place = torch.arange(len(user)) - task.records.offsets[user]
    most = int(task.records.offsets.diff().max())
    found = []
    for user_, at in zip(*_by_client(task), strict=True):
        mine = user == user_
        seen = torch.zeros(most + 1, CLASSES)
        seen[place[mine] + 1, item[mine]] = place[mine].float() + 1
        found.append(seen.cummax(0).values[place[at]])
    return _untied(torch.cat(found))


def _by_client(task: Task) -> tuple[list[int], tuple[Tensor, ...]]:
    """Each client that tests, and the places of what it is asked."""
    counts = task.worlds[SUPPORTS[0]].test.counts[task.testers].tolist()
    return task.testers.tolist(), torch.split(task.asked_at, counts)


def _untied(counts: Tensor) -> Tensor:
    """Of equal ones the lower number comes first."""
    return counts.double() - torch.arange(CLASSES) / (CLASSES + 1)


def naive_bayes(task: Task, support: float) -> Tensor:
    """NB: whether each feature is there, Laplace smoothing 1, fit on the support."""
    from sklearn.naive_bayes import BernoulliNB

    own, asked = task.cohort(support), task.asked
    scores = torch.full((len(asked.item), CLASSES), -torch.inf, dtype=torch.float64)
    for client in range(len(task.testers)):
        fit = BernoulliNB(alpha=1.0, binarize=0.02)
        mine, query = own.sender == client, (asked.sender == client).nonzero()[:, 0]
        fit.fit(own.context[mine].numpy(), own.item[mine].numpy())
        told = fit.predict_log_proba(asked.context[query].numpy())
        scores[query[:, None], torch.from_numpy(fit.classes_)] = torch.from_numpy(told)
    return scores


def alone(task: Task, support: float, model: str, steps: int) -> Tensor:
    """SELF: a model of its own for each client, by Adam from random weights."""
    method = FedMeta(
        "fedavg_meta", _MODELS[model], adapt_steps=steps, local_rate=0.01
    )  # which predicts after steps of Adam on the support
    shape = task.worlds[support].shape
    start, _ = method.init(shape, Seeds(0)("init"))
    return method.choose(start, {}, task.cohort(support), task.asked)


def learned(task: Task, method: FedMeta, episodes: int) -> Iterator[Row]:
    """META: one client an episode, one step of adapting; more steps in the end."""
    setup = Setup(
        task.worlds[SUPPORTS[0]],
        method,
        Plain(),
        sampling=Sampling("uniform", clients_per_round=1),
        protocol=Protocol(every=episodes),
        rounds=episodes,
    )
    model = run(setup, Machine(workers=1)).state.model
    for support in SUPPORTS:
        scores = method.choose(model, {}, task.cohort(support), task.asked)
        yield support, accuracy(scores, task.asked.item)


COUNTED = {"MFU": most_frequent, "MRU": most_recent, "NB": naive_bayes}


class Unified:
    """MIXED: one network over features, user and last service, for everybody.

    (103 + users + services) -> 64 -> services, where a one-hot input is a row of the
    first layer's weights.
    """

    def __init__(self, task: Task, hidden: int = 64) -> None:
        rng = torch.Generator().manual_seed(0)
        width, users = task.records.context.shape[1], task.records.users
        outputs = task.services + 20  # as the paper counts: 2,420 for 2,400
        sizes = {"features": width, "users": users, "last": outputs}
        inputs = sum(sizes.values())

        def drawn(rows: int, columns: int, fans: int) -> Tensor:
            return torch.randn(rows, columns, generator=rng).mul(sqrt(2 / fans))

        self.weights = {n: drawn(s, hidden, inputs + hidden) for n, s in sizes.items()}
        self.weights["bias"] = torch.zeros(hidden)
        self.weights["out"] = drawn(outputs, hidden, outputs + hidden)
        self.weights["out.bias"] = torch.zeros(outputs)
        self.task, self.outputs = task, outputs
        self.last = torch.roll(task.service, 1)
        self.last[task.records.offsets[:-1]] = outputs - 1  # nothing came before

    @property
    def numbers(self) -> int:
        return sum(value.numel() for value in self.weights.values())

    def logits(self, weights: Mapping[str, Tensor], at: Tensor) -> Tensor:
        records = self.task.records
        one = torch.arange(len(at) + 1)[:-1]
        hidden = records.context[at] @ weights["features"] + weights["bias"]
        hidden = hidden + embedding_bag(records.user[at], weights["users"], one)
        hidden = hidden + embedding_bag(self.last[at], weights["last"], one)
        out: Tensor = torch.relu(hidden) @ weights["out"].T + weights["out.bias"]
        return out

    def fit(
        self, weights: Mapping[str, Tensor], batches: Iterator[Tensor]
    ) -> dict[str, Tensor]:
        """Adam, one batch of one client's records at a time."""
        mine = {n: v.clone().requires_grad_() for n, v in weights.items()}
        adam = torch.optim.Adam(mine.values(), lr=1e-3)
        for at in batches:
            adam.zero_grad()
            torch.autograd.backward(
                cross_entropy(self.logits(mine, at), self.task.service[at])
            )
            adam.step()
        return {n: v.detach() for n, v in mine.items()}


def mixed(task: Task, unified: Unified, steps: int, tuned: int) -> Iterator[Row]:
    """MIXED: pre-trained on those who train, fine-tuned by each client that tests."""
    offsets = task.records.offsets
    rng = torch.Generator().manual_seed(1)
    world = task.worlds[SUPPORTS[0]]

    def batches(pool: list[Tensor], count: int) -> Iterator[Tensor]:
        for _ in range(count):
            at = pool[int(torch.randint(len(pool), (1,), generator=rng))]
            size = min(500, max(1, len(at) // 2))
            yield at[torch.randperm(len(at), generator=rng)[:size]]

    pool = [
        torch.arange(int(offsets[c]), int(offsets[c + 1]))
        for c in world.eligible.tolist()
    ]
    shared = unified.fit(unified.weights, batches(pool, steps))
    for support in SUPPORTS:
        counts = task.worlds[support].train.counts
        scores = []
        for client, asked in zip(*_by_client(task), strict=True):
            known = torch.arange(int(asked[0]) - int(counts[client]), int(asked[0]))
            own = unified.fit(shared, batches([known], tuned))
            with torch.no_grad():
                scores.append(unified.logits(own, asked))
        yield support, accuracy(torch.cat(scores), task.service[task.asked_at])


@dataclass(frozen=True)
class Effort:
    """How long each model trains."""

    episodes: int
    steps: int
    long: int
    inner_rate: float
    adapt: int


def rows(task: Task, effort: Effort) -> Iterator[tuple[str, Iterator[Row]]]:
    """Every row of the paper's Table 3; a row is measured when it is asked for."""
    unified = Unified(task)
    name = f"MIXED NN-unified ({unified.numbers:,})"
    yield name, mixed(task, unified, effort.steps, 100)
    for name, rule in COUNTED.items():
        yield f"SELF {name}", scored(task, rule)
    for model in _MODELS:
        for words, steps in (("100 steps", 100), ("long", effort.long)):
            fit = partial(alone, model=model, steps=steps)
            yield f"SELF {model}, {words}", scored(task, fit)
    for model, kind in _MODELS.items():
        for name, algorithm in _LEARNERS.items():
            method = FedMeta(
                algorithm,
                kind,
                inner_rate=effort.inner_rate,
                adapt_steps=effort.adapt,
            )
            yield f"META {name}+{model}", learned(task, method, effort.episodes)


def scored(task: Task, rule: Callable[[Task, float], Tensor]) -> Iterator[Row]:
    """What a rule that needs no training of others reaches."""
    for support in SUPPORTS:
        yield support, accuracy(rule(task, support), task.asked.item)


@click.command()
@click.option("--data", "names", multiple=True, default=("usage", "complete-journey"))
@click.option("--clients", default=600, help="usage: clients generated.")
@click.option("--most", default=1000, help="usage: records of a client at most.")
@click.option("--episodes", default=20_000, help="META: episodes (paper: 20,000).")
@click.option("--steps", default=5000, help="MIXED: steps (paper: 80,000).")
@click.option("--long", default=1000, help="SELF: the long run (paper: 10,000).")
@click.option("--inner-rate", default=0.01, help="META: step of adapting.")
@click.option("--adapt", default=100, help="META: steps of a client that predicts.")
@click.option("--only", default="", help="Rows that begin so: META, SELF, MIXED.")
@click.option("--seed", default=0)
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def main(
    names: tuple[str, ...],
    clients: int,
    most: int,
    episodes: int,
    steps: int,
    long: int,
    inner_rate: float,
    adapt: int,
    only: str,
    seed: int,
    as_json: bool,
) -> None:
    """Measure the recommendation task on stand-ins, beside the paper's Table 3."""
    torch.set_num_threads(1)
    for name in names:
        if name == "usage":
            log, levels = usage_log(seed, Population(clients, min(100, most), most))
            task = task_of(log, levels, seed)
        else:
            task = task_of(interactions(DataSettings(name)), None, seed)
        found = {}
        effort = Effort(episodes, steps, long, inner_rate, adapt)
        for row, figures in rows(task, effort):
            if row.startswith(only):
                found[row] = dict(figures)
                click.echo(f"{task.name}: {row} {found[row]}", err=True)
        _show(task, found, as_json)


def _show(
    task: Task, found: Mapping[str, Mapping[float, Accuracies]], as_json: bool
) -> None:
    if as_json:
        click.echo(json.dumps({"data": task.name, "accuracy": found}, indent=2))
        return
    records = task.records
    title = (
        f"{task.name}: {records.users:,} clients, {len(records):,} records, "
        f"{len(task.testers):,} clients test; top 1 / top 4 in %"
    )
    table = Table(title=title, box=None, title_justify="left")
    table.add_column("")
    for words in ("80 %", "5 %", "paper, 80 %", "paper, 5 %"):
        table.add_column(words, justify="right", no_wrap=True)
    for row, figures in found.items():
        published = next(v for k, v in PUBLISHED.items() if row.startswith(k))
        cells = [figures[share] for share in SUPPORTS]
        table.add_row(row, *(f"{a:.1f} / {b:.1f}" for a, b in (*cells, *published)))
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
