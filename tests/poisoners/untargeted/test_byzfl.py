"""On whole vectors the forged uploads are ByzFL's, where that is installed."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from privfed.methods.bpr import BPR
from privfed.poisoners.untargeted.inner_product import InnerProductManipulation
from privfed.poisoners.untargeted.little_is_enough import LittleIsEnough
from privfed.poisoners.untargeted.made_up import Degrader
from tests.poisoners.plots import plot, sortie
from tests.poisoners.untargeted.sent import ITEMS, some_uploads, vectors

byzfl = pytest.importorskip("byzfl", reason="ByzFL is not installed")


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("share", [0.2, 0.9])
def test_attacks_agree(seed: int, share: float) -> None:
    honest = some_uploads(range(11), share, seed)
    pairs: dict[Degrader, Any] = {
        LittleIsEnough(z=1.5, per="upload"): byzfl.ALittleIsEnough(-1.5),
        InnerProductManipulation(
            factor=2.0, per="upload"
        ): byzfl.InnerProductManipulation(2.0),
        InnerProductManipulation(factor=1.0, per="upload"): byzfl.SignFlipping(),
    }
    granted = replace(sortie({}, some_uploads((11, 12))), honest=honest)
    there = plot(BPR(), ITEMS, 11, 2, targets=())
    for poisoner, theirs in pairs.items():
        _, found = poisoner.forge({}, granted, there)
        expected = theirs(vectors(honest)).expand(2, -1)
        torch.testing.assert_close(vectors(found), expected)
