"""Gaussian noise at FedMR's scale, on every row or on the rows sent."""

import re
from dataclasses import replace
from math import sqrt
from typing import Literal

import pytest
import torch

from privfed.choices import choose
from privfed.data.world import Shape
from privfed.defenses.gaussian import Gaussian
from privfed.interfaces import Turn
from privfed.messages import Rows, Uploads, everywhere
from privfed.seeds import Seeds

SHAPE = Shape(30, 50)
STREAM = Seeds(4)("upload 0", 3)
TURN = Turn(0, SHAPE, STREAM)
SENDER = torch.arange(10).repeat_interleave(4)
ITEM = torch.arange(40) % 4 * 7 + SENDER
SENT = Uploads(
    torch.arange(10, 20),
    {"items": Rows(SENDER, ITEM, torch.arange(40.0)[:, None].expand(-1, 64))},
    {"layer.weight": torch.ones(10, 30, 20), "layer.bias": torch.zeros(10, 20)},
    scale={"items": 5.0, "layer.weight": 0.1, "layer.bias": 0.1},
)


def noised(variance: float, touched: bool = False) -> Uploads:
    defense = Gaussian(variance, "touched" if touched else "all")
    return defense.on_upload(SENT, TURN)


def is_standard(ratio: float, count: int) -> bool:
    return abs(ratio - 1) < 5 / sqrt(2 * count)


@pytest.mark.parametrize("touched", [False, True])
@pytest.mark.parametrize("variance", [0.1, 2.0])
def test_noise_has_the_variance_times_the_learning_rate(
    variance: float, touched: bool
) -> None:
    after = noised(variance, touched)
    before = SENT.rows["items"]
    if not touched:
        before = everywhere(before, 10, 50)

    added = {"items": after.rows["items"].value - before.value}
    added |= {n: after.dense[n] - v for n, v in SENT.dense.items()}

    for name, noise in added.items():
        ratio = noise.std().item() / (sqrt(variance) * SENT.scale[name])
        assert is_standard(ratio, noise.numel()), name
        assert abs(noise.mean().item()) < 5 * noise.std().item() / sqrt(noise.numel())
    ratio = added["items"].std().item() / (sqrt(variance) * 5.0)
    assert not is_standard(ratio * 2 / 3, added["items"].numel())
    assert not is_standard(ratio * 3 / 2, added["items"].numel())


def test_every_row_of_every_client_is_sent() -> None:
    rows = noised(0.1).rows["items"]

    assert torch.equal(rows.sender, torch.arange(10).repeat_interleave(50))
    assert torch.equal(rows.item, torch.arange(50).repeat(10))
    assert rows.value.all()


def test_touched_rows_keep_their_ids() -> None:
    rows = noised(0.1, touched=True).rows["items"]

    assert torch.equal(rows.sender, SENDER)
    assert torch.equal(rows.item, ITEM)
    assert not torch.equal(rows.value, SENT.rows["items"].value)


@pytest.mark.parametrize("touched", [False, True])
def test_no_variance_is_the_identity(touched: bool) -> None:
    after = noised(0.0, touched)

    assert torch.equal(after.rows["items"].value, SENT.rows["items"].value)
    assert torch.equal(after.rows["items"].item, ITEM)
    assert torch.equal(after.dense["layer.weight"], SENT.dense["layer.weight"])


@pytest.mark.parametrize("touched", [False, True])
def test_it_is_pure(touched: bool) -> None:
    value, weight = SENT.rows["items"].value.clone(), SENT.dense["layer.weight"].clone()

    first, again = noised(1.0, touched), noised(1.0, touched)

    assert torch.equal(first.rows["items"].value, again.rows["items"].value)
    assert torch.equal(first.dense["layer.bias"], again.dense["layer.bias"])
    assert torch.equal(SENT.rows["items"].value, value)
    assert torch.equal(SENT.dense["layer.weight"], weight)
    assert first.clients is SENT.clients
    assert first.scale == SENT.scale


def test_each_client_draws_its_own_noise_whatever_its_shard() -> None:
    mine = SENDER == 6
    rows = SENT.rows["items"]
    alone = replace(
        SENT,
        clients=SENT.clients[6:7],
        rows={"items": Rows(SENDER[mine] * 0, ITEM[mine], rows.value[mine])},
        dense={n: v[6:7] for n, v in SENT.dense.items()},
    )
    found = Gaussian(1.0, "touched").on_upload(alone, TURN)
    whole = noised(1.0, touched=True)

    assert torch.equal(found.rows["items"].value, whole.rows["items"].value[mine])
    assert torch.equal(found.dense["layer.weight"], whole.dense["layer.weight"][6:7])
    other = whole.dense["layer.weight"][5:6]
    assert not torch.equal(found.dense["layer.weight"], other)


