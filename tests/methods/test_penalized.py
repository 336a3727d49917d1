"""Penalties in local training: one client at a time by autograd, and any shard."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from privfed.catalog import entries
from privfed.choices import choose
from privfed.data.cohort import cohort_of
from privfed.defenses.imia_regularizer import Anchor
from privfed.defenses.regula import Pull
from privfed.devices.batches import collect
from privfed.devices.penalty import Penalty
from privfed.interfaces import Method, Penalized, Round, State
from privfed.methods.bpr import BPR
from privfed.methods.fcf import FCF
from privfed.methods.fedavg import FedAvg
from privfed.methods.fedmr import FedMR
from privfed.methods.fedncf import FedNCF
from privfed.methods.fedrap import FedRAP
from privfed.methods.local_sgd import LocalSGD
from privfed.methods.mf_frs import MFFRS
from privfed.methods.penalized import readers
from privfed.methods.pfedrec import PFedRec
from tests.defenses.test_regula import released
from tests.methods import twin
from tests.methods.factored import MANY, round_of, shaken
from tests.methods.test_bpr import drawn as drawn_pairs
from tests.worlds import shards, uneven

WORLD = uneven((3, 0, 9, 17, 1))
POPULAR = torch.tensor([8, 40, 7, 0])
METHODS: list[LocalSGD] = [
    one(width=8, epochs=2, learning_rate=0.05, item_rate=0.7)
    for one in (FedAvg, FCF, FedNCF, PFedRec, FedRAP)
]
METHODS += [
    replace(METHODS[2], batch=24),
    FedMR(width=8, id_width=8, epochs=2, learning_rate=0.05, backbone="pfedrec"),
]


def terms(model: State, mu: float = 0.3) -> list[Penalty]:
    tables = {n: v for n, v in model.items() if v.dim() == 2 and len(v) == 60}
    pop = {n: v[POPULAR] for n, v in tables.items()}
    return [Anchor(mu), Pull(POPULAR, pop, 0.7, 1.3)]


def pulled(
    method: LocalSGD, p: twin.Params, start: State, samples: Tensor
) -> dict[str, Tensor]:
    """The gradient of Regula's terms for one client, summed over tables."""
    found: dict[str, Tensor] = {}
    own = readers(method.parts(WORLD.shape))
    unpop = samples[~torch.isin(samples, POPULAR)]
    for table in (n for n in start if n in p and start[n].shape[0] == 60):
        reader = own.get(table, "")
        name = reader if reader in p else f"{reader}.weight"
        user = p[name].flatten() if name in p else torch.zeros(8).double()
        value = released(
            start[table][POPULAR].double(),
            p[table],
            user,
            unpop,
            (0.7, 1.3 if name in p else 0.0),
        )
        names = [n for n in (table, name) if n in p]
        grads = torch.autograd.grad(
            value, [p[n] for n in names], materialize_grads=True
        )
        for n, grad in zip(names, grads, strict=True):
            found[n] = found.get(n, torch.zeros_like(grad)) + grad
    return found


def by_hand(
    method: LocalSGD, model: State, private: State, client: int, round: Round, mu: float
) -> twin.Params:
    """Local training of one client, with both penalties."""
    cohort = cohort_of(WORLD, torch.tensor([client]))
    p = twin.params_of(model, private, client)
    drawn = collect(cohort, method.sampling(), round.stream.of("negatives"))
    samples = drawn.item[0][drawn.slot[0][drawn.real[0]].flatten()]
    turns = [list(p)]
    if isinstance(twin.core(method), PFedRec):
        head = [name for name in p if name.startswith("head")]
        turns = [head, [name for name in p if name not in head]]

    def rate(name: str) -> float:
        return twin.rate(method, name, 60, round.number)

    for batch in twin.drawn(method, cohort, round):
        pull = pulled(method, p, model, samples)
        for turn in turns:
            value = twin.loss(method, p, WORLD, batch, round.number)
            grads = torch.autograd.grad(value, list(p.values()), materialize_grads=True)
            for name, grad in zip(list(p), grads, strict=True):
                if name in turn:
                    p[name] = (p[name] - rate(name) * grad).detach().requires_grad_()
        for name, grad in pull.items():
            p[name] = (p[name] - rate(name) * grad).detach().requires_grad_()
        for name in (n for n in model if n in p and model[n].shape[0] == 60):
            start = model[name].double()
            moved = (p[name] - start) / (1 + 2 * mu * rate(name))
            p[name] = (start + moved).detach().requires_grad_()
    return p


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_a_client_ends_where_its_twin_does(method: LocalSGD) -> None:
    model, private = shaken(method, WORLD)
    round = replace(round_of(2), penalties=terms(model))
    for client in (0, 2, 3, 4):
        cohort = cohort_of(WORLD, torch.tensor([client]))
        trained = method.train(model, private, cohort, round)
        plain = method.train(model, private, cohort, round_of(2))

        p = by_hand(method, model, private, client, round, 0.3)

        for name, rows in trained.uploads.rows.items():
            expected = (p[name] - model[name].double()).detach()
            torch.testing.assert_close(
                rows.value.double(), expected[rows.item], rtol=2e-3, atol=2e-5
            )
            assert not torch.equal(rows.value, plain.uploads.rows[name].value)
        for name, value in trained.private.items():
            torch.testing.assert_close(
                value[0].double(), p[name].detach(), rtol=2e-3, atol=2e-5
            )


