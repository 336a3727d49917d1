"""Rows known by their parts: the same rows, and the same total."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from privfed.channels.plain import Plain
from privfed.data.world import Shape
from privfed.messages import Rows, Total, Uploads, join
from privfed.mixed import Mixed, Parts
from tests.worlds import opening

SHAPE = Shape(12, 9)
RNG = torch.Generator().manual_seed(3)
TABLE = torch.randn(9, 4, generator=RNG)
X = torch.randn(12, 4, generator=RNG)
SENT = torch.rand(12, 9, generator=RNG) < 0.5
A, B = torch.randn(2, 12, 9, generator=RNG)


def mixed(first: int = 0, last: int = 12) -> Mixed:
    """The rows of some clients."""
    part = slice(first, last)
    sender, item = at = SENT[part].nonzero(as_tuple=True)
    return Mixed(sender, item, parts=Parts(X[part], A[part][at], TABLE, B[part][at]))


def uploads(first: int = 0, last: int = 12) -> Uploads:
    return Uploads(torch.arange(first, last), {"items": mixed(first, last)})


def made(of: Uploads) -> Uploads:
    """The same with every row worked out."""
    rows = of.rows["items"]
    return replace(of, rows={"items": Rows(rows.sender, rows.item, rows.value)})


def carry(*shards: Uploads) -> Total:
    channel = Plain()
    opened = channel.open(opening(SHAPE))
    for one in shards:
        opened, _ = channel.send(opened, one)
    return channel.close(opened).total


def test_a_row_is_its_parts() -> None:
    rows = mixed()
    a, b = (part[rows.sender, rows.item, None] for part in (A, B))

    expected = a * X[rows.sender] + b * TABLE[rows.item]

    torch.testing.assert_close(rows.value, expected)
    assert rows.value is rows.value  # worked out once


def test_only_a_value_is_worked_out() -> None:
    with pytest.raises(AttributeError, match="weight"):
        mixed().weight  # noqa: B018
    with pytest.raises(AttributeError, match="value"):
        Mixed(torch.arange(1), torch.arange(1)).value  # noqa: B018


def test_rows_given_another_value_are_rows_like_any_other() -> None:
    rows = mixed()
    doubled = replace(rows, value=rows.value * 2)

    total = carry(replace(uploads(), rows={"items": doubled}))

    expected = carry(made(uploads())).tables["items"] * 2
    torch.testing.assert_close(total.tables["items"], expected)
    assert doubled.row_bytes == rows.row_bytes == 16


def test_bytes_are_counted_without_working_rows_out() -> None:
    sent = uploads()

    assert torch.equal(sent.bytes_up(SHAPE), made(uploads()).bytes_up(SHAPE))
    assert "value" not in vars(sent.rows["items"])


def test_the_total_is_that_of_the_rows() -> None:
    found, known = carry(uploads()), carry(made(uploads()))

    torch.testing.assert_close(found.tables["items"], known.tables["items"])
    assert torch.equal(found.senders["items"], known.senders["items"])


def test_the_plain_server_works_no_row_out() -> None:
    sent = uploads()
    carry(sent)

    assert "value" not in vars(sent.rows["items"])


@given(st.lists(st.integers(1, 11), unique=True, max_size=5).map(sorted))
def test_shards_do_not_change_a_bit_of_the_total(cuts: list[int]) -> None:
    ends = [0, *cuts, 12]
    shards = [uploads(a, b) for a, b in pairwise(ends)]

    found, whole = carry(*shards), carry(uploads())

    assert torch.equal(found.tables["items"], whole.tables["items"])
    assert torch.equal(found.senders["items"], whole.senders["items"])


def test_weights_count() -> None:
    weight = torch.arange(12).float()
    weighted = replace(uploads(), weight=weight)

    found, known = carry(weighted), carry(made(weighted))

    assert torch.equal(found.tables["items"], known.tables["items"])


@pytest.mark.parametrize("first", ["rows", "parts"])
def test_rows_of_both_kinds_make_one_total(first: str) -> None:
    parts, rows = uploads(0, 7), made(uploads(7, 12))
    shards = (rows, parts) if first == "rows" else (parts, rows)

    found = carry(*shards)

    known = carry(made(join([uploads(0, 7), uploads(7, 12)])))
    torch.testing.assert_close(found.tables["items"], known.tables["items"])
    assert torch.equal(found.senders["items"], known.senders["items"])
