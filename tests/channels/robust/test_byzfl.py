"""On whole vectors the rules agree with ByzFL's, where that is installed."""

import pytest
import torch
from torch import Generator, Tensor

from privfed.channels.robust.rules import (
    Krum,
    Median,
    MultiKrum,
    Robust,
    TrimmedMean,
)
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
    share = {"malicious": LIARS, "neighbors": "n-f-1", "per": "upload"}
    pairs = {
        Median(per="upload"): byzfl.Median(),
        TrimmedMean(per="upload", malicious=LIARS): byzfl.TrMean(LIARS),
        Krum(**share): byzfl.Krum(LIARS),
        MultiKrum(**share): byzfl.MultiKrum(LIARS),
    }
    for rule, theirs in pairs.items():
        torch.testing.assert_close(ours(rule, x), theirs(x), rtol=1e-5, atol=1e-5)
