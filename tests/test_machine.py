"""Memory, devices and shards: what a run computes on."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from privfed.data.world import Shape
from privfed.devices.batches import bucket
from privfed.errors import SettingsError
from privfed.machine import Machine, device_of, let_go, parse_bytes, size_of
from privfed.methods.bpr import BPR
from privfed.methods.fedavg import FedAvg

SHAPE = Shape(50, 300)
METHOD = FedAvg(width=16)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4GiB", 4 * 2**30),
        ("512 MiB", 512 * 2**20),
        ("500MB", 500 * 10**6),
        ("2e9", 2 * 10**9),
        ("1.5kib", 1536),
        (" 7 ", 7),
        ("3g", 3 * 10**9),
    ],
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "much", "4 GiB of it", "-1", "GiB", "0x10"])
def test_no_size_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="is no size; write 4GiB"):
        parse_bytes(text)


@pytest.mark.parametrize("name", ["memory", "workers", "shard"])
def test_a_machine_has_at_least_one_of_each(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1"):
        Machine(**{name: 0})  # type: ignore[arg-type]


@pytest.mark.parametrize("memory", [2**21, 2**24, 2**31])
@pytest.mark.parametrize("shard", [1, 7, 512])
def test_shards_hold_every_client_once_of_one_size_and_within_memory(
    memory: int, shard: int
) -> None:
    counts = torch.randint(1, 60, (50,), generator=torch.Generator().manual_seed(1))
    machine = Machine(memory=memory, workers=1, shard=shard)
    shards = machine.shards(counts, SHAPE, METHOD, dense=False)

    assert torch.equal(torch.cat(list(shards)).sort().values, torch.arange(50))
    for at in shards:
        [size] = torch.unique(bucket(counts[at])).tolist()
        need = METHOD.footprint(SHAPE, size) * len(at)
        assert need <= memory // 4
        assert len(at) <= shard


@pytest.mark.parametrize("memory", [2**18, 2**21, 2**31])
@pytest.mark.parametrize("shard", [1, 7, 512])
def test_shards_of_clients_that_nobody_pads_are_runs_within_memory(
    memory: int, shard: int
) -> None:
    rng = torch.Generator().manual_seed(1)
    counts, method = torch.randint(0, 120, (500,), generator=rng), BPR(width=8)
    machine = Machine(memory=memory, workers=1, shard=shard)
    shards = machine.shards(counts, SHAPE, method, dense=False)

    assert torch.equal(torch.cat(list(shards)), torch.arange(500))
    for at in shards:
        need = sum(method.footprint(SHAPE, int(n)) for n in counts[at])
        assert need <= memory // 4
        assert len(at) <= shard
    if memory == 2**31 and shard == 512:
        assert len(shards) == 1


def test_clients_of_many_interactions_make_more_shards() -> None:
    method, machine = BPR(width=8), Machine(workers=1)
    few, many = torch.full((40,), 10), torch.full((40,), 10_000)

    shards = machine.shards(many, SHAPE, method, dense=False)

    assert len(machine.shards(few, SHAPE, method, dense=False)) == 1
    assert torch.equal(torch.cat(list(shards)), torch.arange(40))
    assert 1 < len(shards) < 40


@pytest.mark.skipif(
    sys.platform != "linux" or platform.libc_ver()[0] != "glibc",
    reason="asks glibc, reads /proc",
)
def test_freed_blocks_are_kept_for_the_next_round() -> None:
    script = """
from tests.test_machine import _resident
from privfed.machine import keep_freed_memory

def left():
    before = _resident()
    blocks = [bytearray(b"x") * 2**20 for _ in range(100)]
    del blocks
    return (_resident() - before) // 2**20

first = left()
keep_freed_memory()
print(first, left())
"""
    at_once = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}
    found = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **at_once},  # glibc's own start, which it gives up over time
    )

    handed_back, kept = map(int, found.stdout.split())
    assert handed_back < 20
    assert kept > 80


def test_dense_uploads_make_smaller_shards() -> None:
    counts, machine = torch.full((50,), 4), Machine(memory=2**22, workers=1)

    sparse = machine.shards(counts, SHAPE, METHOD, dense=False)
    dense = machine.shards(counts, SHAPE, METHOD, dense=True)
    assert len(dense) > len(sparse)


def test_a_client_over_the_budget_is_told_with_the_budget_to_give() -> None:
    counts = torch.tensor([50])
    with pytest.raises(SettingsError, match=r"one client needs .* give --memory"):
        Machine(memory=1000).shards(counts, SHAPE, METHOD, dense=False)


def test_a_large_private_table_lives_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    table = torch.zeros(1, 1, 1).expand(40, 30, 8)
    size = 40 * 30 * 8 * 4
    small = Machine(memory=3 * size).home({"own": table})["own"]
    large = Machine(memory=size).home({"own": table})["own"]

    assert not list(tmp_path.iterdir())  # the file has no name
    for home in (small, large):
        assert home.shape == table.shape
        assert home.is_contiguous()
        home[3, 5] = 2.0
        assert home.sum() == 16.0
    assert not table.any()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_letting_go_keeps_the_content_and_gives_back_the_memory() -> None:
    table = torch.zeros(1, 1, 1).expand(64, 1024, 128)  # 32 MiB
    private = Machine(memory=2**20).home({"own": table})
    private["own"] += 1.0
    before = _resident()
    let_go(private)

    assert before - _resident() > 24 * 2**20
    assert bool((private["own"] == 1.0).all())


def test_letting_go_leaves_memory_that_is_no_file_alone() -> None:
    private = Machine().home({"own": torch.ones(3, 4)})
    let_go(private)

    assert private["own"].sum() == 12.0


def test_a_private_table_that_starts_uneven_needs_memory() -> None:
    with pytest.raises(SettingsError, match="private state own needs"):
        Machine(memory=100).home({"own": torch.ones(50, 4)})


def test_a_full_disk_is_told_before_it_is_full(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Usage:
        free = 10

    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage)
    with pytest.raises(SettingsError, match="set TMPDIR to a larger disk"):
        Machine(memory=100).home({"own": torch.zeros(50, 4)})


@pytest.mark.parametrize("name", ["nonsense", "cuda:99", "vulkan"])
def test_a_device_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match=f"device '{name}'"):
        device_of(name)


def test_the_processor_is_always_there() -> None:
    assert device_of("cpu").type == "cpu"


def _resident() -> int:
    [line] = [
        x for x in Path("/proc/self/status").read_text().splitlines() if "VmRSS" in x
    ]
    return int(line.split()[1]) * 1024


@given(st.integers(1, 2**45))
def test_a_size_is_told_so_that_it_is_read_back_as_no_less(count: int) -> None:
    told = parse_bytes(size_of(count))

    assert told >= count or told == pytest.approx(count, rel=1e-9)
    assert told <= 1.1 * count + 2**20
