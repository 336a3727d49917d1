"""The plain channel adds up what it is sent, in any shards."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator, Tensor

from privfed.channels.plain import Plain
from privfed.data.world import Shape
from privfed.messages import Rows, Total, Uploads, join
from privfed.views import ItemsView, RoundView, TotalView, UploadsView
from tests.worlds import opening

ITEMS, WIDTH = 7, 3
SHAPE = Shape(20, ITEMS)


def uploads(seed: int, clients: int, weighted: bool, share: float = 0.5) -> Uploads:
    """Random uploads; a client sends each row with chance ``share``."""
    rng = Generator().manual_seed(seed)
    sent = torch.rand(clients, ITEMS, generator=rng) < share
    sender, item = sent.nonzero(as_tuple=True)
    value = torch.randn(len(item), WIDTH, generator=rng)
    dense = {
        "layer.weight": torch.randn(clients, 2, 4, generator=rng),
        "layer.bias": torch.randn(clients, 2, generator=rng),
    }
    weight = torch.randint(0, 50, (clients,), generator=rng).float()
    return Uploads(
        torch.randperm(20, generator=rng)[:clients],
        {"items": Rows(sender, item, value)},
        dense,
        weight if weighted else None,
        users={"users": torch.randn(clients, WIDTH, generator=rng)},
        rest={"users": torch.rand(clients, generator=rng)},
    )


def some(of: Uploads, clients: Sequence[int]) -> Uploads:
    """The uploads of some clients, in the order given."""
    rows = of.rows["items"]
    at = [(rows.sender == c).nonzero()[:, 0] for c in clients]
    sender = [torch.full_like(a, k) for k, a in enumerate(at)]
    index = torch.cat(at)
    choice = torch.tensor(clients)
    return Uploads(
        of.clients[choice],
        {"items": Rows(torch.cat(sender), rows.item[index], rows.value[index])},
        {n: v[choice] for n, v in of.dense.items()},
        None if of.weight is None else of.weight[choice],
        users={n: v[choice] for n, v in of.users.items()},
        rest={n: v[choice] for n, v in of.rest.items()},
    )


def carry(*shards: Uploads) -> Total:
    channel = Plain()
    opened = channel.open(opening(SHAPE))
    for shard in shards:
        opened, _ = channel.send(opened, shard)
    return channel.close(opened).total


def everything(total: Total) -> dict[str, Tensor]:
    return {
        **total.tables,
        **total.dense,
        **total.users,
        "rest": total.rest["users"],
        "senders": total.senders["items"].float(),
    }


@given(seed=st.integers(0, 200), clients=st.integers(1, 12), weighted=st.booleans())
def test_the_total_is_the_loop_over_clients(
    seed: int, clients: int, weighted: bool
) -> None:
    sent = uploads(seed, clients, weighted)
    table = torch.zeros(ITEMS, WIDTH, dtype=torch.float64)
    senders = torch.zeros(ITEMS, dtype=torch.int64)
    bias = torch.zeros(2, dtype=torch.float64)
    matrix = torch.zeros(2, 4, dtype=torch.float64)
    weight_sum = 0.0
    rows = sent.rows["items"]
    for c in range(clients):
        weight = 1.0 if sent.weight is None else float(sent.weight[c])
        for k in (rows.sender == c).nonzero()[:, 0].tolist():
            table[rows.item[k]] += weight * rows.value[k].double()
            senders[rows.item[k]] += 1
        bias += weight * sent.dense["layer.bias"][c].double()
        matrix += weight * sent.dense["layer.weight"][c].double()
        weight_sum += weight

    total = carry(sent)

    torch.testing.assert_close(
        total.tables["items"].double(), table, rtol=1e-5, atol=1e-4
    )
    torch.testing.assert_close(
        total.dense["layer.bias"].double(), bias, rtol=1e-5, atol=1e-4
    )
    torch.testing.assert_close(
        total.dense["layer.weight"].double(), matrix, rtol=1e-5, atol=1e-4
    )
    own = torch.zeros(20, WIDTH, dtype=torch.float64)
    rest = 0.0
    for c in range(clients):
        weight = 1.0 if sent.weight is None else float(sent.weight[c])
        own[sent.clients[c]] += weight * sent.users["users"][c].double()
        rest += weight * float(sent.rest["users"][c])
    torch.testing.assert_close(total.users["users"].double(), own)
    assert abs(float(total.rest["users"]) - rest) < 1e-4 * (1 + rest)
    assert torch.equal(total.senders["items"], senders)
    assert total.weight == weight_sum
    assert total.clients == clients


@given(
    seed=st.integers(0, 200), weighted=st.booleans(), cuts=st.sets(st.integers(1, 9))
)
def test_shards_do_not_change_a_bit(seed: int, weighted: bool, cuts: set[int]) -> None:
    sent = uploads(seed, 10, weighted)
    ends = [0, *sorted(cuts), 10]
    shards = [some(sent, range(a, b)) for a, b in pairwise(ends)]

    whole, parts = carry(sent), carry(*shards)

    for name, value in everything(whole).items():
        assert torch.equal(everything(parts)[name], value), name
    assert whole.weight == parts.weight
    assert whole.clients == parts.clients


@given(seed=st.integers(0, 200), order=st.permutations(range(8)))
def test_the_order_of_clients_does_not_matter(seed: int, order: list[int]) -> None:
    sent = uploads(seed, 8, True)
    found, other = everything(carry(sent)), everything(carry(some(sent, order)))

    for name, value in found.items():
        torch.testing.assert_close(other[name], value, rtol=1e-5, atol=1e-3)


def test_equal_uploads_average_to_that_upload() -> None:
    one = uploads(1, 1, False, share=1.0)
    total = carry(*[one] * 6)

    torch.testing.assert_close(
        total.tables["items"] / total.weight, one.rows["items"].value
    )


def test_a_client_that_weighs_nothing_adds_nothing() -> None:
    sent = uploads(2, 5, True)
    assert sent.weight is not None
    sent.weight[3] = 0.0

    whole, without = (
        everything(carry(sent)),
        everything(carry(some(sent, [0, 1, 2, 4]))),
    )

    assert torch.equal(whole["items"], without["items"])
    assert torch.equal(whole["layer.bias"], without["layer.bias"])


def test_an_empty_round_has_an_empty_total() -> None:
    total = carry()
    assert (dict(total.tables), total.weight, total.clients) == ({}, 0.0, 0)


def test_the_server_sees_every_upload_and_then_the_total() -> None:
    sent = uploads(3, 4, True)
    channel = Plain()
    opened, view = channel.send(channel.open(opening(SHAPE, 5)), sent)
    delivered = channel.close(opened)
    total, (last,) = delivered.total, delivered.views

    assert isinstance(view, UploadsView)
    assert isinstance(view, ItemsView)
    assert isinstance(view, RoundView)
    assert view.round == 5
    assert view.uploads is sent
    assert torch.equal(view.items["items"][1], sent.rows["items"].item)
    assert isinstance(last, TotalView)
    assert last.total is total
    assert all(isinstance(v, tuple(channel.shows)) for v in (view, last))


def test_bytes_are_counted_by_client_with_the_shorter_encoding() -> None:
    sender = torch.tensor([0, 0] + [1] * 7)
    item = torch.cat([torch.tensor([1, 4]), torch.arange(7)])
    rows = {"items": Rows(sender, item, torch.zeros(9, WIDTH))}
    dense = {"b": torch.zeros(3, 5)}
    sent = Uploads(torch.arange(3), rows, dense, torch.ones(3))

    _, view = Plain().send(Plain().open(opening(SHAPE)), sent)

    sparse, whole, fixed = 2 * (4 + 4 * WIDTH), ITEMS * 4 * WIDTH, 5 * 4 + 4
    assert view.bytes_up.tolist() == [sparse + fixed, whole + fixed, fixed]


def test_a_table_that_shrank_is_sent_whole() -> None:
    rows = {"items": Rows(torch.tensor([0]), torch.tensor([1]), torch.zeros(1, WIDTH))}
    own = {"users": torch.zeros(2, WIDTH)}
    some_rows = Uploads(torch.arange(2), rows, users=own)
    shrunk = {"items": torch.ones(2), "users": torch.ones(2)}
    all_rows = Uploads(torch.arange(2), rows, users=own, rest=shrunk)

    row = 4 * WIDTH
    assert some_rows.bytes_up(SHAPE).tolist() == [4 + row + row, row]
    assert all_rows.bytes_up(SHAPE).tolist() == [(ITEMS + 20) * row] * 2


@given(seed=st.integers(0, 200), weighted=st.booleans(), cut=st.integers(1, 9))
def test_joined_shards_are_the_whole(seed: int, weighted: bool, cut: int) -> None:
    sent = uploads(seed, 10, weighted)
    joined = join([some(sent, range(cut)), some(sent, range(cut, 10))])

    assert torch.equal(joined.clients, sent.clients)
    for name in ("sender", "item", "value"):
        one, other = (getattr(u.rows["items"], name) for u in (joined, sent))
        assert torch.equal(one, other)
    for kind in ("dense", "users", "rest"):
        for name, value in getattr(sent, kind).items():
            assert torch.equal(getattr(joined, kind)[name], value)
    assert (joined.weight is None) == (sent.weight is None)


def test_sending_changes_no_upload() -> None:
    sent, same = uploads(4, 6, True), uploads(4, 6, True)
    carry(sent)

    assert torch.equal(sent.rows["items"].value, same.rows["items"].value)
    assert torch.equal(sent.dense["layer.weight"], same.dense["layer.weight"])