@pytest.mark.parametrize("method", [*METHODS, BPR(width=8)], ids=repr)
def test_shards_do_not_change_a_bit(method: LocalSGD | BPR) -> None:
    of = uneven(MANY)
    if isinstance(method, FedNCF):
        method = replace(method, width=16)  # inner widths in fours
    model, private = shaken(method, of)
    penalties = terms(model)[1:] if isinstance(method, BPR) else terms(model)
    round = replace(round_of(2), penalties=penalties)

    def changes(size: int) -> dict[int, list[Tensor]]:
        found = {}
        for cohort in shards(of, size):
            trained = method.train(model, private, cohort, round)
            for k, client in enumerate(cohort.clients.tolist()):
                rows = trained.uploads.rows.values()
                found[client] = [r.value[r.sender == k] for r in rows]
                found[client] += [v[k] for v in trained.private.values()]
        return found

    whole = changes(100)
    for size in (1, 3):
        for client, values in changes(size).items():
            for one, other in zip(values, whole[client], strict=True):
                assert torch.equal(one, other)


def test_bpr_equals_its_twin() -> None:
    method = BPR(width=8, learning_rate=0.2, clip=0.6, negatives=2)
    model, private = shaken(method, WORLD)
    penalty = terms(model)[1]
    round = replace(round_of(2), penalties=[penalty])
    for client in (0, 2, 3, 4):
        cohort = cohort_of(WORLD, torch.tensor([client]))
        u = private["users"][client].double().requires_grad_()
        v = model["items"].double().requires_grad_()
        items = drawn_pairs(method, WORLD, client, round)
        margin = (v[items[:, :1]] - v[items[:, 1:]]) @ u
        rows = torch.unique(items)
        loss = -torch.nn.functional.logsigmoid(margin).sum()
        loss = loss + 0.05 * (u.square().sum() + v[rows].square().sum())
        samples = items.flatten()
        unpop = samples[~torch.isin(samples, POPULAR)]
        pop = model["items"][POPULAR].double()
        loss = loss + released(pop, v, u, unpop, (0.7, 1.3))
        by_user, by_row = torch.autograd.grad(loss, [u, v])

        trained = method.train(model, private, cohort, round)

        short = by_row * (0.6 / by_row.norm(dim=1, keepdim=True)).clamp_max(1.0)
        found = trained.uploads.rows["items"]
        torch.testing.assert_close(
            found.value.double(), -0.2 * short[found.item], rtol=1e-4, atol=1e-6
        )
        torch.testing.assert_close(
            trained.private["users"][0].double(),
            (u - 0.2 * by_user).detach(),
            rtol=1e-4,
            atol=1e-6,
        )


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (FCF(width=8), {"items": "head"}),
        (FedRAP(width=8), {"items": "head"}),
        (FedNCF(width=8), {"items_mf": "user_mf", "items_mlp": "user_mlp"}),
        (FedMR(width=8, id_width=8), {}),
    ],
    ids=repr,
)
def test_a_table_is_read_by_what_scores_its_very_rows(
    method: LocalSGD, expected: dict[str, str]
) -> None:
    assert readers(method.parts(uneven().shape)) == expected


def test_nothing_is_changed_that_was_given() -> None:
    method = METHODS[0]
    model, private = shaken(method, WORLD)
    before = {n: v.clone() for n, v in {**model, **private}.items()}

    cohort = cohort_of(WORLD, torch.tensor([3]))
    method.train(model, private, cohort, replace(round_of(2), penalties=terms(model)))

    for name, value in {**model, **private}.items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("name", entries("method"))
def test_those_that_take_penalties_read_them(name: str) -> None:
    """Who says that it takes further terms is one of the three with the hook."""
    part: Method = choose("method", name).part
    assert isinstance(part, Penalized) == isinstance(part, LocalSGD | BPR | MFFRS)
