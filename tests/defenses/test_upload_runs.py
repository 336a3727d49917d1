"""Whole runs under defenses of uploads and of local training."""

from pathlib import Path

import pytest
import torch

from privfed.channels.plain import Plain
from privfed.choices import choose
from privfed.data.splits import leave_one_out
from privfed.data.worlds import demo
from privfed.errors import SettingsError
from privfed.evaluation.protocol import Protocol
from privfed.machine import Machine
from privfed.rounds import Keeping, Outcome, Setup, run

WORLD = leave_one_out(demo(users=24, items=60))
FCF = "fcf:width=16,batch=64"
RUNS = [
    ("bpr", "gaussian:clip=0.5,per=upload,variance=0.001"),
    ("fedncf", "imia_ldp"),
    ("fedncf_federeco", "fedgnn:pseudo=20"),
    ("bpr", "top_k"),
    ("fedncf", "top_k:of=numbers"),
    ("fedncf_federeco", "quantize:bits=4"),
    ("bpr", "row_dropout"),
    (FCF, "imia_regularizer:mu=0.001"),
    (FCF, "regula"),
    ("bpr", "regula"),
]


def setup(method: str, *defenses: str, rounds: int = 4) -> Setup:
    chain = tuple(choose("defense", one).part for one in defenses)
    protocol = Protocol(every=1, negatives=20)
    part = choose("method", method).part
    return Setup(WORLD, part, Plain(), chain, protocol=protocol, rounds=rounds)


def same(one: Outcome, other: Outcome) -> None:
    for name, value in one.state.model.items():
        assert torch.equal(other.state.model[name], value), name
    for name, value in one.state.private.items():
        assert torch.equal(other.state.private[name], value), name
    assert one.state.costs.bytes_up == other.state.costs.bytes_up


@pytest.mark.parametrize(("method", "defense"), RUNS)
def test_neither_shards_nor_workers_change_a_bit(method: str, defense: str) -> None:
    whole = run(setup(method, defense), Machine(workers=1))

    for machine in (Machine(workers=1, shard=1), Machine(workers=2, shard=3)):
        same(run(setup(method, defense), machine), whole)


@pytest.mark.parametrize("method", ["bpr", FCF])
def test_what_regula_remembers_is_saved_with_a_run(method: str, tmp_path: Path) -> None:
    """Stopped after the first model, before the second that items are mined from."""
    asked, path = setup(method, "regula"), tmp_path / "run.safetensors"
    whole = run(asked, Machine(workers=1))

    class Stop(Exception):
        pass

    def stop(at: float, *_: object) -> None:
        if at >= 2:
            raise Stop  # before the second round is saved

    saving = Keeping(path, every=1)
    with pytest.raises(Stop):
        run(asked, Machine(workers=1), saving, stop)
    assert path.exists()
    resumed = run(asked, Machine(workers=1), Keeping(path, 1, True))

    same(resumed, whole)


@pytest.mark.parametrize(
    ("method", "defenses", "words"),
    [
        ("fedavg_neumf", ["regula"], "takes no further term"),
        ("bpr", ["imia_regularizer"], "bpr takes one local step"),
        ("bpr", ["dp", "regula"], "takes no further term"),
        ("bpr", ["quantize", "top_k:of=numbers"], "packed the upload already"),
        ("bpr", ["pseudo_items"], "take --defense fedgnn"),
    ],
)
def test_what_cannot_go_together_says_so_in_one_line(
    method: str, defenses: list[str], words: str
) -> None:
    with pytest.raises(SettingsError, match=words) as caught:
        run(setup(method, *defenses), Machine(workers=1))
    assert "\n" not in str(caught.value)


def test_fewer_bytes_are_counted() -> None:
    def sent(*defenses: str) -> int:
        return run(setup("fedncf", *defenses, rounds=1)).state.costs.bytes_up

    plain = sent()

    assert 0.24 < sent("quantize:bits=8") / plain < 0.30
    assert sent("top_k:share=0.1,of=numbers") < 0.21 * plain
    assert sent("top_k:share=0.1,of=rows", "quantize:bits=8") < sent("quantize:bits=8")
    assert sent("gaussian:variance=0.0001,rows=touched") == plain
