"""Factored gradients: closed form, tape and plain autograd agree."""

import pytest
import torch
from torch import Generator, Tensor

from privfed.devices.batches import Batch
from privfed.devices.gradients import Grads, LayerGrad, Local, RowGrad, step
from privfed.devices.tape import Tape, affine
from privfed.methods.backbone import LinearBackbone, cross_entropy
from privfed.methods.fcf import FCF
from privfed.methods.fedavg import FedAvg
from privfed.methods.pfedrec import PFedRec
from tests.devices.steps import ROUND, batch_of, dense_rows, local_of
from tests.worlds import everyone, uneven

WORLD = uneven()
LINEAR = [one(width=8) for one in (FedAvg, FCF, PFedRec)]


def by_tape(method: LinearBackbone, local: Local, batch: Batch) -> tuple[Tensor, Grads]:
    tape = Tape(local, batch)
    loss = cross_entropy(method.head(tape, tape.rows("items")), batch)
    return loss.detach(), tape.gradients(loss)


@pytest.mark.parametrize("full", [True, False], ids=["full", "mini"])
@pytest.mark.parametrize("method", LINEAR, ids=lambda m: type(m).__name__)
def test_the_closed_form_is_what_the_tape_records(
    method: LinearBackbone, full: bool
) -> None:
    local, samples = local_of(method, WORLD)
    batch = batch_of(samples, full)

    loss, grads = method.backward(local, batch, everyone(WORLD), ROUND)
    expected_loss, expected = by_tape(method, local, batch)

    torch.testing.assert_close(loss, expected_loss)
    torch.testing.assert_close(
        dense_rows(grads.rows["items"]), dense_rows(expected.rows["items"])
    )
    found, other = grads.layers["head"], expected.layers["head"]
    torch.testing.assert_close(found.input, other.input)
    torch.testing.assert_close(found.delta, other.delta)


def test_a_step_uses_the_rows_that_made_the_gradient() -> None:
    """A full batch's layer input is the very table that the step changes."""
    method = FedAvg(width=8)
    local, samples = local_of(method, WORLD)
    batch = samples.full()
    before = Local(
        {n: v.clone() for n, v in local.rows.items()},
        {n: v.clone() for n, v in local.dense.items()},
    )

    _, grads = method.backward(local, batch, everyone(WORLD), ROUND)
    step(local, batch, grads, {"items": 0.5, "head": 0.25})

    x, w = before.rows["items"], before.dense["head.weight"]
    error = batch.share * (
        torch.sigmoid((x * w).sum(2) + before.dense["head.bias"]) - batch.target
    )
    torch.testing.assert_close(local.rows["items"], x - 0.5 * error[..., None] * w)
    torch.testing.assert_close(
        local.dense["head.weight"][:, 0],
        w[:, 0] - 0.25 * (error[..., None] * x).sum(1),
    )
    torch.testing.assert_close(
        local.dense["head.bias"][:, 0],
        before.dense["head.bias"][:, 0] - 0.25 * error.sum(1),
    )


def test_a_step_leaves_what_has_no_rate() -> None:
    method = FedAvg(width=8)
    local, samples = local_of(method, WORLD)
    before = local.rows["items"].clone()
    _, grads = method.backward(local, samples.full(), everyone(WORLD), ROUND)

    step(local, samples.full(), grads, {"head": 0.1})

    assert torch.equal(local.rows["items"], before)


def test_rows_used_twice_in_a_batch_step_twice() -> None:
    table = torch.zeros(1, 3, 2)
    slot = torch.tensor([[2, 0, 2]])
    ones = torch.ones(1, 3)
    batch = Batch(slot, ones, ones, ones[:, :1], slot)
    coef = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [10.0, 20.0]]])

    step(Local({"t": table}, {}), batch, Grads({"t": RowGrad(coef)}), {"t": 1.0})

    assert table.tolist() == [[[-3.0, -4.0], [0.0, 0.0], [-11.0, -22.0]]]


def test_factored_rows_step_as_written_out() -> None:
    rng = Generator().manual_seed(0)
    coef, basis = (
        torch.randn(2, 5, 3, generator=rng),
        torch.randn(2, 3, 4, generator=rng),
    )
    slot = torch.tensor([[0, 1, 1, 2, 0], [2, 2, 2, 0, 1]])
    ones = torch.ones(2, 5)
    for batch in (
        Batch(slot, ones, ones, ones[:, :1], slot),
        Batch(None, ones, ones, ones[:, :1], slot),
    ):
        factored, plain = torch.zeros(2, 5, 4), torch.zeros(2, 5, 4)
        step(
            Local({"t": factored}, {}),
            batch,
            Grads({"t": RowGrad(coef, basis)}),
            {"t": 0.3},
        )
        step(
            Local({"t": plain}, {}),
            batch,
            Grads({"t": RowGrad(coef @ basis)}),
            {"t": 0.3},
        )
        torch.testing.assert_close(factored, plain)


