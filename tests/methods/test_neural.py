"""Neural recommenders: their sizes, their scores, and local training of a shard."""

from dataclasses import replace
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from privfed.data.cohort import cohort_of
from privfed.data.world import Shape, World
from privfed.devices.batches import collect
from privfed.devices.negatives import Negatives
from privfed.interfaces import State
from privfed.methods.neural.network import Fitted, LocalRule, Neural, fit
from privfed.seeds import Seeds
from tests.methods.neumf import Twin, drawn, trained
from tests.worlds import uneven

Kind = Literal["gmf", "mlp", "neumf"]
SEEDS = Seeds(3)
NEGATIVES, SHUFFLE = SEEDS("negatives"), SEEDS("shuffle")
SMALL = Neural("neumf", width=8, layers=(16, 8, 4), std=0.3)
RULES = {
    "adamw": LocalRule(learning_rate=0.01, decay=0.3, clip=0.05, batch=16),
    "adam": LocalRule("adam", learning_rate=0.01, decay=0.0, clip=None, batch=20),
    "sgd": LocalRule("sgd", learning_rate=0.5, decay=0.0, clip=0.5, batch=16),
    "sgd, decay": LocalRule("sgd", 0.5, decay=0.1, clip=None, epochs=2, batch=7),
}


def start_of(neural: Neural, of: World, dtype: torch.dtype = torch.float64) -> State:
    model = neural.init(of.shape, SEEDS("init"))
    return {name: value.to(dtype) for name, value in model.items()}


def own(model: State, clients: Tensor) -> State:
    """Each client's rows and layers, all starting alike."""
    return {
        n: v[clients] if n.startswith("users_") else v.expand(len(clients), *v.shape)
        for n, v in model.items()
        if not n.startswith("items_")
    }


def fitted(
    neural: Neural,
    of: World,
    model: State,
    clients: Tensor,
    rule: LocalRule,
    pull: tuple[float, State] | None = None,
) -> Fitted:
    samples = collect(cohort_of(of, clients), Negatives(4), NEGATIVES)
    items = {n: v for n, v in model.items() if n.startswith("items_")}
    start = own(model, clients)
    return fit(neural, items, start, samples, rule, SHUFFLE, pull)


def whole(found: Fitted, model: State, clients: Tensor, at: int) -> State:
    """All weights of one client after training, as its own copy would have them."""
    out = {n: v[at] for n, v in found.dense.items()}
    for name, value in found.users.items():
        out[name] = found.rest[at] * model[name]
        out[name][clients[at]] = value[at]
    for name, rows in found.rows.items():
        out[name] = found.rest[at] * model[name]
        mine = rows.sender == at
        out[name][rows.item[mine]] += rows.value[mine]
    return out


@pytest.mark.parametrize("kind", ["gmf", "mlp", "neumf"])
@pytest.mark.parametrize("rule", RULES)
def test_a_shard_trains_as_one_client_after_the_other_would(
    kind: Kind, rule: str
) -> None:
    of, neural = uneven(), replace(SMALL, kind=kind)
    model, how = start_of(neural, of), RULES[rule]
    clients = torch.arange(of.shape.clients)

    found = fitted(neural, of, model, clients, how)

    twin = Twin(neural, of.shape.clients, of.shape.items).load(model)
    for client in clients.tolist():
        batches = drawn(of, client, how, NEGATIVES, SHUFFLE)
        expected, loss = trained(twin, client, batches, how)
        mine = whole(found, model, clients, client)
        for name, value in expected.state().items():
            torch.testing.assert_close(mine[name], value, rtol=0, atol=1e-12)
        assert found.loss[client].item() == pytest.approx(loss, abs=1e-12)


def test_a_pull_leads_back_to_its_reference() -> None:
    of, neural, rule = uneven((9, 4)), SMALL, RULES["adamw"]
    model = start_of(neural, of)
    other = {n: v + 0.3 for n, v in model.items()}
    clients = torch.arange(2)

    found = fitted(neural, of, model, clients, rule, (0.7, own(other, clients)))

    twin, aim = (Twin(neural, 2, of.shape.items).load(m) for m in (model, other))
    for client in range(2):
        batches = drawn(of, client, rule, NEGATIVES, SHUFFLE)
        expected, _ = trained(twin, client, batches, rule, (0.7, aim))
        mine = whole(found, model, clients, client)
        for name, value in expected.state().items():
            torch.testing.assert_close(mine[name], value, rtol=0, atol=1e-12)


def test_clients_start_from_their_own_layers() -> None:
    """Two clients with the same data and other layers are trained apart."""
    of, rule = uneven((9, 4, 12)), RULES["adamw"]
    model = start_of(SMALL, of)
    clients = torch.tensor([0, 2])
    samples = collect(cohort_of(of, clients), Negatives(4), NEGATIVES)
    items = {n: v for n, v in model.items() if n.startswith("items_")}
    start = own(model, clients)
    moved = {n: torch.stack([v[0], v[1] + 0.1]) for n, v in start.items()}

    base = fit(SMALL, items, start, samples, rule, SHUFFLE)
    found = fit(SMALL, items, moved, samples, rule, SHUFFLE)

    for name, value in base.dense.items():
        assert torch.equal(found.dense[name][0], value[0])
        assert not torch.equal(found.dense[name][1], value[1])


