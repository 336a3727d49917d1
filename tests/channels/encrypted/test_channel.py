"""The channel in runs: the plain total, from a server that saw nothing."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from privfed.catalog import entries
from privfed.channels.encrypted.channel import Encrypted
from privfed.channels.encrypted.parameters import LADDERS, cheapest
from privfed.channels.layout import Bounds, Layout, layout_of
from privfed.channels.plain import Plain
from privfed.choices import choose
from privfed.data.splits import leave_one_out
from privfed.data.worlds import demo
from privfed.errors import SettingsError
from privfed.evaluation.protocol import Protocol
from privfed.interfaces import Channel, Delivered, FromTotal, Method, Opening, Plan
from privfed.machine import Machine
from privfed.messages import Spent, Total, Uploads
from privfed.rounds import Outcome, Setup, run
from privfed.sampling import Sampling
from privfed.seeds import Seeds
from privfed.views import RoundView, TotalView, View
from tests.channels.test_layout import tensors
from tests.channels.test_plain import SHAPE, some, uploads
from tests.methods.test_contract import method, state, world

OWN = Encrypted(largest_weight=64)


def plan(sampling: Sampling = Sampling(), clients: int = 20) -> Plan:  # noqa: B008
    return Plan(SHAPE, 3, 3, 5.0, choose("method", "fcf").part, clients, sampling)


def opening(of: Uploads, seed: int = 0) -> Opening:
    return Opening(1, SHAPE, of.clients, Seeds(seed)("channel"))


def shards(of: Uploads, *cuts: int) -> Sequence[Uploads]:
    ends = [0, *cuts, len(of.clients)]
    return [some(of, range(a, b)) for a, b in pairwise(ends)]


def carry(
    channel: Channel, opened: Opening, parts: Sequence[Uploads]
) -> tuple[Delivered, list[View]]:
    with channel.ready(plan()) as ready:
        running, views = ready.open(opened), []
        for part in parts:
            running, view = ready.send(running, part)
            views.append(view)
        return ready.close(running), views


@dataclass(frozen=True)
class Quantized(Channel):
    """The slow twin: the same integers, added up in the clear."""

    like: Encrypted
    hides = does_not_hide = trust = cost = paper = "a twin for tests"
    shows = (RoundView, TotalView)

    @contextmanager
    def ready(self, plan: Plan) -> Iterator[Channel]:
        yield replace(self)

    def open(self, opening: Opening) -> Any:
        return [opening, None, 0, 0]

    def send(self, opened: Any, uploads: Uploads) -> tuple[Any, View]:
        open_, layout, sums, count = opened
        like, clients = self.like, len(open_.clients)
        steps = like.bound / like.resolution
        most = cheapest(like.scheme, like.seeded, clients, steps).capacity
        bounds = Bounds(like.bound, like.largest_weight)
        layout = layout or layout_of(uploads, open_, bounds, most)
        for one in layout.pack(uploads):
            sums, count = sums + one, count + 1
        bytes_up = torch.zeros(len(uploads.clients))
        view = RoundView(round=open_.number, clients=uploads.clients, bytes_up=bytes_up)
        return [open_, layout, sums, count], view

    def close(self, opened: Any) -> Delivered:
        layout: Layout = opened[1]
        return Delivered(layout.unpack(opened[2], opened[3]), [], Spent())


def same(one: Total, other: Total) -> None:
    assert (one.weight, one.clients) == (other.weight, other.clients)
    assert tensors(one).keys() == tensors(other).keys()
    for key, value in tensors(one).items():
        assert torch.equal(tensors(other)[key], value), key


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("key_holder", ["clients", "authority"])
def test_bfv_is_quantized_plain_bit_for_bit(weighted: bool, key_holder: Any) -> None:
    sent = uploads(3, 14, weighted)
    channel = replace(OWN, key_holder=key_holder)

    found = carry(channel, opening(sent), [sent])[0].total

    same(found, carry(Quantized(channel), opening(sent), [sent])[0].total)


def test_neither_shards_nor_order_nor_workers_change_a_bit() -> None:
    sent = uploads(3, 14, True)
    whole = carry(OWN, opening(sent), [sent])[0].total

    parts = [*shards(sent, 1, 5, 9)][::-1]
    same(whole, carry(replace(OWN, workers=1), opening(sent), parts)[0].total)


@pytest.mark.parametrize("scheme", LADDERS)
@pytest.mark.parametrize("key_holder", ["clients", "authority"])
@pytest.mark.parametrize("weighted", [True, False])
def test_the_total_is_plain_s(scheme: Any, key_holder: Any, weighted: bool) -> None:
    sent = uploads(5, 12, weighted)
    channel = replace(OWN, scheme=scheme, key_holder=key_holder)

    found = carry(channel, opening(sent), shards(sent, 4))[0].total

    expected = carry(Plain(), opening(sent), [sent])[0].total
    assert abs(found.weight - expected.weight) < 1e-6
    assert torch.equal(found.senders["items"], expected.senders["items"])
    for key, value in tensors(expected).items():
        torch.testing.assert_close(
            tensors(found)[key], value, rtol=1e-5, atol=1e-4, msg=str(key)
        )


@pytest.mark.parametrize("weighted", [True, False])
def test_a_sample_gives_the_bits_of_the_full_mode(weighted: bool) -> None:
    sent = uploads(3, 14, weighted)
    full, _ = carry(OWN, opening(sent), [sent])

    for count, parts in ((3, [sent]), (1, shards(sent, 2, 7)), (14, [sent])):
        sampled, _ = carry(replace(OWN, sample=count), opening(sent), parts)
        same(full.total, sampled.total)
        assert sampled.spent.bytes_up == full.spent.bytes_up


def test_a_sample_is_drawn_by_the_seed_and_said_to_be_no_secure_run() -> None:
    from privfed.channels.encrypted.ready import _chosen

    sent = uploads(3, 20, False)
    drawn = [_chosen(opening(sent, seed), 5).tolist() for seed in (0, 0, 1)]

    assert drawn[0] == drawn[1] != drawn[2]
    assert len(set(drawn[0])) == 5
    told = replace(OWN, sample=5).guarantee().sentence()
    assert "sampled: 5" in told
    assert "extrapolated, not measured; NOT a secure run" in told
    assert "sampled" not in OWN.guarantee().sentence()


def test_the_server_sees_who_sent_and_the_key_holder_the_sum() -> None:
    sent = uploads(5, 12, True)
    delivered, views = carry(OWN, opening(sent), shards(sent, 4))

    for view in views:
        assert type(view) is RoundView
        assert view.round == 1
        assert len(set(view.bytes_up.tolist())) == 1  # sizes tell nothing
    assert torch.cat([v.clients for v in views]).tolist() == sent.clients.tolist()  # type: ignore[attr-defined]
    (closing,) = delivered.views
    assert isinstance(closing, TotalView)
    assert closing.total is delivered.total
    assert all(isinstance(v, OWN.shows) for v in (*views, *delivered.views))


def test_what_it_costs_is_what_was_sent_and_spent() -> None:
    sent = uploads(5, 12, True)
    delivered, views = carry(OWN, opening(sent), [sent])
    (view,) = views
    assert isinstance(view, RoundView)
    spent = delivered.spent

    assert spent.bytes_up == int(view.bytes_up.sum())
    assert spent.bytes_down > spent.bytes_up  # sums have no seeds
    assert spent.client_seconds > 0
    assert spent.server_seconds > 0
    assert spent.other["key_holder_seconds"] > 0
    numbers = 7 * 3 + 2 * 4 + 2 + 3 + 1 + 1  # table, layer, bias, own row, rest, weight
    expected = float(view.bytes_up[0]) / (4 * numbers)
    assert abs(spent.other["ciphertext_expansion"] - expected) < 1e-9


def test_with_an_authority_one_party_fetches_the_sum() -> None:
    sent = uploads(5, 12, True)
    everybody = carry(OWN, opening(sent), [sent])[0].spent.bytes_down
    one = carry(replace(OWN, key_holder="authority"), opening(sent), [sent])[0].spent

    assert everybody == 12 * one.bytes_down


@pytest.mark.parametrize(("scheme", "words"), [("bfv", "BFV"), ("ckks", "CKKS")])
def test_the_promise_names_scheme_key_holder_and_cohort(
    scheme: Any, words: str
) -> None:
    own = Encrypted(scheme=scheme, min_cohort=25)
    clients, authority = (
        replace(own, key_holder=k).guarantee().sentence()
        for k in ("clients", "authority")
    )

    assert clients.startswith("No differential privacy")
    assert words in clients
    assert "secret-key" in clients
    assert "not to collude with the server" in clients
    assert "public-key" in authority
    assert "key authority" in authority
    assert "fewer than 25 uploads" in clients
    assert ("Li and Micciancio" in clients) == (scheme == "ckks")


def test_too_few_clients_are_refused_before_anything_is_sent() -> None:
    few = Sampling("uniform", clients_per_round=5)
    with (
        pytest.raises(SettingsError, match=r"5 clients .* min_cohort=10.*take more"),
        OWN.ready(plan(few)),
    ):
        pass
    sent = uploads(5, 9, True)
    with OWN.ready(plan()) as ready, pytest.raises(SettingsError, match="9 clients"):
        ready.open(opening(sent))


def test_a_wrapped_sum_is_impossible() -> None:
    """Everybody at the bound and beyond: exact, then refused on the device."""
    sent = uploads(3, 14, False)
    sent.rows["items"].value[:] = OWN.bound
    found = carry(OWN, opening(sent), [sent])[0].total
    expected = OWN.bound * found.senders["items"][:, None]
    assert torch.equal(found.tables["items"], expected.expand(-1, 3).float())

    sent.rows["items"].value[0, 0] = OWN.bound * 1.01
    with pytest.raises(SettingsError, match=r"over the 256 that fits.*bound=512"):
        carry(OWN, opening(sent), [sent])


def test_nothing_sent_is_nothing_delivered() -> None:
    with OWN.ready(plan()) as ready:
        delivered = ready.close(ready.open(opening(uploads(1, 12, False))))
    assert delivered.total.clients == 0
    assert delivered.spent == Spent()


def test_without_keys_it_does_not_open() -> None:
    with pytest.raises(RuntimeError, match="ready"):
        OWN.open(opening(uploads(1, 12, False)))


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("bound", 0.0),
        ("bound", float("nan")),
        ("resolution", -1.0),
        ("largest_weight", -1.0),
        ("min_cohort", 1),
        ("workers", 0),
        ("sample", -1),
    ],
)
def test_settings_that_cannot_be(setting: str, value: Any) -> None:
    with pytest.raises(ValueError, match=setting):
        replace(OWN, **{setting: value})


@pytest.mark.parametrize("spec", ["he:scheme=rsa", "he:key_holder=server"])
def test_choices_that_are_none(spec: str) -> None:
    with pytest.raises(SettingsError, match=spec.partition(":")[2].partition("=")[0]):
        choose("channel", spec)


def outcome(of: Method, channel: Channel, machine: Machine, rounds: int = 2) -> Outcome:
    protocol = Protocol(every=1, negatives=20)
    setup = Setup(world(of.task), of, channel, protocol=protocol, rounds=rounds)
    return run(setup, machine)


def learned(of: Outcome) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in state(of).items()}


TOTALS = [n for n in entries("method") if isinstance(method(n), FromTotal)]
QUICK = ("fedmr", "fedavg", "fedncf_federeco", "fedmf", "fedmeta")
EACH = [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in TOTALS]


@pytest.mark.parametrize("name", EACH)
def test_every_method_learns_what_it_learns_from_quantized_uploads(name: str) -> None:
    """Bit for bit, from any shards; and nearly what it learns in the clear."""
    of, channel = method(name), Encrypted()
    found = outcome(of, channel, Machine(workers=1, shard=7))
    twin = outcome(of, Quantized(channel), Machine(workers=1))
    plain = outcome(of, Plain(), Machine(workers=1))

    for key, value in learned(twin).items():
        assert torch.equal(learned(found)[key], value), key
    for key, value in learned(plain).items():
        if not key.startswith("test"):
            torch.testing.assert_close(
                learned(found)[key], value, rtol=2e-3, atol=2e-4, msg=key
            )


@pytest.mark.parametrize("name", ["metamf", "fedfast"])
def test_methods_whose_server_reads_uploads_are_refused(name: str) -> None:
    of = method(name)
    assert not isinstance(of, FromTotal)
    with pytest.raises(SettingsError, match="single uploads"):
        outcome(of, Encrypted(), Machine(workers=1))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spec", "channel"),
    [
        ("fedmr", Encrypted(sample=5)),
        # its learning rate is so large that floating point's own rounding grows, and
        # its weights take of the numbers' length
        ("fedavg", Encrypted(sample=5, resolution=1e-8)),
    ],
)
def test_utility_on_the_demo_is_that_of_plain(spec: str, channel: Encrypted) -> None:
    """30 rounds; one client in 300 that changes its mind would be 0.0033."""
    data = leave_one_out(demo())
    of = choose("method", spec).part
    protocol = Protocol(every=10)
    logs = [
        run(
            Setup(data, of, way, protocol=protocol, rounds=30), Machine(workers=1)
        ).state.log
        for way in (Plain(), channel)
    ]
    for plain, encrypted in zip(*logs, strict=True):
        for key, value in plain.items():
            if key.startswith("utility"):
                assert abs(encrypted[key] - value) <= 1e-4, key
