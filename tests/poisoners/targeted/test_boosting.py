"""Explicit boosting: users of one's own, who learn to want the targets."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from privfed.interfaces import Method, State
from privfed.methods.bpr import BPR
from privfed.methods.dl_frs import DLFRS
from privfed.methods.fcf_original import FCFOriginal
from privfed.methods.fedncf import FedNCF
from privfed.methods.fedrap import FedRAP
from privfed.poisoners.targeted.boosting import ExplicitBoosting
from privfed.poisoning import Plot
from tests.methods.factored import shaken
from tests.poisoners.plots import ordinary, plot, sortie
from tests.worlds import world

RATE = 0.2


def start(method: Method, of: Plot) -> tuple[State, State]:
    return shaken(method, world([[]] * of.clients, of.items))


def rounds(
    attack: ExplicitBoosting, of: Plot, clients: list[Tensor]
) -> tuple[list[Any], State]:
    """What each round's clients send, of a model that stays as it is."""
    model, private = start(of.method, of)
    memory, sent = attack.start(of), []
    for here in clients:
        usual = ordinary(attack, of, model, private, here)
        memory, uploads = attack.forge(memory, sortie(model, usual), of)
        sent.append(uploads)
    return sent, {**model, **memory}


def test_rounds_are_as_the_port_has_them_on_inner_products() -> None:
    """A loop: u and v_t by the cross-entropy of <u, v_t>; u learns, v_t is sent."""
    of = plot(BPR(width=8, learning_rate=RATE), targets=(4, 9))
    attack = ExplicitBoosting(boost=2.0)
    first = attack.start(of)["own.users"]
    both, one = of.mine[:2], of.mine[1:2]

    sent, state = rounds(attack, of, [both, one])

    users, v = first.clone(), state["items"][[4, 9]]
    for uploads, here in zip(sent, [[0, 1], [1]], strict=True):
        value = uploads.rows["items"].value.view(len(here), 2, 8)
        for k, client in enumerate(here):
            u, t = users[client].clone().requires_grad_(), v.clone().requires_grad_()
            loss = binary_cross_entropy_with_logits(t @ u, torch.ones(2))
            du, dv = torch.autograd.grad(loss, [u, t])
            torch.testing.assert_close(value[k], -2.0 * RATE * dv)
            users[client] -= RATE * du
    torch.testing.assert_close(state["own.users"], users)
    assert torch.equal(users[2], first[2])


@pytest.mark.parametrize("method", [DLFRS(), FedNCF(width=8), FedRAP(width=8)])
def test_only_the_targets_rows_and_the_layers_are_sent(method: Method) -> None:
    of = plot(method)

    (uploads,), _ = rounds(ExplicitBoosting(), of, [of.mine])

    for rows in uploads.rows.values():
        assert rows.item.tolist() == [4, 4, 4]
        assert rows.value.any()
    assert all(value.any() for value in uploads.dense.values())


def test_every_client_has_a_user_of_its_own_whoever_else_there_is() -> None:
    few, many = (plot(BPR(width=8), malicious=n) for n in (2, 5))
    attack = ExplicitBoosting()

    users = attack.start(many)["own.users"]

    assert torch.equal(attack.start(few)["own.users"], users[:2])
    assert len({tuple(row) for row in users.tolist()}) == 5


def test_users_start_with_the_deviation_asked_for() -> None:
    of = plot(BPR(width=32), malicious=100)

    users = ExplicitBoosting(start_size=0.3).start(of)["own.users"]

    assert 0.28 < float(users.std()) < 0.32


def test_memory_is_not_changed_in_place() -> None:
    of = plot(BPR(width=8))
    attack = ExplicitBoosting()
    before = attack.start(of)
    kept = {name: value.clone() for name, value in before.items()}
    model, private = start(of.method, of)
    usual = ordinary(attack, of, model, private, of.mine)

    attack.forge(before, sortie(model, usual), of)

    for name, value in kept.items():
        assert torch.equal(before[name], value)


def test_a_method_that_cannot_be_scored_is_refused() -> None:
    assert "how it scores" in ExplicitBoosting().misfit(FCFOriginal())


@pytest.mark.parametrize("setting", ["start_size", "boost"])
def test_an_unusable_setting_is_named(setting: str) -> None:
    given: dict[str, Any] = {setting: 0.0}
    with pytest.raises(ValueError, match=setting):
        ExplicitBoosting(**given)
