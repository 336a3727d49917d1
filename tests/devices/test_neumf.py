"""Closed-form gradients of each client's own network, against autograd."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from privfed.devices.neumf import Layout, Network, clip, merge
from privfed.devices.schedule import Step

LAYOUTS = [
    Layout(8, 12, (16, 8, 4)),
    Layout(8, 0, ()),
    Layout(0, 12, (16,)),
]
CLIENTS, LANES = 3, 32


def ids(layout: Layout) -> str:
    return f"{layout.product}+{layout.mlp}"


def drawn(*size: int) -> Tensor:
    rng = torch.Generator().manual_seed(sum(size))
    return torch.randn(size, generator=rng, dtype=torch.float64)


def logits(layout: Layout, vectors: Tensor, rows: Tensor) -> Tensor:
    """NeuMF as its paper writes it, (clients, lanes)."""
    p = layout.unpack(vectors)
    found = []
    if layout.product:
        found.append(p["users_mf"][:, None] * rows[..., : layout.product])
    if layout.mlp:
        item = rows[..., layout.product :]
        user = p["users_mlp"][:, None].expand_as(item)
        x = torch.cat([user, item], 2)
        for k in range(len(layout.hidden)):
            x = x @ p[f"mlp{k}.weight"].mT + p[f"mlp{k}.bias"][:, None]
            x = x.relu()
        found.append(x)
    z = torch.cat(found, 2)
    return (z @ p["out.weight"].mT + p["out.bias"][:, None])[..., 0]


@pytest.mark.parametrize("layout", LAYOUTS, ids=ids)
def test_logits_and_gradients_are_autograds(layout: Layout) -> None:
    vectors, table = drawn(CLIENTS, layout.length), drawn(50, layout.width)
    at = torch.arange(CLIENTS * LANES) % 50
    delta = drawn(CLIENTS, LANES)
    network = Network(layout, vectors, LANES)

    found = network.logits(table, at)
    rows, dense = network.slopes(delta)

    leaf = table[at].view(CLIENTS, LANES, -1).requires_grad_()
    weights = vectors.clone().requires_grad_()
    expected = logits(layout, weights, leaf)
    torch.testing.assert_close(found, expected.detach(), rtol=0, atol=1e-12)
    wanted = torch.autograd.grad(expected, (leaf, weights), delta)
    torch.testing.assert_close(rows, wanted[0], rtol=0, atol=1e-12)
    torch.testing.assert_close(dense, wanted[1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("layout", LAYOUTS, ids=ids)
def test_a_network_reads_vectors_as_they_are_now(layout: Layout) -> None:
    vectors, table = drawn(CLIENTS, layout.length), drawn(50, layout.width)
    at = torch.arange(CLIENTS * LANES) % 50
    network = Network(layout, vectors, LANES)
    before = network.logits(table, at)

    vectors.mul_(2)

    assert not torch.equal(network.logits(table, at), before)
    fresh = Network(layout, vectors, LANES).logits(table, at)
    assert torch.equal(network.logits(table, at), fresh)


@pytest.mark.parametrize("layout", LAYOUTS, ids=ids)
def test_packing_loses_nothing(layout: Layout) -> None:
    vectors = drawn(CLIENTS, layout.length)
    vectors[:, layout.used :] = 0

    assert torch.equal(layout.pack(layout.unpack(vectors)), vectors)


@pytest.mark.parametrize("bound", [0.5, 100.0])
def test_clipping_is_pytorchs_for_each_client(bound: float) -> None:
    parts = [drawn(CLIENTS, 4, 5), drawn(CLIENTS, 7)]
    wanted = []
    for client in range(CLIENTS):
        leaves = [torch.zeros_like(p[client]).requires_grad_() for p in parts]
        for leaf, part in zip(leaves, parts, strict=True):
            leaf.grad = part[client].clone()
        torch.nn.utils.clip_grad_norm_(leaves, bound)
        wanted.append([leaf.grad for leaf in leaves])

    clip(parts, bound)

    for client in range(CLIENTS):
        for part, one in zip(parts, wanted[client], strict=True):
            torch.testing.assert_close(part[client], one, rtol=1e-12, atol=0)


def test_merging_adds_to_the_first_and_leaves_nothing_behind() -> None:
    nothing = torch.zeros(0, dtype=torch.int64)
    step = Step(
        0, 1, 4, nothing, nothing, nothing, nothing, nothing, nothing, last=False
    )
    slope = torch.tensor([[1.0], [2.0], [4.0], [8.0]])

    assert merge(slope.clone(), step).flatten().tolist() == [1, 2, 4, 8]
    equal = replace(step, twice=torch.tensor([1, 3]), onto=torch.tensor([0, 0]))
    assert merge(slope, equal).flatten().tolist() == [11, 0, 4, 0]