def test_the_tape_differentiates_layers_vectors_and_rows_as_autograd_does() -> None:
    rng = Generator().manual_seed(1)
    local = Local(
        {"t": torch.randn(2, 3, 4, generator=rng)},
        {
            "l.weight": torch.randn(2, 5, 4, generator=rng),
            "l.bias": torch.randn(2, 5, generator=rng),
            "v": torch.randn(2, 5, generator=rng),
        },
    )
    slot = torch.tensor([[0, 2, 2], [1, 1, 0]])
    ones = torch.ones(2, 3)
    batch = Batch(slot, ones, ones, ones[:, :1], slot)

    tape = Tape(local, batch)
    out = torch.tanh(tape.linear("l", tape.rows("t"))) * tape.vector("v")
    grads = tape.gradients(out.square().sum((1, 2)))

    leaves = {
        n: v.clone().requires_grad_() for n, v in (local.rows | local.dense).items()
    }
    whole = torch.zeros(())
    for c in range(2):
        x = leaves["t"][c][slot[c]]
        y = (
            torch.tanh(x @ leaves["l.weight"][c].T + leaves["l.bias"][c])
            * leaves["v"][c]
        )
        whole = whole + y.square().sum()
    expected = dict(
        zip(leaves, torch.autograd.grad(whole, list(leaves.values())), strict=True)
    )

    after = Local(
        {n: v.clone() for n, v in local.rows.items()},
        {n: v.clone() for n, v in local.dense.items()},
    )
    step(after, batch, grads, {"t": 1.0, "l": 1.0, "v": 1.0})
    for name, value in (local.rows | local.dense).items():
        moved = value - (after.rows | after.dense)[name]
        torch.testing.assert_close(moved, expected[name], rtol=1e-4, atol=1e-5)


def test_a_table_read_by_a_layer_gets_its_gradient_through_the_weight() -> None:
    rng = Generator().manual_seed(2)
    local = Local(
        {"t": torch.randn(1, 3, 4, generator=rng)},
        {
            "l.weight": torch.randn(1, 2, 4, generator=rng),
            "l.bias": torch.zeros(1, 2),
        },
    )
    ones = torch.ones(1, 3)
    batch = Batch(None, ones, ones, ones[:, :1], torch.arange(3)[None])

    reading, plain = Tape(local, batch), Tape(local, batch)
    loss = reading.linear("l", batch.rows(local.rows["t"]), ("t",)).square().sum((1, 2))
    factored = reading.gradients(loss).rows["t"]
    loss = plain.linear("l", plain.rows("t")).square().sum((1, 2))

    assert factored.basis is not None
    torch.testing.assert_close(
        dense_rows(factored), dense_rows(plain.gradients(loss).rows["t"])
    )


def test_a_table_that_the_loss_leaves_out_has_gradient_zero() -> None:
    local = Local({"t": torch.ones(1, 2, 3), "u": torch.ones(1, 2, 3)}, {})
    ones = torch.ones(1, 2)
    tape = Tape(local, Batch(None, ones, ones, ones[:, :1], torch.zeros(1, 2).long()))
    tape.rows("u")

    grads = tape.gradients(tape.rows("t").sum((1, 2)))

    assert not grads.rows["u"].coef.any()
    assert grads.rows["t"].coef.all()


@pytest.mark.parametrize("outputs", [1, 3])
def test_affine_is_each_clients_own_linear_layer(outputs: int) -> None:
    rng = Generator().manual_seed(3)
    x = torch.randn(4, 6, 5, generator=rng)
    weight, bias = (torch.randn(4, outputs, *s, generator=rng) for s in ((5,), ()))

    expected = [torch.nn.functional.linear(x[c], weight[c], bias[c]) for c in range(4)]
    torch.testing.assert_close(affine(x, weight, bias), torch.stack(expected))


def test_layer_gradients_are_sums_over_samples() -> None:
    x, delta = torch.rand(1, 3, 2), torch.rand(1, 3, 4)
    local = Local({}, {"l.weight": torch.zeros(1, 4, 2), "l.bias": torch.zeros(1, 4)})
    ones = torch.ones(1, 3)
    batch = Batch(None, ones, ones, ones[:, :1], torch.zeros(1, 3).long())

    step(local, batch, Grads({}, {"l": LayerGrad(x, delta)}), {"l": 2.0})

    summed = sum((delta[0, s, :, None] * x[0, s] for s in range(3)), torch.zeros(4, 2))
    torch.testing.assert_close(local.dense["l.weight"][0], -2 * summed)
    torch.testing.assert_close(local.dense["l.bias"][0], -2 * delta[0].sum(0))
