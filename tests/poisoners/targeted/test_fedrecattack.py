"""FedRecAttack: how its clients share a gradient out, and what comes of it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from privfed.channels.plain import Plain
from privfed.data.world import World
from privfed.errors import SettingsError
from privfed.evaluation.protocol import Protocol
from privfed.interfaces import Method, State
from privfed.messages import Rows, Uploads
from privfed.methods.bpr import BPR
from privfed.methods.fcf_original import FCFOriginal
from privfed.methods.fedncf import FedNCF
from privfed.party import Party
from privfed.poisoners.targeted.fedrecattack import FedRecAttack
from privfed.poisoning import Plot
from privfed.rounds import Keeping, Outcome, Setup, run
from privfed.seeds import Stream
from tests.poisoners.plots import ordinary, plot, sortie
from tests.worlds import lay, world

ITEMS, WIDTH = 20, 8
RATE = BPR().learning_rate
ATTACK = FedRecAttack(rows=6, clip=0.01)
LISTS = [[0, 1], [2], [3, 5], [6], [7, 8]]


def plan(malicious: int = 3, targets: tuple[int, ...] = (4,), seed: int = 0) -> Plot:
    of = plot(BPR(width=WIDTH), ITEMS, 5, malicious, targets, seed=seed)
    return replace(of, public=lay(LISTS + [[]] * malicious))


def model(seed: int = 0) -> State:
    rng = Generator().manual_seed(seed)
    return {"items": torch.randn(ITEMS, WIDTH, generator=rng)}


def empty(clients: Tensor) -> Uploads:
    none = torch.zeros(0, dtype=torch.int64)
    rows = Rows(none, none, torch.zeros(0, WIDTH))
    return Uploads(clients, {"items": rows}, scale={"items": RATE})


def gradients(uploads: Uploads) -> Tensor:
    """What clients sent in units of the gradient, (clients, items, width)."""
    rows = uploads.rows["items"]
    table = torch.zeros(len(uploads.clients), ITEMS, WIDTH)
    table[rows.sender, rows.item] = rows.value / -RATE
    return table


def ready(of: Plot, attack: FedRecAttack = ATTACK) -> tuple[FedRecAttack, State]:
    prepared = attack.prepare(of)
    return prepared, prepared.start(of)


def test_every_client_takes_of_what_the_ones_before_it_left() -> None:
    """A loop over clients and rows, from the gradient on."""
    of = plan(targets=(4, 9))
    attack, memory = ready(of, replace(ATTACK, noise=0.0))

    after, uploads = attack.forge(memory, sortie(model(), empty(of.mine)), of)

    sent = gradients(uploads)
    gradient = after["left"] + sent.sum(0)
    left = gradient.clone()
    for k in range(len(of.mine)):
        for item in after["rows"][k].tolist():
            length = float(left[item].norm())
            take = left[item] * min(1.0, 0.01 / length) if length else left[item]
            torch.testing.assert_close(sent[k, item], take, rtol=1e-4, atol=1e-7)
            left[item] -= take
    assert float(gradient[4].norm()) > 3 * 0.01  # none of them could take it all
    assert float(sent[:, 4].norm(dim=1).min()) == pytest.approx(0.01, rel=1e-4)


def test_a_step_along_the_uploads_lifts_the_target() -> None:
    of, table = plan(), model()
    attack, memory = ready(of, replace(ATTACK, clip=10.0, rows=ITEMS))
    after, uploads = attack.forge(memory, sortie(table, empty(of.mine)), of)
    moved = table["items"].clone()
    moved.index_add_(0, uploads.rows["items"].item, uploads.rows["items"].value)
    gain = after["users"] @ (moved - table["items"]).T
    assert float(gain[:, 4].mean()) > 0


def test_rows_are_few_bounded_and_always_the_same() -> None:
    of = plan()
    attack, memory = ready(of)
    chosen = None
    for number in range(3):
        out = sortie(model(number), empty(of.mine), number)
        memory, uploads = attack.forge(memory, out, of)
        rows = uploads.rows["items"]
        assert torch.bincount(rows.sender).tolist() == [6, 6, 6]
        assert int((rows.item == 4).sum()) == 3
        assert float(gradients(uploads).norm(dim=2).max()) < 0.01 + 0.005  # the noise
        chosen = rows.item if chosen is None else chosen
        assert torch.equal(rows.item, chosen)


def test_who_comes_later_chooses_later() -> None:
    of = plan()
    attack, memory = ready(of)
    one, _ = attack.forge(memory, sortie(model(), empty(of.mine[1:2])), of)
    assert (one["rows"][:, 0] >= 0).tolist() == [False, True, False]
    two, _ = attack.forge(one, sortie(model(1), empty(of.mine)), of)
    assert bool((two["rows"] >= 0).all())
    assert torch.equal(one["rows"][1], two["rows"][1])
    assert bool((memory["rows"] == -1).all())  # what was given stays as it was


def test_where_the_model_stands_still_the_rest_is_shared_out() -> None:
    of = plan()
    attack, memory = ready(of, replace(ATTACK, noise=0.0))
    first, _ = attack.forge(memory, sortie(model(), empty(of.mine)), of)
    second, uploads = attack.forge(first, sortie(model(), empty(of.mine), 4), of)
    assert torch.equal(first["users"], second["users"])
    torch.testing.assert_close(
        second["left"] + gradients(uploads).sum(0), first["left"]
    )


def test_other_rows_are_drawn_by_the_length_of_their_gradient() -> None:
    """So many clients, one row each beside the target's: shares are the lengths'."""
    clients = 3000
    of = plan(clients)
    attack, memory = ready(of, replace(ATTACK, rows=2, noise=0.0, clip=1e-9))
    after, _ = attack.forge(memory, sortie(model(), empty(of.mine)), of)
    length = after["left"].norm(dim=1)
    length[4] = 0
    expected = length / length.sum()
    share = torch.bincount(after["rows"][:, 1], minlength=ITEMS) / clients
    deviation = (expected * (1 - expected) / clients).sqrt()
    assert bool(((share - expected).abs() <= 4.5 * deviation + 1e-9).all())
    assert int((expected > 0).sum()) > 1


def test_what_a_client_chooses_does_not_depend_on_who_comes_after_it() -> None:
    of = plan(malicious=3)
    attack, memory = ready(of)
    alone = attack.forge(memory, sortie(model(), empty(of.mine[:1])), of)[0]
    both = attack.forge(memory, sortie(model(), empty(of.mine[:2])), of)[0]
    assert torch.equal(alone["rows"][0], both["rows"][0])


def test_without_knowledge_users_are_made_up_anew() -> None:
    of = replace(plan(), public=None)
    attack, memory = ready(of, replace(ATTACK, public=0.0))
    assert attack.public_share() == 0
    first, one = attack.forge(memory, sortie(model(), empty(of.mine)), of)
    out = replace(sortie(model(1), empty(of.mine)), stream=Stream(1))
    second, _ = attack.forge(first, out, of)
    assert first["users"].shape == (5, WIDTH)
    assert not torch.equal(first["users"], second["users"])
    assert bool(gradients(one).any())


@pytest.mark.parametrize(
    "method", [BPR(width=8), FedNCF(width=8), FCFOriginal(width=8)], ids=type
)
def test_uploads_have_the_form_of_the_method(method: Method) -> None:
    of = replace(plan(), method=method)
    start, private = method.init(of.shape, Stream(1))
    attack, memory = ready(of)
    usual = ordinary(attack, of, start, private, of.mine)
    _, uploads = attack.forge(memory, sortie(start, usual), of)
    assert uploads.rows.keys() == usual.rows.keys()
    assert uploads.dense.keys() == usual.dense.keys()
    assert not any(bool(value.any()) for value in uploads.dense.values())
    for rows in uploads.rows.values():
        assert torch.bincount(rows.sender).tolist() == [6, 6, 6]
        assert bool(rows.value.isfinite().all())


@pytest.mark.parametrize(
    "setting",
    [{"rows": 0}, {"public": 1.5}, {"public": -0.1}, {"clip": 0}, {"noise": -1.0}],
    ids=str,
)
def test_unusable_settings_are_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(setting))):
        FedRecAttack(**setting)


def test_more_targets_than_lists_or_rows_serve_are_refused() -> None:
    with pytest.raises(SettingsError, match="targets"):
        FedRecAttack(rows=1).prepare(plan(targets=(4, 5)))
    with pytest.raises(SettingsError, match="targets"):
        FedRecAttack(best=2).prepare(plan(targets=(4, 5, 6)))


def crowd() -> World:
    """Users who like some items more often than others; nobody knows the last one."""
    rng = Generator().manual_seed(0)
    weight = torch.arange(60, 0, -1).float()
    lists = [torch.multinomial(weight, 9, generator=rng).tolist() for _ in range(60)]
    return world([one[1:] for one in lists], 61, test=[one[:1] for one in lists])


def trained(
    share: float, seed: int = 0, rounds: int = 20, keeping: Keeping | None = None
) -> Outcome:
    party = Party(poisoner=FedRecAttack(rows=10, public=0.2), share=share, target="60")
    protocol = Protocol("full", every=20)
    method = BPR(width=8, learning_rate=0.1)
    setup = Setup(crowd(), method, Plain(), protocol=protocol, party=party)
    return run(replace(setup, seed=seed, rounds=rounds), keeping=keeping)


def test_a_few_clients_put_an_unknown_item_into_most_lists() -> None:
    plain, poisoned = trained(0.0), trained(0.1)
    assert plain.state.log[-1]["hijack.er@10"] < 0.1
    assert poisoned.state.log[-1]["hijack.er@10"] > 0.5


def test_a_run_is_the_same_again_and_another_with_another_seed() -> None:
    one, same, other = trained(0.1), trained(0.1), trained(0.1, 1)
    assert torch.equal(one.state.model["items"], same.state.model["items"])
    assert not torch.equal(one.state.model["items"], other.state.model["items"])


def test_a_run_goes_on_where_it_was_saved(tmp_path: Path) -> None:
    keeping = Keeping(tmp_path / "run", every=4, resume=True)
    trained(0.1, rounds=4, keeping=keeping)
    one = trained(0.1, rounds=8, keeping=keeping)
    straight = trained(0.1, rounds=8)
    assert torch.equal(one.state.model["items"], straight.state.model["items"])
