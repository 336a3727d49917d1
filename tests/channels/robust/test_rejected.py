"""What rules that pick say of the votes they did not keep, counted vote by vote."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from privfed.channels.plain import Plain
from privfed.channels.robust.channel import Robust
from privfed.channels.robust.rules import (
    Bulyan,
    Krum,
    Median,
    MultiKrum,
    NormBound,
    TrimmedMean,
)
from privfed.interfaces import Channel, Rejected
from privfed.messages import Rows, Uploads
from tests.channels.robust import twins
from tests.channels.robust.uploads import (
    ITEMS,
    SHAPE,
    WIDTH,
    some,
    uploads,
    vectors,
)
from tests.worlds import opening

F = 3  # liars that the rules below are told of
Twin = Callable[[twins.Matrix, int], list[int]]

PICKED: Mapping[Robust, tuple[Twin, int]] = {  # and how many clients a liar takes
    Krum(malicious=F): (lambda x, f: twins.krum(x, f, 2, True)[:1], 2),
    MultiKrum(malicious=F): (lambda x, f: twins.krum(x, f, 2, True)[: len(x) - f], 2),
    MultiKrum(malicious=F, keep="n-2f", scored="each"): (
        lambda x, f: twins.one_by_one(x, f, 2, True, len(x) - 2 * f),
        2,
    ),
    Bulyan(malicious=F): (
        lambda x, f: twins.one_by_one(x, f, 2, True, len(x) - 2 * f),
        4,
    ),
}
every_rule = pytest.mark.parametrize("rule", PICKED, ids=str)
seeds = st.integers(0, 300)


def told(channel: Channel, *shards: Uploads) -> Rejected | None:
    clients = torch.cat([shard.clients for shard in shards])
    opened = channel.open(replace(opening(SHAPE), clients=clients))
    for shard in shards:
        opened, _ = channel.send(opened, shard)
    return channel.close(opened).rejected


def picked(rule: Robust, x: Tensor) -> Sequence[int]:
    """The positions that a rule keeps of a vote, by its slow twin."""
    twin, per_liar = PICKED[replace(rule, per="item")]
    if len(x) < 3:
        return range(len(x))
    return twin(x.double().numpy(), max(0, min(F, (len(x) - 3) // per_liar)))


def slow(rule: Robust, sent: Uploads) -> dict[int, tuple[int, int]]:
    """Votes cast and dropped by client id; ``sent`` is in the order of ids."""
    ids, rows = sent.clients.tolist(), sent.rows["items"]
    ballots = []  # the voters of a vote, and their vectors
    if rule.per == "upload":
        ballots = [(ids, vectors(sent))]
    else:
        for item in range(ITEMS):
            at = (rows.item == item).nonzero()[:, 0].tolist()
            ballots.append(([ids[int(rows.sender[k])] for k in at], rows.value[at]))
        ballots.append((ids, vectors(sent)[:, ITEMS * WIDTH :]))
    found = dict.fromkeys(ids, (0, 0))
    for voters, x in ballots:
        kept = {voters[k] for k in picked(rule, x)} if voters else set()
        for client in voters:
            cast, dropped = found[client]
            found[client] = (cast + 1, dropped + (client not in kept))
    return found


@pytest.mark.parametrize("per", ["item", "upload"])
@every_rule
@settings(max_examples=25)
@given(seed=seeds, data=st.data())
def test_votes_are_counted_as_one_by_one(
    rule: Robust, per: str, seed: int, data: st.DataObject
) -> None:
    rule = replace(rule, per=per)  # type: ignore[arg-type]
    least = 15 if per == "upload" else 1
    sent = uploads(seed, data.draw(st.integers(least, 18)))

    found = told(rule, sent)

    assert found is not None
    each = zip(found.cast.tolist(), found.dropped.tolist(), strict=True)
    right = slow(rule, some(sent, sent.clients.argsort().tolist()))
    assert dict(zip(found.clients.tolist(), each, strict=True)) == right


@pytest.mark.parametrize("per", ["item", "upload"])
@every_rule
@settings(max_examples=10)
@given(seed=seeds, cuts=st.sets(st.integers(1, 15)))
def test_shards_change_no_count(
    rule: Robust, per: str, seed: int, cuts: set[int]
) -> None:
    rule = replace(rule, per=per)  # type: ignore[arg-type]
    sent, ends = uploads(seed, 16), [0, *sorted(cuts), 16]

    whole = told(rule, sent)
    parts = told(rule, *(some(sent, range(a, b)) for a, b in pairwise(ends)))

    assert whole
    assert parts
    assert torch.equal(whole.clients, parts.clients)
    assert torch.equal(whole.cast, parts.cast)
    assert torch.equal(whole.dropped, parts.dropped)


@pytest.mark.parametrize("per", ["item", "upload"])
def test_a_far_upload_loses_every_vote(per: str) -> None:
    sent = uploads(5, 16, share=1.0)
    for tensor in (sent.rows["items"].value.view(16, -1), *sent.dense.values()):
        for k, liar in enumerate((1, 7, 12)):
            tensor[liar] = 100.0 * (-2.0) ** k
    rule = MultiKrum(malicious=3, per=per)  # type: ignore[arg-type]

    found = told(rule, sent)

    assert found
    far = torch.isin(found.clients, sent.clients[[1, 7, 12]])
    assert torch.equal(found.dropped[far], found.cast[far])
    assert not found.dropped[~far].any()
    assert set(found.cast.tolist()) == ({1} if per == "upload" else {ITEMS})


def test_a_client_that_sends_nothing_casts_no_vote() -> None:
    """Where items are voted on one by one and there is nothing else to send."""
    row = Rows(torch.tensor([0, 2]), torch.ones(2).long(), torch.ones(2, WIDTH))

    found = told(Krum(), Uploads(torch.tensor([4, 5, 6]), {"items": row}))

    assert found
    assert found.cast.tolist() == [1, 0, 1]
    assert found.dropped.tolist() == [0, 0, 0]


@pytest.mark.parametrize("per", ["item", "upload"])
def test_rules_that_pick_nobody_reject_nobody(per: str) -> None:
    rules = [Median(), TrimmedMean(), NormBound()]
    for rule in rules:
        assert told(replace(rule, per=per), uploads(1, 16)) is None  # type: ignore[arg-type]
    assert told(Plain(), uploads(1, 16)) is None


def test_an_empty_round_rejects_nobody() -> None:
    rule = Krum()
    opened = rule.open(replace(opening(SHAPE), clients=torch.zeros(0).long()))

    assert rule.close(opened).rejected is None
