"""Local optimizers of a shard, against PyTorch's own, one client at a time."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from privfed.devices.adam import LocalRule, Optimizer

STEPS = (5, 3, 3, 1)  # by client, most first, as a schedule has them
ROWS, WIDTH, DENSE, DRAWN = 8, 4, 64, 3  # of each client; rows drawn in a step
RULES = [
    LocalRule("adamw", 0.01, decay=0.5),
    LocalRule("adamw", 0.1, decay=0.0),
    LocalRule("adam", 0.02, decay=0.0),
    LocalRule("sgd", 0.1, decay=0.0),
    LocalRule("sgd", 0.1, decay=0.2),
]


def theirs(rule: LocalRule, values: list[Tensor]) -> torch.optim.Optimizer:
    kinds = {
        "adamw": torch.optim.AdamW,
        "adam": torch.optim.Adam,
        "sgd": torch.optim.SGD,
    }
    found: torch.optim.Optimizer = kinds[rule.optimizer](
        values, lr=rule.learning_rate, weight_decay=rule.decay
    )
    return found


@pytest.mark.parametrize("rule", RULES, ids=lambda r: f"{r.optimizer} {r.decay}")
def test_each_client_steps_as_pytorch_steps_it_alone(rule: LocalRule) -> None:
    """Also rows drawn once, and after, and clients that are done."""
    rng = torch.Generator().manual_seed(0)

    def drawn(*size: int) -> Tensor:
        return torch.randn(size, generator=rng, dtype=torch.float64)

    clients = len(STEPS)
    rows, dense = drawn(clients * ROWS, WIDTH), drawn(clients, DENSE)
    mine = [
        [part.clone().requires_grad_() for part in pair]
        for pair in zip(torch.split(rows, ROWS), dense, strict=True)
    ]
    optimizers = [theirs(rule, values) for values in mine]
    ours = Optimizer(rule, rows, dense, max(STEPS))
    for number in range(max(STEPS)):
        active = sum(count > number for count in STEPS)
        local = torch.stack(
            [torch.randperm(ROWS, generator=rng)[:DRAWN] for _ in range(active)]
        )
        slope, vector = drawn(active * DRAWN, WIDTH), drawn(active, DENSE)
        at = (local + torch.arange(active)[:, None] * ROWS).flatten()
        ours.step(number, active * ROWS, at, slope.clone(), vector.clone())
        for client in range(active):
            table, layer = mine[client]
            table.grad, layer.grad = torch.zeros_like(table), vector[client]
            table.grad[local[client]] = slope[client * DRAWN :][:DRAWN]
            optimizers[client].step()

    for client, (table, layer) in enumerate(mine):
        part = rows[client * ROWS :][:ROWS]
        torch.testing.assert_close(part, table.detach(), rtol=1e-13, atol=1e-13)
        torch.testing.assert_close(dense[client], layer.detach(), rtol=0, atol=1e-13)


@given(st.lists(st.integers(0, 600), min_size=1, max_size=5))
def test_rest_is_what_so_many_steps_leave(steps: list[int]) -> None:
    rule = LocalRule(learning_rate=0.01, decay=0.5)
    found = rule.rest(torch.tensor(steps), torch.zeros(1, dtype=torch.float64))

    expected = [(1 - 0.01 * 0.5) ** count for count in steps]
    assert found.tolist() == pytest.approx(expected, rel=1e-12)


def test_without_decay_all_is_left() -> None:
    rule = LocalRule("adam", decay=0.0)

    assert rule.rest(torch.tensor([0, 9]), torch.zeros(1)).tolist() == [1.0, 1.0]


def test_nobody_leaves_nothing() -> None:
    rest = LocalRule().rest(torch.zeros(0, dtype=torch.int64), torch.zeros(1))

    assert rest.shape == (0,)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"epochs": 0}, "epochs"),
        ({"batch": 0}, "batch"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"decay": -0.1}, "decay"),
        ({"decay": 1e4}, "decay"),
        ({"clip": 0.0}, "clip"),
        ({"clip": float("nan")}, "clip"),
        ({"optimizer": "adam", "decay": 0.01}, "adam has none"),
    ],
)
def test_an_unusable_setting_is_named(changes: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        LocalRule(**changes)  # type: ignore[arg-type]
