"""A-ra and A-hum: the gradient of made-up users, by hand and by behavior."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy, softplus

from privfed.interfaces import Method, State
from privfed.messages import Uploads
from privfed.methods.bpr import BPR
from privfed.methods.dl_frs import DLFRS
from privfed.methods.fcf_original import FCFOriginal
from privfed.methods.fedavg import FedAvg
from privfed.methods.fedncf import FedNCF
from privfed.methods.fedrap import FedRAP
from privfed.methods.pfedrec import PFedRec
from privfed.poisoners.crafting.pull import made_up
from privfed.poisoners.crafting.scorer import scorer
from privfed.poisoners.targeted.synthetic import AHum, ARa, Synthetic
from privfed.poisoning import Plot
from privfed.seeds import Stream
from tests.methods.factored import shaken
from tests.poisoners.plots import ordinary, plot, sortie
from tests.worlds import world

METHODS = [
    DLFRS(learning_rate=0.1),
    BPR(width=8, regularization=0.0),
    FedNCF(width=8),
    FedAvg(width=8),
    PFedRec(width=8, item_rate=0.01),
    FedRAP(width=8),
]
ATTACKS = [ARa(users=3, start_size=0.5), AHum(users=3, start_size=0.5, hard_steps=4)]
SMALL_STEP = 0.02


def told(of: object) -> str:
    return type(of).__name__


def start(method: Method, of: Plot) -> tuple[State, State]:
    return shaken(method, world([[]] * of.clients, of.items))


def sent(attack: Synthetic, of: Plot, clients: Tensor) -> tuple[Uploads, State]:
    model, private = start(of.method, of)
    usual = ordinary(attack, of, model, private, clients)
    return attack.forge({}, sortie(model, usual), of)[1], model


def table_of(uploads: Uploads, name: str, items: int) -> Tensor:
    """(clients, items, width), zero where nothing was sent."""
    rows = uploads.rows[name]
    out = torch.zeros(len(uploads.clients), items, rows.value.shape[1])
    out[rows.sender, rows.item] = rows.value
    return out


def mlp(model: State, user: Tensor, rows: Tensor) -> Tensor:
    """Chances of one user, (items,), by DL-FRS's network."""
    x = torch.cat([user.expand(len(rows), -1), rows], 1)
    for layer in ("mlp0", "mlp1"):
        x = (x @ model[f"{layer}.weight"].T + model[f"{layer}.bias"]).relu()
    return (x @ model["out.weight"].T + model["out.bias"]).sigmoid()[:, 0]


def users_of(attack: Synthetic, client: int, width: int, seed: int) -> Tensor:
    """A client's draws of the round, as the attack's stream gives them."""
    drawn = torch.empty(attack.users, width)
    stream = Stream(seed).of("users").of("user")
    stream.normal(torch.tensor([client]), [drawn])
    return drawn * attack.start_size