def test_rounds_draw_anew() -> None:
    other = Gaussian(1.0).on_upload(SENT, Turn(4, SHAPE, Seeds(4)("upload 0", 4)))
    assert not torch.equal(other.dense["layer.bias"], noised(1.0).dense["layer.bias"])


def test_everywhere_fills_with_zeros() -> None:
    rows = everywhere(
        Rows(torch.tensor([1]), torch.tensor([2]), torch.ones(1, 2)), 2, 3
    )

    assert rows.sender.tolist() == [0, 0, 0, 1, 1, 1]
    assert rows.item.tolist() == [0, 1, 2] * 2
    assert rows.value.tolist() == [[0.0, 0.0]] * 5 + [[1.0, 1.0]]


def test_only_noise_on_all_rows_sends_every_row() -> None:
    assert Gaussian(0.1).sends_every_row()
    assert not Gaussian(0.1, "touched").sends_every_row()
    assert not Gaussian(0.0).sends_every_row()


def test_it_promises_nothing() -> None:
    for defense in (Gaussian(), Gaussian(rows="touched")):
        assert not defense.guarantee().private
        assert defense.guarantee().epsilon is None
    assert "ids are released exactly" in Gaussian(rows="touched").guarantee().covers


@pytest.mark.parametrize("variance", [-0.1, float("inf"), float("nan")])
def test_an_unusable_variance_is_refused(variance: float) -> None:
    with pytest.raises(ValueError, match="variance"):
        Gaussian(variance)


@pytest.mark.parametrize("units", ["gradient", "upload"])
def test_noise_is_in_the_units_asked_for(units: Literal["gradient", "upload"]) -> None:
    defense = Gaussian(0.04, "touched", units=units)
    added = defense.on_upload(SENT, TURN).rows["items"].value
    added = added - SENT.rows["items"].value

    unit = 5.0 if units == "gradient" else 1.0

    assert is_standard(added.std().item() / (0.2 * unit), added.numel())
    assert not is_standard(added.std().item() / (0.3 * unit), added.numel())
    assert not is_standard(added.std().item() / (0.2 * unit / 1.5), added.numel())


def test_imia_ldp_is_what_its_released_code_does() -> None:
    """Each row cut to norm 1, then noise whose *covariance* is 0.001; ids exact."""
    defense = choose("defense", "imia_ldp").part
    after = defense.on_upload(SENT, TURN).rows["items"]

    rows = SENT.rows["items"].value
    short = rows / rows.norm(2, dim=-1, keepdim=True).clamp_min(1.0)
    added = after.value - short

    assert torch.equal(after.item, ITEM)
    assert is_standard(added.std().item() / sqrt(0.001), added.numel())
    assert not is_standard(added.std().item() / 0.001, added.numel())


def test_clipping_comes_before_the_noise() -> None:
    quiet = Gaussian(0.0, clip=2.0, per="upload", units="upload")
    loud = Gaussian(1.0, "touched", 2.0, "upload", "upload")

    short = quiet.on_upload(SENT, TURN)
    added = loud.on_upload(SENT, TURN).dense["layer.weight"]
    plain = Gaussian(1.0, "touched", units="upload").on_upload(SENT, TURN)
    noise = plain.dense["layer.weight"] - SENT.dense["layer.weight"]

    torch.testing.assert_close(added - short.dense["layer.weight"], noise)


def test_packed_numbers_are_whole_again_under_noise() -> None:
    packed = replace(SENT, packed={"items": torch.ones(10, dtype=torch.int64)})
    assert not Gaussian(0.1).on_upload(packed, TURN).packed


@pytest.mark.parametrize(
    ("defense", "words"),
    [
        (Gaussian(), "gradients are not clipped"),
        (Gaussian(clip=1.0), r"1 \* sqrt\(its rows\).*ldp"),
        (Gaussian(clip=2.0, per="tensor"), r"2 \* sqrt\(its tensors\).*ldp"),
        (Gaussian(clip=1.0, per="upload"), "no epsilon is accounted.*ldp"),
        (Gaussian(rows="touched", clip=1.0), "not DP at any noise: which rows"),
    ],
)
def test_it_says_what_its_clipping_bounds(defense: Gaussian, words: str) -> None:
    assert re.search(words, defense.guarantee().sentence())


@pytest.mark.parametrize("clip", [0.0, -1.0, float("inf")])
def test_an_unusable_clip_is_refused(clip: float) -> None:
    with pytest.raises(ValueError, match="clip"):
        Gaussian(clip=clip)
