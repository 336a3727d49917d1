"""Plots by hand."""

import torch
from torch import Tensor

from privfed.data.cohort import cohort_of
from privfed.data.world import Shape
from privfed.interfaces import Method, Round, State
from privfed.messages import Uploads
from privfed.poisoning import Plot, Poisoner, Sortie
from privfed.seeds import Seeds, Stream
from tests.worlds import world


def plot(
    method: Method,
    items: int = 20,
    honest: int = 5,
    malicious: int = 3,
    targets: tuple[int, ...] = (4,),
    popularity: Tensor | None = None,
    seed: int = 0,
) -> Plot:
    """A plot over ``honest`` clients and the malicious ones after them."""
    return Plot(
        Shape(honest + malicious, items),
        Stream(seed),
        method,
        popularity=popularity,
        mine=torch.arange(honest, honest + malicious),
        targets=torch.tensor(targets),
    )


def sortie(model: State, uploads: Uploads, number: int = 3) -> Sortie:
    """A round in which the clients of ``uploads`` take part; they keep nothing."""
    return Sortie(number, uploads.clients, model, {}, uploads, Stream(9))


def ordinary(
    poisoner: Poisoner, plot: Plot, model: State, private: State, clients: Tensor
) -> Uploads:
    """What the method's own training of a poisoner's data sends."""
    made, seeds = poisoner.data(plot), Seeds(3)
    lists: list[list[int]] = [[] for _ in range(plot.clients)]
    for sender, item in zip(made.sender.tolist(), made.item.tolist(), strict=True):
        lists[int(plot.mine[sender])].append(item)
    cohort = cohort_of(world(lists, plot.items), clients)
    here = Round(3, seeds("train", 3), seeds("once"))
    return plot.method.train(model, private, cohort, here).uploads