@pytest.mark.parametrize("targets", [(4,), (4, 11)])
@pytest.mark.parametrize("attack", ATTACKS, ids=told)
def test_an_upload_is_the_published_gradient(
    attack: Synthetic, targets: tuple[int, ...]
) -> None:
    """A loop over clients and users, by autograd, as the released code has it."""
    method = DLFRS(learning_rate=0.1)
    of, rate = plot(method, targets=targets), method.learning_rate
    clients = torch.tensor([5, 7])

    uploads, model = sent(attack, of, clients)

    for k, client in enumerate(clients.tolist()):
        p = {n: v.clone().requires_grad_() for n, v in model.items()}
        total = torch.zeros(())
        for drawn in users_of(attack, client, 8, 9):
            user = drawn
            for _ in range(getattr(attack, "hard_steps", 0)):
                user = user.detach().requires_grad_()
                chance = mlp(model, user, model["items"][list(targets)])
                loss = binary_cross_entropy(chance, torch.zeros_like(chance))
                (slope,) = torch.autograd.grad(loss, user)
                user = user - rate * slope
            chance = mlp(p, user.detach(), p["items"][list(targets)])
            total = total + binary_cross_entropy(chance, torch.ones_like(chance))
        found = torch.autograd.grad(total / attack.users, list(p.values()))
        for (name, _), slope in zip(p.items(), found, strict=True):
            value = (
                table_of(uploads, name, of.items)[k]
                if name == "items"
                else uploads.dense[name][k]
            )
            torch.testing.assert_close(value, -rate * slope, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("attack", ATTACKS, ids=told)
@pytest.mark.parametrize("method", METHODS, ids=told)
def test_only_the_targets_rows_and_the_layers_are_sent(
    method: Method, attack: Synthetic
) -> None:
    of = plot(method, targets=(4, 11))
    model, private = start(method, of)
    usual = ordinary(attack, of, model, private, of.mine)

    memory, forged = attack.forge({}, sortie(model, usual), of)

    assert memory == {}
    assert torch.equal(forged.clients, usual.clients)
    assert forged.rows.keys() == usual.rows.keys()
    for rows in forged.rows.values():
        assert rows.sender.tolist() == [0, 0, 1, 1, 2, 2]
        assert rows.item.tolist() == [4, 11] * 3
        assert rows.value.any(1).all()
    for name, value in usual.dense.items():
        assert forged.dense[name].shape == value.shape


@pytest.mark.parametrize("attack", ATTACKS, ids=told)
@pytest.mark.parametrize("method", METHODS, ids=told)
def test_users_like_the_target_better_once_it_is_learned(
    method: Method, attack: Synthetic
) -> None:
    """The users that a client drew, after all uploads of its round are added."""
    of = plot(method, malicious=8)
    model, private = start(method, of)
    usual = ordinary(attack, of, model, private, of.mine)
    _, forged = attack.forge({}, sortie(model, usual), of)

    moved = dict(model)
    for name in forged.rows:
        moved[name] = model[name] + SMALL_STEP * table_of(forged, name, of.items).sum(0)
    for name, value in forged.dense.items():
        moved[name] = model[name] + SMALL_STEP * value.sum(0)

    before, after = (loss(attack, m, private, of) for m in (model, moved))
    assert after < before


def loss(attack: Synthetic, model: State, private: State, of: Plot) -> float:
    """Cross-entropy of the users that the attack draws, for item 4."""
    reads, count = scorer(of.method, of.shape), attack.users * len(of.mine)
    drawn = Stream(9).of("users")
    users = made_up(reads, of.mine, attack.users, attack.start_size, drawn)
    tables = {n: private[n][:1].expand(count, -1, -1) for n in reads.own.keys() - users}
    item = torch.full((count, 1), 4)
    own = reads.samples(model, {**users, **tables}, item)
    logit = reads.predict(reads.rows(model, item), model, own)
    return float(softplus(-logit).mean())


@pytest.mark.parametrize("attack", ATTACKS, ids=told)
def test_a_client_sends_the_same_whoever_else_takes_part(attack: Synthetic) -> None:
    of = plot(DLFRS(), malicious=4)

    alone, _ = sent(attack, of, torch.tensor([7]))
    together, _ = sent(attack, of, of.mine)

    at = together.rows["items"].sender == 2
    torch.testing.assert_close(
        alone.rows["items"].value, together.rows["items"].value[at]
    )
    assert len({tuple(row) for row in together.rows["items"].value.tolist()}) == 4


def test_hard_users_pull_harder_than_random_ones() -> None:
    of = plot(DLFRS(learning_rate=1.0))
    one, other = ARa(start_size=0.5), AHum(start_size=0.5)

    random, _ = sent(one, of, of.mine)
    hard, _ = sent(other, of, of.mine)

    assert hard.dense["out.bias"].mean() > random.dense["out.bias"].mean()


def test_a_boosted_upload_is_that_many_times_larger() -> None:
    of = plot(DLFRS())

    plain, _ = sent(ARa(), of, of.mine)
    boosted, _ = sent(ARa(boost=3.0), of, of.mine)

    value = plain.rows["items"].value
    torch.testing.assert_close(boosted.rows["items"].value, 3 * value)
    for name, value in plain.dense.items():
        torch.testing.assert_close(boosted.dense[name], 3 * value)


def test_a_method_that_cannot_be_scored_is_refused() -> None:
    assert "how it scores" in ARa().misfit(FCFOriginal())
    assert ARa().misfit(DLFRS()) == ""


def test_devices_hold_the_targets_alone() -> None:
    pairs = replace(ARa()).data(plot(DLFRS(), targets=(4, 9)))

    assert pairs.item.tolist() == [4, 9] * 3
    assert pairs.sender.tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(
    ("attack", "setting"),
    [(ARa, "users"), (ARa, "start_size"), (AHum, "boost"), (AHum, "hard_steps")],
)
def test_an_unusable_setting_is_named(attack: type[Synthetic], setting: str) -> None:
    given: dict[str, Any] = {setting: 0}
    with pytest.raises(ValueError, match=setting):
        attack(**given)
