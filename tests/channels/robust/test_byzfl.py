"""On whole vectors the rules agree with ByzFL's, where that is installed."""

from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from privfed.channels.robust.channel import Robust
from privfed.channels.robust.rules import Krum, Median, MultiKrum, TrimmedMean
from privfed.data.world import Shape
from privfed.messages import Uploads
from tests.worlds import opening

byzfl = pytest.importorskip("byzfl", reason="ByzFL is not installed")
CLIENTS, LIARS = 23, 4


def ours(rule: Robust, x: Tensor) -> Tensor:
    clients = torch.arange(len(x))
    opened = rule.open(opening(Shape(len(x), 1)))
    opened, _ = rule.send(opened, Uploads(clients, dense={"x": x}))
    return rule.close(opened).total.dense["x"] / len(x)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("forged", [False, True])
def test_rules_agree(seed: int, forged: bool) -> None:
    x = torch.randn(CLIENTS, 17, generator=Generator().manual_seed(seed))
    if forged:
        x[:LIARS] *= 50
    krum = Krum("upload", LIARS, "n-f-1")
    pairs: dict[Robust, Any] = {
        Median(per="upload"): byzfl.Median(),
        TrimmedMean(per="upload", malicious=LIARS): byzfl.TrMean(LIARS),
        krum: byzfl.Krum(LIARS),
        MultiKrum("upload", LIARS, "n-f-1"): byzfl.MultiKrum(LIARS),
    }
    for rule, theirs in pairs.items():
        torch.testing.assert_close(ours(rule, x), theirs(x), rtol=1e-5, atol=1e-5)
