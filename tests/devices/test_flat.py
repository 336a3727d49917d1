"""Samples laid end to end: the same as padded ones, for any company."""

from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from privfed.data.cohort import Cohort, cohort_of, part_of
from privfed.devices import flat
from privfed.devices.batches import collect
from privfed.devices.flat import Flat, flat_aligned, laid_once, lay
from privfed.devices.negatives import Negatives
from privfed.seeds import Seeds, Stream
from tests.worlds import everyone, uneven

WORLD = uneven()
RULE = Negatives(2)


def stream(seed: int = 0) -> Stream:
    return Seeds(seed)("negatives")


def same(found: Flat, known: Flat) -> bool:
    pairs = zip(vars(found).values(), vars(known).values(), strict=True)
    return all(torch.equal(one, other) for one, other in pairs)


def of(clients: list[int]) -> Cohort:
    return cohort_of(WORLD, torch.tensor(clients, dtype=torch.int64))


def test_it_holds_what_the_padded_layout_holds() -> None:
    cohort = everyone(WORLD)
    padded, laid = collect(cohort, RULE, stream()), lay(cohort, RULE, stream())

    sender, _ = at = padded.rows.nonzero(as_tuple=True)
    assert torch.equal(laid.sender, sender)
    assert torch.equal(laid.item, padded.item[at])
    assert torch.equal(laid.ends.diff(), padded.rows.sum(1))
    drawn = padded.item.gather(1, padded.slot.flatten(1)).view(padded.slot.shape)
    assert torch.equal(laid.item[laid.place], drawn[padded.real])


@given(st.lists(st.sets(st.integers(0, 7), min_size=1), min_size=1, max_size=6))
def test_what_is_remembered_is_what_would_be_laid(rounds: list[set[int]]) -> None:
    draws = stream(len(rounds))
    for clients in rounds:
        cohort = of(sorted(clients))

        assert same(laid_once(cohort, RULE, draws), lay(cohort, RULE, draws))


def test_other_data_of_a_client_are_laid_anew() -> None:
    cohort, draws = everyone(WORLD), stream(1)
    laid_once(cohort, RULE, draws)
    other = replace(cohort, item=(cohort.item + 1) % WORLD.shape.items)
    fewer = replace(cohort, sender=cohort.sender[:-1], item=cohort.item[:-1])

    for one in (other, fewer, cohort):
        assert same(laid_once(one, RULE, draws), lay(one, RULE, draws))


@dataclass(frozen=True)
class Counting(Negatives):
    """Remembers for how many interactions it drew."""

    seen: tuple[list[int], ...] = ([],)

    def __hash__(self) -> int:
        return id(self)

    def drawn(self, cohort: Cohort, within: Tensor, stream: Stream) -> Tensor:
        self.seen[0].append(len(within))
        return super().drawn(cohort, within, stream)


def test_a_client_is_laid_once() -> None:
    rule, draws = Counting(2, seen=([],)), stream()
    for clients in ([0, 2], [2, 3], [0, 3], [0, 2, 3]):
        laid_once(of(clients), rule, draws)

    assert rule.seen[0] == [12, 17]  # of clients 0 and 2, then of client 3


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flat, "_KEPT", 20)
    rule, draws = Counting(2, seen=([],)), stream()
    for clients in ([3], [0, 3], [0, 3], [3]):
        found = laid_once(of(clients), rule, draws)

        assert same(found, lay(of(clients), RULE, draws))
    assert rule.seen[0] == [17, 20, 20]  # client 0 has no room beside client 3


def test_products_and_sums_are_those_of_each_client_alone() -> None:
    rng = torch.Generator().manual_seed(0)
    cohort = everyone(WORLD)
    laid = lay(cohort, RULE, stream())
    x = torch.randn(8, 32, generator=rng)
    table = torch.randn(WORLD.shape.items, 32, generator=rng)
    weight = torch.randn(len(laid.item), generator=rng)

    products, sums = laid.products(x, table), laid.combined(weight, table)

    rows = table[laid.item].double() * x[laid.sender].double()
    torch.testing.assert_close(products.double(), rows.sum(1), rtol=1e-5, atol=1e-5)
    for client in range(8):
        mine = laid.sender == client
        alone = lay(part_of(cohort, torch.tensor([client])), RULE, stream())
        assert torch.equal(alone.products(x[[client]], table), products[mine])
        assert torch.equal(alone.combined(weight[mine], table)[0], sums[client])
        expected = (weight[mine, None] * table[laid.item[mine]]).sum(0)
        torch.testing.assert_close(sums[client], expected, rtol=1e-4, atol=1e-5)


def test_rows_by_size_are_each_clients_own() -> None:
    laid = lay(everyone(WORLD), RULE, stream())
    seen = []
    for group in laid.by_size():
        for client, at, real in zip(group.clients, group.at, group.real, strict=True):
            assert torch.equal(laid.sender[at[real]], client.expand(int(real.sum())))
            seen += at[real].tolist()

    assert sorted(seen) == list(range(len(laid.item)))


def test_how_many_samples_use_a_row_is_counted() -> None:
    laid = lay(everyone(WORLD), RULE, stream())

    uses = laid.uses(laid.place)

    assert uses.sum() == laid.place.numel()
    assert bool((uses >= 1).all())


@given(st.integers(0, 100), st.integers(0, 100))
def test_a_function_is_applied_alike_wherever_a_sample_lies(a: int, b: int) -> None:
    x = torch.linspace(-5, 5, 200)[:, None]
    part = slice(min(a, b), max(a, b) + 1)

    found = flat_aligned(torch.sigmoid, x)

    assert torch.equal(flat_aligned(torch.sigmoid, x[part]), found[part])
