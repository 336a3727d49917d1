"""A slow, obvious twin of neural recommenders trained by PyTorch's own optimizers.

One client at a time: a whole copy of the whole model, all users' rows in it, in
double precision. It takes the package's draws for the client alone.
"""

from collections.abc import Iterator, Mapping
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from privfed.data.cohort import cohort_of
from privfed.data.world import World
from privfed.devices.adam import LocalRule
from privfed.devices.batches import collect
from privfed.devices.negatives import Negatives
from privfed.methods.neural.network import Neural
from privfed.seeds import Stream

Minibatch = tuple[Tensor, Tensor]  # items, labels


class Twin(nn.Module):
    """NeuMF, GMF or MLP over whole tables of users and items."""

    def __init__(self, neural: Neural, users: int, items: int) -> None:
        super().__init__()
        tables = neural.tables()
        self.users = nn.ModuleDict(
            {name: nn.Embedding(users, width) for name, width in tables.items()}
        )
        self.items = nn.ModuleDict(
            {name: nn.Embedding(items, width) for name, width in tables.items()}
        )
        self.dense = nn.ModuleDict(
            {name: nn.Linear(i, o) for name, (o, i) in neural.dense().items()}
        )
        self.double()

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        found = []
        if "mf" in self.users:
            found.append(self.users["mf"](user) * self.items["mf"](item))
        if "mlp" in self.users:
            x = torch.cat([self.users["mlp"](user), self.items["mlp"](item)], 1)
            for name in list(self.dense)[:-1]:
                x = torch.relu(self.dense[name](x))
            found.append(x)
        logit: Tensor = self.dense["out"](torch.cat(found, 1))[:, 0]
        return logit

    def load(self, model: Mapping[str, Tensor]) -> "Twin":
        """This model with the package's tensors as its weights."""
        self.load_state_dict({_path(n): v.double() for n, v in model.items()})
        return self

    def state(self) -> dict[str, Tensor]:
        """All weights under the package's names."""
        return {_name(path): v for path, v in self.state_dict().items()}


def _path(name: str) -> str:
    kind, _, table = name.partition("_")
    return f"{kind}.{table}.weight" if table else f"dense.{name}"


def _name(path: str) -> str:
    kind, rest = path.split(".", 1)
    return rest if kind == "dense" else f"{kind}_{rest.removesuffix('.weight')}"


def drawn(
    of: World, client: int, rule: LocalRule, negatives: Stream, shuffle: Stream
) -> Iterator[Minibatch]:
    """One client's batches of all epochs, with the package's own draws."""
    cohort = cohort_of(of, torch.tensor([client]))
    samples = collect(cohort, Negatives(4), negatives)
    for epoch in range(rule.epochs):
        for batch in samples.mini(rule.batch, shuffle, epoch):
            there = batch.weight[0] > 0
            yield batch.item[0, there], batch.target[0, there].double()


def optimizer(rule: LocalRule, model: nn.Module) -> torch.optim.Optimizer:
    """PyTorch's own."""
    if rule.optimizer == "sgd":
        return torch.optim.SGD(
            model.parameters(), rule.learning_rate, weight_decay=rule.decay
        )
    kind = torch.optim.Adam if rule.optimizer == "adam" else torch.optim.AdamW
    return kind(
        model.parameters(), rule.learning_rate, weight_decay=rule.decay, foreach=False
    )


def trained(
    start: Twin,
    client: int,
    batches: Iterator[Minibatch],
    rule: LocalRule,
    pull: tuple[float, Twin] | None = None,
) -> tuple[Twin, float]:
    """A client's copy after local training, and the loss of its last batch."""
    mine = deepcopy(start)
    steps, last = optimizer(rule, mine), 0.0
    for item, label in batches:
        steps.zero_grad()
        user = torch.full_like(item, client)
        loss = binary_cross_entropy_with_logits(mine(user, item), label)
        last = loss.item()
        torch.autograd.backward(loss)
        if pull is not None:
            _pull(mine, client, *pull)
        if rule.clip is not None:
            nn.utils.clip_grad_norm_(mine.parameters(), rule.clip)
        steps.step()
    return mine, last


def _pull(mine: Twin, client: int, strength: float, towards: Twin) -> None:
    """Ditto's gradient on layers and the client's own rows."""
    pairs = zip(mine.named_parameters(), towards.parameters(), strict=True)
    for (name, value), aim in pairs:
        assert value.grad is not None
        if name.startswith("dense"):
            value.grad += strength * (value - aim).detach()
        elif name.startswith("users"):
            value.grad[client] += strength * (value - aim).detach()[client]