@pytest.mark.parametrize("rule", RULES)
def test_company_changes_no_bit_of_a_clients_result(rule: str) -> None:
    """Whoever shares the shard, and whatever their sizes."""
    of = uneven((3, 0, 9, 17, 1, 5, 12, 30, 9, 10, 17))
    neural, how = Neural(std=0.3), replace(RULES[rule], batch=16)
    model = start_of(neural, of, torch.float32)
    everyone = torch.arange(of.shape.clients)
    together = fitted(neural, of, model, everyone, how)

    for part in (*torch.split(everyone, 1), torch.tensor([2, 3, 7])):
        found = fitted(neural, of, model, part, how)
        for at, client in enumerate(part.tolist()):
            alone = whole(found, model, part, at)
            beside = whole(together, model, everyone, client)
            for name, value in alone.items():
                assert torch.equal(value, beside[name]), (name, client)
            assert torch.equal(found.loss[at], together.loss[client])


def test_nothing_given_is_changed() -> None:
    of, rule = uneven((9, 4)), RULES["adamw"]
    model = start_of(SMALL, of)
    before = {n: v.clone() for n, v in model.items()}

    fitted(SMALL, of, model, torch.arange(2), rule)

    assert all(torch.equal(v, before[n]) for n, v in model.items())


def test_a_client_without_data_stays_as_it_was() -> None:
    of = uneven((0, 0))
    model = start_of(SMALL, of)
    found = fitted(SMALL, of, model, torch.arange(2), RULES["adamw"])

    assert found.rest.tolist() == [1.0, 1.0]
    assert found.loss.tolist() == [0.0, 0.0]
    assert all(len(rows.item) == 0 for rows in found.rows.values())
    for name, value in found.users.items():
        assert torch.equal(value, model[name])


def test_rows_are_those_a_client_drew_once_each_in_order() -> None:
    of = uneven()
    model = start_of(SMALL, of)
    clients = torch.arange(of.shape.clients)
    found = fitted(SMALL, of, model, clients, RULES["sgd"])
    samples = collect(cohort_of(of, clients), Negatives(4), NEGATIVES)
    sender, at = samples.rows.nonzero(as_tuple=True)

    for rows in found.rows.values():
        assert torch.equal(rows.sender, sender)
        assert torch.equal(rows.item, samples.item[sender, at])


@pytest.mark.parametrize(
    ("shape", "numbers"),
    [(Shape(6040, 3706), 470_577), (Shape(55_187, 9_916), 3_127_713)],
    ids=["ml-1m", "pinterest"],
)
def test_parameters_are_as_many_as_published(shape: Shape, numbers: int) -> None:
    model = Neural().init(shape, SEEDS("init"))

    assert sum(value.numel() for value in model.values()) == numbers


def test_weights_start_as_pytorchs_do() -> None:
    shape = Shape(900, 700)
    model = Neural(std=0.5).init(shape, SEEDS("init"))
    twin = {n: v.shape for n, v in Twin(Neural(), 900, 700).state().items()}

    assert {n: v.shape for n, v in model.items()} == twin
    for name in ("users_mf", "users_mlp", "items_mf", "items_mlp"):
        assert model[name].std().item() == pytest.approx(0.5, rel=0.03)
        assert model[name].mean().item() == pytest.approx(0, abs=0.02)
    bound = 1 / 64**0.5  # uniform: the standard deviation is bound / sqrt(3)
    weight = model["mlp0.weight"]
    assert weight.abs().max().item() <= bound
    assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)


@pytest.mark.parametrize("kind", ["gmf", "mlp", "neumf"])
@pytest.mark.parametrize("apart", [False, True], ids=["shared", "own layers"])
def test_scores_are_the_models_logits(kind: Kind, apart: bool) -> None:
    neural = replace(SMALL, kind=kind)
    model = neural.init(Shape(5, 1100), SEEDS("init"))
    clients = torch.tensor([4, 1])
    users = {n: v[clients] for n, v in model.items() if n.startswith("users_")}
    given_model = dict(model)
    if apart:
        given_model |= {
            n: torch.stack([v, v + 0.1]) for n, v in model.items() if "." in n
        }

    found = neural.scores(given_model, users)

    assert found.shape == (2, 1100)
    items = torch.arange(1100)
    for at, client in enumerate(clients.tolist()):
        mine = {n: v[at] if apart and "." in n else v for n, v in given_model.items()}
        logit = Twin(neural, 5, 1100).load(mine)(torch.full((1100,), client), items)
        torch.testing.assert_close(found[at].double(), logit, rtol=1e-5, atol=1e-6)


@given(
    counts=st.lists(st.integers(0, 12), min_size=1, max_size=5),
    batch=st.integers(1, 40),
    epochs=st.integers(1, 3),
)
@settings(max_examples=15, deadline=None)
def test_every_number_of_batches_is_the_twins(
    counts: list[int], batch: int, epochs: int
) -> None:
    of, rule = uneven(counts, 20), replace(RULES["adamw"], batch=batch, epochs=epochs)
    model = start_of(SMALL, of)
    clients = torch.arange(len(counts))
    found = fitted(SMALL, of, model, clients, rule)

    twin = Twin(SMALL, len(counts), 20).load(model)
    client = int(torch.tensor(counts).argmax())
    batches = drawn(of, client, rule, NEGATIVES, SHUFFLE)
    expected, _ = trained(twin, client, batches, rule)
    mine = whole(found, model, clients, client)
    for name, value in expected.state().items():
        torch.testing.assert_close(mine[name], value, rtol=0, atol=1e-11)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"width": 0}, "width"),
        ({"layers": (8,)}, "layers"),
        ({"layers": (7, 4)}, "layers"),
        ({"layers": (8, 0)}, "layers"),
        ({"std": 0.0}, "std"),
    ],
)
def test_an_unusable_size_is_named(changes: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Neural(**changes)  # type: ignore[arg-type]
