"""The masked channel adds up what survives, and shows what it says it shows."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from privfed.catalog import entries, find
from privfed.channels.masked.channel import Masked, Opened
from privfed.channels.plain import Plain
from privfed.choices import choose
from privfed.data.splits import leave_one_out
from privfed.data.world import Shape
from privfed.data.worlds import demo
from privfed.errors import PrivfedError, SettingsError
from privfed.evaluation.protocol import Protocol
from privfed.interfaces import Channel, FromTotal, Opening
from privfed.machine import Machine
from privfed.messages import Rows, Uploads
from privfed.rounds import Outcome, Setup, run
from privfed.seeds import Seeds
from privfed.views import (
    ItemsAndTotalView,
    ItemsView,
    RoundView,
    TotalView,
    UploadsView,
)
from tests.channels.masked.rounds import (
    ITEMS,
    ROUNDING,
    WIDTH,
    Quantized,
    carry,
    everything,
    opening,
    plain,
    some,
    survivors,
    uploads,
)
from tests.methods.test_contract import method, world

FEW = Masked(min_cohort=2, bits=32, bound=8.0, largest_weight=4096)
WAYS = {
    "all": FEW,
    "dropout": replace(FEW, dropout=0.2),
    "ring": replace(FEW, neighbors=4, dropout=0.1),
    "bits": replace(FEW, bits=27),
    "usual": Masked(min_cohort=2, largest_weight=64),
    "wide": replace(FEW, bits=60),
    "touched": replace(FEW, rows="touched"),
    "touched, dropout": replace(FEW, rows="touched", dropout=0.2),
}


def some_cuts(cuts: set[int], clients: int) -> list[range]:
    return [range(a, b) for a, b in pairwise([0, *sorted(cuts), clients])]


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=8)
@given(seed=st.integers(0, 99), clients=st.integers(8, 14), weighted=st.booleans())
def test_the_total_is_the_plain_one_of_the_survivors(
    way: str, seed: int, clients: int, weighted: bool
) -> None:
    sent = uploads(seed, clients, weighted)

    delivered, opened = carry(WAYS[way], sent)

    expected = everything(plain(survivors(sent, opened)))
    found = everything(delivered.total)
    steps = [s.encoding.step for s in opened.round.layout.segments]
    error = ROUNDING + clients * max(steps) / 2
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].shape == value.shape
        assert found[name].dtype == value.dtype, name
        torch.testing.assert_close(found[name], value, rtol=0, atol=error)
    assert torch.equal(found["senders items"], expected["senders items"])
    assert delivered.total.weight == plain(survivors(sent, opened)).weight
    assert delivered.total.clients == int(opened.round.delivered.sum())


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=8)
@given(seed=st.integers(0, 99), cuts=st.sets(st.integers(1, 9)), order=st.randoms())
def test_neither_shards_nor_their_order_change_a_bit(
    way: str, seed: int, cuts: set[int], order: Any
) -> None:
    sent = uploads(seed, 10)
    shards = [some(sent, cut) for cut in some_cuts(cuts, 10)]
    order.shuffle(shards)

    whole, _ = carry(WAYS[way], sent)
    parts, _ = carry(WAYS[way], *shards)

    found = everything(parts.total)
    for name, value in everything(whole.total).items():
        assert torch.equal(found[name], value), name
    for kind in ("bytes_up", "bytes_down", "other"):
        assert getattr(parts.spent, kind) == getattr(whole.spent, kind)


@pytest.mark.parametrize("way", ["all", "ring", "bits", "touched"])
def test_the_total_is_the_quantized_sum_bit_for_bit(way: str) -> None:
    sent, channel = uploads(3, 12), replace(WAYS[way], dropout=0.0)
    oracle = Quantized(channel.bits)
    opened, _ = oracle.send(oracle.open(opening(sent.clients)), sent)

    expected = everything(oracle.close(opened).total)

    found = everything(carry(channel, sent)[0].total)
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def test_masks_differ_from_round_to_round_and_totals_do_not() -> None:
    sent = uploads(1, 8)

    first, second = (carry(FEW, sent)[1].round for _ in range(2))

    assert (first.protocol.server.sum != second.protocol.server.sum).any()
    assert torch.equal(
        carry(FEW, sent)[0].total.tables["items"],
        carry(FEW, sent)[0].total.tables["items"],
    )


def extreme(clients: int, value: float) -> Uploads:
    """Everybody sends the largest number in every place, with the largest weight."""
    sender = torch.arange(clients).repeat_interleave(ITEMS)
    item = torch.arange(ITEMS).repeat(clients)
    rows = {"items": Rows(sender, item, torch.full((len(item), WIDTH), value))}
    weight = torch.full((clients,), 4096.0)
    return Uploads(torch.arange(clients), rows, weight=weight)


@pytest.mark.parametrize("bits", [24, 32, 41, 64])
@pytest.mark.parametrize("value", [8.0, -8.0])
def test_a_sum_of_the_largest_numbers_does_not_wrap(bits: int, value: float) -> None:
    channel = replace(FEW, bits=bits)

    total = carry(channel, extreme(38, value))[0].total

    assert total.tables["items"].eq(38 * 4096 * value).all()
    assert total.weight == 38 * 4096


def test_a_number_over_its_bound_is_refused_with_the_mend() -> None:
    with pytest.raises(SettingsError, match="give the channel bound=16"):
        carry(FEW, extreme(12, 9.0))


def test_a_weight_over_its_bound_is_refused_with_the_mend() -> None:
    with pytest.raises(SettingsError, match="give the channel largest_weight=4096"):
        carry(replace(FEW, largest_weight=100.0), extreme(12, 0.001))


def test_the_share_that_drops_out_is_what_was_asked_for_and_is_told() -> None:
    sent = uploads(2, 20)

    delivered, opened = carry(replace(FEW, dropout=0.15), sent)

    assert delivered.spent.other == {"dropped": 3.0}
    assert int((~opened.round.delivered).sum()) == 3


def test_who_drops_out_changes_with_the_round_and_not_with_shards() -> None:
    channel, clients = replace(FEW, dropout=0.3), uploads(0, 20).clients

    silent = [channel.open(opening(clients, r)).parties.silent for r in range(5)]
    again = channel.open(opening(clients.flip(0), 0)).parties.silent

    assert len({tuple(one.tolist()) for one in silent}) > 1
    assert (silent[0] == again).all()


def test_the_server_sees_sizes_and_the_total_alone() -> None:
    sent, channel = uploads(4, 12), replace(FEW, dropout=0.2)
    opened, view = channel.send(channel.open(opening(sent.clients, 7)), sent)
    delivered = channel.close(opened)

    assert channel.shows == (RoundView, TotalView)
    assert type(view) is RoundView
    assert [type(v) for v in delivered.views] == [TotalView]
    assert view.round == 7
    assert torch.equal(view.clients, sent.clients)
    last = delivered.views[0]
    assert isinstance(last, TotalView)
    assert last.total is delivered.total
    assert last.clients == delivered.total.clients == 10
    assert int(view.bytes_up.sum()) == delivered.spent.bytes_up
    assert len(set(view.bytes_up.tolist())) == 2  # survivors and dropouts


def test_sizes_tell_nothing_of_what_a_client_has() -> None:
    _, view = FEW.send(FEW.open(opening(torch.arange(20))), _uneven())

    assert len(set(view.bytes_up.tolist())) == 1


def _uneven() -> Uploads:
    """Client k touched k mod 9 items."""
    lists = [torch.arange(k % ITEMS) for k in range(20)]
    sender = [torch.full_like(one, k) for k, one in enumerate(lists)]
    rows = Rows(torch.cat(sender), torch.cat(lists), torch.zeros(0, WIDTH))
    rows = replace(rows, value=torch.ones(len(rows.item), WIDTH))
    return Uploads(torch.arange(20), {"items": rows})


def test_touched_rows_show_ids_and_no_value() -> None:
    sent, channel = uploads(5, 15), replace(FEW, rows="touched", dropout=0.2)
    opened, view = channel.send(channel.open(opening(sent.clients)), sent)
    delivered = channel.close(opened)

    assert channel.shows == (ItemsView, ItemsAndTotalView)
    assert type(view) is ItemsView
    assert not isinstance(view, UploadsView)
    told = view.items["items"]
    assert torch.equal(told[0], sent.rows["items"].sender)
    assert torch.equal(told[1], sent.rows["items"].item)
    last = delivered.views[0]
    assert type(last) is ItemsAndTotalView
    left = survivors(sent, opened)
    assert torch.equal(last.senders, left.clients)
    assert torch.equal(last.items["items"][0], left.rows["items"].sender)
    assert torch.equal(last.items["items"][1], left.rows["items"].item)


def test_touched_rows_cost_what_was_touched() -> None:
    sent = uploads(6, 12, weighted=False)
    sent = replace(sent, users={}, rest={})
    whole, _ = carry(FEW, sent)
    touched, opened = carry(replace(FEW, rows="touched"), sent)

    rows = len(sent.rows["items"].item)
    costs = opened.round.protocol.costs
    assert costs["ids"].bytes_up == 4 * rows
    assert costs["masked input"].bytes_up == 12 * (1 + 6) * 4 + 4 * WIDTH * rows
    assert whole.spent.bytes_up - touched.spent.bytes_up == (
        12 * ITEMS * (WIDTH + 1) * 4 - rows * (4 + 4 * WIDTH)
    )


def alone() -> Uploads:
    """Item 0 from everybody, item 1 from clients 0 to 2, item 2 from client 3 alone."""
    lists = [[0, 1], [0, 1], [0, 1], [0, 2], *[[0]] * 8]
    sender = torch.tensor([k for k, one in enumerate(lists) for _ in one])
    item = torch.tensor([i for one in lists for i in one])
    value = torch.arange(len(item) * WIDTH).view(-1, WIDTH) / 50
    return Uploads(torch.arange(12), {"items": Rows(sender, item, value)})


@pytest.mark.parametrize(
    ("fewest", "kept", "bare"),
    [(1, [0, 1, 2], 1.0), (2, [0, 1], 0.0), (3, [0, 1], 0.0), (4, [0], 0.0)],
)
def test_rows_that_too_few_send_are_counted_or_withheld(
    fewest: int, kept: list[int], bare: float
) -> None:
    sent = alone()

    delivered, _ = carry(replace(FEW, rows="touched", min_senders=fewest), sent)

    table = delivered.total.tables["items"]
    assert table.any(1).nonzero()[:, 0].tolist() == kept
    torch.testing.assert_close(table[kept], plain(sent).tables["items"][kept])
    senders = delivered.total.senders["items"]
    assert senders.nonzero()[:, 0].tolist() == kept
    assert delivered.spent.other["bare_rows"] == bare


def test_a_lone_row_is_bare_once_its_senders_own_mask_is_off() -> None:
    """What the count of bare rows warns of, seen at the server."""
    delivered, _ = carry(replace(FEW, rows="touched"), alone())

    own = alone().rows["items"]
    told = own.value[own.item == 2][0]
    torch.testing.assert_close(delivered.total.tables["items"][2], told)


def test_sending_changes_no_upload() -> None:
    sent, same = uploads(4, 12), uploads(4, 12)
    carry(FEW, sent)

    assert torch.equal(sent.rows["items"].value, same.rows["items"].value)
    assert torch.equal(sent.dense["layer"], same.dense["layer"])


@pytest.mark.parametrize("way", ["all", "touched"])
def test_small_cohorts_are_refused(way: str) -> None:
    channel = replace(WAYS[way], min_cohort=10)

    with pytest.raises(SettingsError, match="a cohort of 9 is below min_cohort=10"):
        channel.open(opening(torch.arange(9)))


@pytest.mark.parametrize("way", ["all", "touched"])
def test_a_sum_over_too_few_survivors_is_not_opened(way: str) -> None:
    channel = replace(WAYS[way], min_cohort=10, dropout=0.3)

    with pytest.raises(PrivfedError, match=r"4 of 12 clients dropped out.*8 that are"):
        carry(channel, uploads(0, 12))


def test_too_many_dropouts_say_what_to_change() -> None:
    channel = replace(FEW, dropout=0.8)

    with pytest.raises(PrivfedError, match="lower dropout or raise neighbors"):
        carry(channel, uploads(0, 20))


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"neighbors": 4, "threshold": 2}, "threshold must be from 3 to 4, got 2"),
        ({"neighbors": 4, "threshold": 5}, "threshold must be from 3 to 4, got 5"),
        ({"bits": 20}, "fewer than precision=16 bits each; give bits=23 or more"),
    ],
)
def test_settings_that_do_not_fit_the_cohort_are_refused(
    wrong: Mapping[str, Any], why: str
) -> None:
    with pytest.raises(SettingsError, match=why):
        replace(FEW, **wrong).open(opening(torch.arange(20)))


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"dropout": 1.0}, "dropout must be in"),
        ({"dropout": -0.1}, "dropout must be in"),
        ({"bits": 65}, "bits must be from 8 to 64"),
        ({"bits": 7}, "bits must be from 8 to 64"),
        ({"neighbors": 5}, "neighbors must be even"),
        ({"neighbors": -2}, "neighbors must be at least 0"),
        ({"threshold": -1}, "threshold must be at least 0"),
        ({"min_cohort": 1}, "min_cohort must be at least 2"),
        ({"min_senders": 0}, "min_senders must be at least 1"),
        ({"min_senders": 2}, "min_senders needs rows=touched"),
        ({"bound": 0.0}, "bound must be positive"),
        ({"largest_weight": -1.0}, "largest_weight must be 0 or more"),
        ({"precision": 0}, "precision must be at least 1"),
    ],
)
def test_bad_settings_are_refused(wrong: Mapping[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Masked(**wrong)


def test_a_client_that_is_not_in_the_cohort_is_refused() -> None:
    opened = FEW.open(opening(torch.arange(5)))

    with pytest.raises(PrivfedError, match="outside of the cohort"):
        FEW.send(opened, replace(_uneven(), clients=torch.arange(20)))


def test_a_round_that_nobody_sent_in_is_refused() -> None:
    with pytest.raises(PrivfedError, match="nobody sent anything"):
        FEW.close(FEW.open(opening(torch.arange(5))))


def test_the_promise_names_its_limits() -> None:
    told = Masked(min_cohort=50).guarantee()
    sparse = Masked(rows="touched", min_senders=4).guarantee()

    assert not told.private
    assert told.epsilon is None
    assert "sums over 50 clients or more" in told.sentence()
    assert "item ids are in the clear" not in told.sentence()
    assert "item ids are in the clear" in sparse.sentence()
    assert "no group is smaller than 4" in sparse.sentence()


WORLD = leave_one_out(demo(users=24, items=60))


def trained(method: str, channel: Channel, machine: Machine) -> Outcome:
    part = choose("method", method).part
    protocol = Protocol(every=1, negatives=20)
    return run(Setup(WORLD, part, channel, protocol=protocol, rounds=3), machine)


@pytest.mark.parametrize("method", ["bpr", "fedncf", "fedavg_neumf"])
@pytest.mark.parametrize("way", ["all", "ring", "touched"])
def test_training_is_quantized_plain_training_bit_for_bit(
    method: str, way: str
) -> None:
    channel = replace(WAYS[way], dropout=0.0)

    masked = trained(method, channel, Machine(workers=1, shard=5))
    clear = trained(method, Quantized(), Machine(workers=1))

    for name, value in clear.state.model.items():
        assert torch.equal(masked.state.model[name], value), name
    assert torch.equal(
        masked.state.marks["test"].value, clear.state.marks["test"].value
    )


@pytest.mark.slow
def test_943_clients_and_5_percent_dropped_sum_exactly() -> None:
    rng = torch.Generator().manual_seed(0)
    clients, items, width = 943, 300, 16
    sender, item = (torch.rand(clients, items, generator=rng) < 0.3).nonzero().T
    rows = Rows(sender, item, torch.randn(len(item), width, generator=rng))
    sent = Uploads(torch.arange(clients), {"items": rows})
    channel = Masked(dropout=0.05)
    at = Opening(0, Shape(clients, items), sent.clients, Seeds(1)("channel"))
    opened, _ = channel.send(channel.open(at), sent)

    delivered = channel.close(opened)

    round = opened.round
    left = torch.from_numpy(round.delivered)
    assert int((~left).sum()) == 47
    integers = round.layout.pack(sent)[left].sum(0)
    expected = round.layout.unpack(integers, 896)
    assert torch.equal(delivered.total.tables["items"], expected.tables["items"])
    assert torch.equal(delivered.total.senders["items"], expected.senders["items"])


@pytest.mark.parametrize("way", WAYS)
def test_methods_that_send_no_tables_are_carried(way: str) -> None:
    sent = replace(uploads(0, 12), rows={}, users={}, rest={})

    delivered, opened = carry(WAYS[way], sent)

    left = plain(survivors_of_dense(sent, opened))
    torch.testing.assert_close(
        delivered.total.dense["layer"], left.dense["layer"], rtol=0, atol=1.0
    )
    assert not delivered.total.tables


def survivors_of_dense(sent: Uploads, opened: Opened) -> Uploads:
    left = torch.from_numpy(opened.round.delivered)
    assert sent.weight is not None
    return replace(
        sent,
        clients=sent.clients[left],
        dense={name: value[left] for name, value in sent.dense.items()},
        weight=sent.weight[left],
    )


def _from_totals() -> list[str]:
    known = entries("method")
    return [n for n in known if issubclass(find("method", n), FromTotal)]


@pytest.mark.slow
@pytest.mark.parametrize("name", _from_totals())
def test_every_method_serves_clients_as_in_the_clear(name: str) -> None:
    of = method(name)

    def marks(channel: Channel) -> torch.Tensor:
        protocol = Protocol(every=1, negatives=20)
        setup = Setup(world(of.task), of, channel, protocol=protocol, rounds=2)
        return run(setup, Machine(workers=1)).state.marks["test"].value

    torch.testing.assert_close(marks(Masked()), marks(Plain()), rtol=0, atol=1e-5)
