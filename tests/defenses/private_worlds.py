"""Small worlds in which one user's history can be taken out or changed for another's.

And the sum of one round of a method on them, as the plain channel makes it.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import torch
from torch import Tensor

from privfed.catalog import entries, find
from privfed.channels.plain import Plain
from privfed.choices import choose
from privfed.data.cohort import cohort_of
from privfed.data.splits import by_clients, by_ratio, leave_one_out
from privfed.data.usage import Population, usage
from privfed.data.world import Ragged, Task, World, spans
from privfed.data.worlds import demo
from privfed.interfaces import Defense, FromTotal, Method, Opening, Round, State, Turn
from privfed.messages import Total, Uploads
from privfed.seeds import Seeds

SEEDS = Seeds(5)
SMALL = {"fedmeta": "adapt_steps=3", "fedmeta_paper": "adapt_steps=3"}
SMALL["dl_frs_paper"] = "learning_rate=1"  # or uploads are too short to be clipped
SMALL |= {name: "width=16,id_width=16" for name in entries("method") if "fedmr" in name}
SUMMED = [n for n in entries("method") if issubclass(find("method", n), FromTotal)]
SINGLE = [n for n in entries("method") if n not in SUMMED]


def method(name: str) -> Method:
    """A method of the catalog, small enough for a test."""
    spec = f"{name}:{SMALL[name]}" if name in SMALL else name
    part: Method = choose("method", spec).part
    return part


@cache
def small(task: Task) -> World:
    """A small world for a task."""
    if task == "choice":
        return by_clients(usage(0, Population(24, fewest=20, most=60)), 0)
    data = demo(users=24, items=60)
    return by_ratio(data, 0, task=task) if task == "rating" else leave_one_out(data)


def with_history(world: World, client: int, of: int | None) -> World:
    """The world where a client has another one's training data, or None at all."""
    train, owners = world.train, list(range(world.shape.clients))
    counts = train.counts.clone()
    counts[client] = 0 if of is None else train.counts[of]
    owners[client] = client if of is None else of
    _, at = spans(train.offsets[torch.tensor(owners)], counts)
    offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    changed = Ragged(offsets, train.item[at], train.label[at], train.context[at])
    return replace(world, train=changed)


def turn(world: World, step: str, memory: State | None = None, number: int = 0) -> Turn:
    return Turn(number, world.shape, SEEDS(f"{step} 0", number), memory or {})


def uploads(of: Method, world: World, clients: Sequence[int]) -> Uploads:
    """What some clients of a world send in the first round."""
    model, private = of.init(world.shape, SEEDS("init"))
    cohort = cohort_of(world, torch.tensor(clients))
    now = Round(0, SEEDS("train"), SEEDS("once"))
    return of.train(model, private, cohort, now).uploads


def summed(sent: Uploads, world: World) -> Total:
    """The plain channel's total."""
    channel = Plain()
    opening = Opening(0, world.shape, sent.clients, SEEDS("channel"))
    opened, _ = channel.send(channel.open(opening), sent)
    return channel.close(opened).total


def clipped_sum(defense: Defense, world: World, sent: Uploads) -> Total:
    """The total of what a defense lets out."""
    return summed(defense.on_upload(sent, turn(world, "upload")), world)


def numbers(total: Total) -> Tensor:
    """All numbers of a total, end to end; who came does not count."""
    parts = [*total.tables.values(), *total.dense.values(), *total.users.values()]
    parts += [value - total.clients for value in total.rest.values()]
    return torch.cat([part.reshape(-1).double() for part in parts])
