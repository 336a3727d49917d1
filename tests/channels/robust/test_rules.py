"""Every rule's total equals the one computed client by client."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from privfed.channels.plain import Plain
from privfed.channels.robust import distances, groups, vote
from privfed.channels.robust.channel import Robust
from privfed.channels.robust.rules import (
    Bulyan,
    Krum,
    Median,
    MultiKrum,
    NormBound,
    TrimmedMean,
)
from privfed.errors import SettingsError
from privfed.messages import Rows, Uploads
from privfed.views import TotalView, UploadsView
from tests.channels.robust import twins
from tests.channels.robust.uploads import (
    ITEMS,
    SHAPE,
    WIDTH,
    carry,
    everything,
    flat,
    some,
    uploads,
    vectors,
)
from tests.worlds import opening

F = 3  # liars that the rules below are told of
Twin = Callable[[twins.Matrix, int], twins.Matrix]


def mean_of(x: twins.Matrix, picked: list[int]) -> twins.Matrix:
    found: twins.Matrix = x[picked].mean(0)
    return found


SLOW: Mapping[Robust, tuple[Twin, int]] = {  # and how many clients a liar takes
    Median(): (lambda x, _: np.median(x, 0), 2),
    TrimmedMean(malicious=F): (twins.ends, 2),
    TrimmedMean(malicious=F, drop="farthest"): (twins.nearest, 2),
    Krum(malicious=F): (lambda x, f: x[twins.krum(x, f, 2, True)[0]], 2),
    Krum(malicious=F, neighbors="n-f", distance="plain"): (
        lambda x, f: twins.pieck_krum(x, f) / len(x),
        2,
    ),
    MultiKrum(malicious=F): (
        lambda x, f: mean_of(x, twins.krum(x, f, 2, True)[: len(x) - f]),
        2,
    ),
    MultiKrum(
        malicious=F, neighbors="n-f", distance="plain", keep="n-2f", scored="each"
    ): (lambda x, f: twins.pieck_multi_krum(x, f) / (len(x) - 2 * f), 2),
    Bulyan(malicious=F): (lambda x, f: twins.bulyan(x, f, 2, True), 4),
    Bulyan(malicious=F, neighbors="n-f", distance="plain"): (
        lambda x, f: twins.pieck_bulyan(x, f) / (len(x) - 2 * f),
        4,
    ),
}
RULES = [*SLOW, NormBound(), NormBound(bound=0.8)]
every_rule = pytest.mark.parametrize("rule", RULES, ids=str)
every_form = pytest.mark.parametrize("per", ["item", "upload"])
seeds = st.integers(0, 300)


def slow(rule: Robust, x: Tensor) -> Tensor:
    """The rule's estimate of the mean of vectors (clients, width)."""
    twin, per_liar = SLOW[replace(rule, per="item")]
    needed = 1 if isinstance(rule, Median | TrimmedMean) else 3
    f = max(0, min(F, (len(x) - needed) // per_liar))
    if needed == 3 and len(x) < 3:
        return x.mean(0)
    return torch.from_numpy(twin(x.double().numpy(), f)).float()


def in_order(of: Uploads) -> Uploads:
    return some(of, of.clients.argsort().tolist())


@every_form
@pytest.mark.parametrize("rule", SLOW, ids=str)
@settings(max_examples=25)
@given(seed=seeds, data=st.data())
def test_the_total_is_the_slow_one(
    rule: Robust, per: str, seed: int, data: st.DataObject
) -> None:
    least = 15 if per == "upload" else 1
    sent = uploads(seed, data.draw(st.integers(least, 18)))
    total = carry(replace(rule, per=per), sent)  # type: ignore[arg-type]

    sent = in_order(sent)
    rows, count = sent.rows["items"], len(sent.clients)
    if per == "upload":
        torch.testing.assert_close(
            flat(total), count * slow(rule, vectors(sent)), rtol=1e-4, atol=1e-4
        )
        return
    for item in range(ITEMS):
        x = rows.value[rows.item == item]
        right = len(x) * slow(rule, x) if len(x) else torch.zeros(WIDTH)
        torch.testing.assert_close(
            total.tables["items"][item], right, rtol=1e-4, atol=1e-4
        )
    right = count * slow(rule, vectors(sent)[:, ITEMS * WIDTH :])
    torch.testing.assert_close(
        flat(total)[ITEMS * WIDTH :], right, rtol=1e-4, atol=1e-4
    )


@every_form
@every_rule
@settings(max_examples=10)
@given(
    seed=seeds,
    order=st.permutations(range(16)),
    cuts=st.sets(st.integers(1, 15)),
    weighted=st.booleans(),
)
def test_neither_shards_nor_their_order_change_a_bit(
    rule: Robust,
    per: str,
    seed: int,
    order: list[int],
    cuts: set[int],
    weighted: bool,
) -> None:
    rule = replace(rule, per=per)  # type: ignore[arg-type]
    sent = uploads(seed, 16, weighted=weighted)
    whole = carry(rule, sent)
    ends = [0, *sorted(cuts), 16]
    parts = carry(rule, *(some(sent, order[a:b]) for a, b in pairwise(ends)))

    for name, value in everything(whole).items():
        assert torch.equal(everything(parts)[name], value), name
    assert (whole.weight, whole.clients) == (parts.weight, parts.clients)


@every_form
@every_rule
def test_equal_uploads_give_that_upload_times_the_clients(
    rule: Robust, per: str
) -> None:
    one = uploads(3, 1, share=1.0)
    same = [replace(one, clients=torch.tensor([c])) for c in range(16)]

    total = carry(replace(rule, per=per), *same)  # type: ignore[arg-type]

    right = 16 * vectors(one)[0]
    if isinstance(rule, NormBound) and (rule.bound != "median" or per == "item"):
        assert flat(total).norm() < right.norm()  # rows differ among themselves
        return
    torch.testing.assert_close(flat(total), right, rtol=1e-5, atol=1e-5)


@every_form
@every_rule
@pytest.mark.parametrize("value", [1e4, 1e25, torch.inf, torch.nan])
def test_liars_do_not_leave_the_honest_range(
    rule: Robust, per: str, value: float
) -> None:
    sent = uploads(5, 16, share=1.0)
    for tensor in (sent.rows["items"].value.view(16, -1), *sent.dense.values()):
        tensor[[1, 7, 12]] = value
    sent.rest["users"][[1, 7, 12]] = value
    sent.rows["items"].value.view(16, -1)[7] *= -1

    total = carry(replace(rule, per=per), sent)  # type: ignore[arg-type]

    found = flat(total) / 16
    assert found.isfinite().all()
    honest = vectors(sent)[[k for k in range(16) if k not in (1, 7, 12)]]
    if isinstance(rule, NormBound):  # a liar still counts as much as anybody
        assert (found.abs() <= honest.abs().sum(0) + honest.norm(dim=1).max()).all()
        return
    assert (found >= honest.amin(0) - 1e-5).all()
    assert (found <= honest.amax(0) + 1e-5).all()


@every_form
@every_rule
def test_who_sent_what_is_counted_and_told_as_it_was(rule: Robust, per: str) -> None:
    sent = uploads(6, 16, weighted=True)
    rule = replace(rule, per=per)  # type: ignore[arg-type]
    opened, view = rule.send(rule.open(opening(SHAPE)), sent)
    done = rule.close(opened)
    plain = carry(Plain(), sent)

    assert isinstance(view, UploadsView)
    assert view.uploads is sent
    (last,) = done.views
    assert isinstance(last, TotalView)
    assert last.total is done.total
    assert done.spent.bytes_up == int(sent.bytes_up(SHAPE).sum())
    assert done.spent.server_seconds > 0
    assert torch.equal(done.total.senders["items"], plain.senders["items"])
    assert torch.equal(done.total.users["users"], plain.users["users"])
    assert done.total.clients == 16
    assert done.total.tables.keys() == plain.tables.keys()
    for name, value in done.total.dense.items():
        assert value.shape == plain.dense[name].shape
        assert value.dtype == plain.dense[name].dtype


@every_form
@every_rule
def test_the_size_of_blocks_changes_nothing(
    rule: Robust, per: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = replace(rule, per=per)  # type: ignore[arg-type]
    sent = uploads(12, 17)
    whole = carry(rule, sent)

    for module in (groups, vote, distances):
        monkeypatch.setattr(module, "NUMBERS", 40)
    monkeypatch.setattr(groups, "CACHED", 1)

    torch.testing.assert_close(flat(carry(rule, sent)), flat(whole))


@pytest.mark.parametrize("share", [0.2, 0.9])
def test_distances_of_whole_uploads_are_the_slow_ones(share: float) -> None:
    """Of items that few clients sent, and of items that most did."""
    sent = uploads(13, 12, share=share)
    x = vectors(sent).double()

    slow = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist").square()

    torch.testing.assert_close(distances.between_uploads(sent, ITEMS), slow)


@every_rule
def test_sending_changes_no_upload(rule: Robust) -> None:
    sent, same = uploads(4, 16), uploads(4, 16)
    carry(rule, sent)

    assert torch.equal(vectors(sent), vectors(same))


def test_every_client_counts_the_median_weight() -> None:
    sent = uploads(7, 16, weighted=True)
    assert sent.weight is not None
    sent.weight[:3] = torch.tensor([1e30, torch.inf, torch.nan])
    alike = replace(sent, weight=None)
    median = float(np.nanmedian(np.sort(sent.weight.numpy())[:15]))

    weighed, plain = carry(Median(), sent), carry(Median(), alike)

    assert weighed.weight == 16 * median
    torch.testing.assert_close(flat(weighed), flat(plain) * median)


@every_form
@pytest.mark.parametrize(
    "rule",
    [
        TrimmedMean(malicious=0),
        TrimmedMean(malicious=0, drop="farthest"),
        MultiKrum(malicious=0),
        MultiKrum(malicious=0, scored="each"),
        Bulyan(malicious=0),
        NormBound(bound=1e6),
    ],
    ids=str,
)
def test_where_nobody_is_assumed_to_lie_the_total_is_the_sum(
    rule: Robust, per: str
) -> None:
    sent = uploads(8, 16)

    total = carry(replace(rule, per=per), sent)  # type: ignore[arg-type]

    torch.testing.assert_close(flat(total), flat(carry(Plain(), sent)))


def test_a_share_of_few_senders_is_nobody() -> None:
    """Five percent of 19 are none: an item's rows are added up as they are."""
    share, number = TrimmedMean(malicious=0.05), TrimmedMean(malicious=1)
    forged = uploads(9, 19, share=1.0)
    forged.rows["items"].value[0] = 1e6

    assert carry(share, forged).tables["items"][1].max() > 1e5
    assert carry(number, forged).tables["items"][1].max() < 1e3


@every_form
def test_a_norm_bound_cuts_each_upload_or_row(per: str) -> None:
    sent = in_order(uploads(10, 9))
    whole = vectors(sent)[:, :-1]  # a factor of shrinking has no norm
    total = carry(NormBound(bound=0.8, per=per), sent)  # type: ignore[arg-type]
    if per == "upload":
        norm = whole.norm(dim=1, keepdim=True)
        right = (whole * (0.8 / norm).clamp_max(1)).sum(0)
    else:
        rows = whole[:, : ITEMS * WIDTH].view(9, ITEMS, WIDTH)
        rest = whole[:, ITEMS * WIDTH :]
        cut = [
            x * (0.8 / x.norm(dim=-1, keepdim=True).clamp_min(1e-9)).clamp_max(1)
            for x in (rows, rest)
        ]
        right = torch.cat([cut[0].sum(0).flatten(), cut[1].sum(0)])

    torch.testing.assert_close(flat(total)[:-1], right)
    assert float(total.rest["users"]) == pytest.approx(float(sent.rest["users"].sum()))


def test_the_bound_may_be_the_median_norm() -> None:
    sent = uploads(11, 9, share=1.0)
    x = vectors(sent)[:, :-1]
    most = x.norm(dim=1).median()

    total = carry(NormBound(per="upload"), sent)
    fixed = carry(NormBound(per="upload", bound=float(most)), sent)

    torch.testing.assert_close(flat(total), flat(fixed))


def test_where_most_clients_do_not_send_a_row_the_whole_median_is_zero() -> None:
    row = {"items": Rows(torch.arange(7), torch.ones(7).long(), torch.ones(7, WIDTH))}
    sent = Uploads(torch.arange(15), row)

    assert carry(Median(), sent).tables["items"][1].tolist() == [7.0] * WIDTH
    assert not carry(Median(per="upload"), sent).tables["items"].any()


def test_liars_who_are_most_of_an_items_senders_decide_it() -> None:
    """Whatever rule: among an item's own senders they are the majority."""
    value = torch.cat([torch.full((6, WIDTH), -100.0), torch.ones(4, WIDTH)])
    rows = {"items": Rows(torch.arange(10), torch.ones(10).long(), value)}
    sent = Uploads(torch.arange(10), rows)

    for rule in SLOW:
        assert carry(rule, sent).tables["items"][1].max() < -50, rule


@pytest.mark.parametrize(
    ("rule", "clients", "needed"),
    [
        (TrimmedMean(malicious=5), 10, "2 f \\+ 1"),
        (Krum(malicious=4), 10, "2 f \\+ 3"),
        (Krum(malicious=0), 2, "2 f \\+ 3"),
        (MultiKrum(malicious=0.45), 10, "2 f \\+ 3"),
        (Bulyan(malicious=2), 10, "4 f \\+ 3"),
        (Bulyan(malicious=0.3), 100, "4 f \\+ 3"),
    ],
    ids=str,
)
def test_more_liars_than_a_rule_stands_are_refused(
    rule: Robust, clients: int, needed: str
) -> None:
    start = replace(opening(SHAPE), clients=torch.arange(clients))
    whole = replace(rule, per="upload")

    with pytest.raises(SettingsError, match=needed):
        whole.open(start)
    rule.open(start)


@pytest.mark.parametrize(
    ("rule", "clients"),
    [
        (TrimmedMean(malicious=4), 9),
        (Krum(malicious=4), 11),
        (MultiKrum(malicious=0.3), 10),
        (Bulyan(malicious=2), 11),
        (Median(), 1),
        (NormBound(), 1),
    ],
    ids=str,
)
def test_as_many_as_it_stands_are_not(rule: Robust, clients: int) -> None:
    start = replace(opening(SHAPE), clients=torch.arange(clients))
    replace(rule, per="upload").open(start)


@pytest.mark.parametrize("rule", [TrimmedMean, Krum, MultiKrum, Bulyan])
@pytest.mark.parametrize("malicious", [-0.1, 0.5, 0.9, 1.5, float("nan")])
def test_a_wrong_number_of_liars_is_refused(
    rule: type[Robust], malicious: float
) -> None:
    with pytest.raises(ValueError, match="malicious"):
        rule(malicious=malicious)  # type: ignore[call-arg]


@pytest.mark.parametrize("bound", [0.0, -1.0, float("inf"), float("nan")])
def test_a_wrong_bound_is_refused(bound: float) -> None:
    with pytest.raises(ValueError, match="bound"):
        NormBound(bound=bound)


@every_form
@every_rule
def test_an_empty_round_has_an_empty_total(rule: Robust, per: str) -> None:
    opened = replace(rule, per=per).open(opening(SHAPE))  # type: ignore[arg-type]
    total = rule.close(opened).total

    assert (dict(total.tables), total.weight, total.clients) == ({}, 0.0, 0)


@every_rule
def test_nothing_private_is_promised(rule: Robust) -> None:
    promise = rule.guarantee()

    assert promise is not None
    assert not promise.private
    assert promise.epsilon is None
    assert "No differential privacy" in promise.sentence()
    assert all((rule.hides, rule.does_not_hide, rule.trust, rule.cost, rule.paper))
    assert not rule.sums
