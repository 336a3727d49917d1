"""Gradients over public features name the items; none over unknown ones does."""

from dataclasses import replace

import pytest
import torch
from torch import Generator

from privfed.adversary import Prior
from privfed.attacks.items.feature_span import FeatureSpan
from privfed.channels.plain import Plain
from privfed.defenses.gaussian import Gaussian
from privfed.evaluation.protocol import Protocol
from privfed.guesses import Items
from privfed.interfaces import Defense
from privfed.methods.fedavg import FedAvg
from privfed.methods.fedmr import FedMR
from privfed.metrics.leakage.items import score
from privfed.rounds import Setup, run
from privfed.seeds import Seeds
from privfed.views import ModelView, UploadsView
from tests.attacks.views import SEEDS, trained
from tests.worlds import world

RNG = Generator().manual_seed(8)
LISTS = [torch.randperm(60, generator=RNG)[: 4 + k].tolist() for k in range(6)]
WIDE = world(LISTS, 60, features={"text": torch.randn(60, 48, generator=RNG)})
METHOD = FedMR(width=8, id_width=32, epochs=1, item_rate=0.01, fusion="sum")


def f1(method: FedMR = METHOD, *defenses: Defense) -> float:
    attacks = {"span": FeatureSpan()}
    asked = Setup(WIDE, method, Plain(), defenses, attacks, rounds=1)
    asked = replace(asked, protocol=Protocol("full"))
    found = run(asked).guesses["span"]
    assert isinstance(found, Items)
    return float(score(found, WIDE.train)["f1"].mean())


def test_projections_alone_name_every_interaction() -> None:
    """48 + 32 numbers for each of 60 items: one solution."""
    assert f1() == 1.0


def test_a_mixture_of_experts_hides_little() -> None:
    assert f1(replace(METHOD, fusion="mix", width=32, id_width=256)) > 0.9


def test_fewer_features_than_items_tell_less() -> None:
    assert f1(replace(METHOD, id_width=4, modalities="id")) < 0.6


def test_noise_on_all_that_is_sent_leaves_popularity() -> None:
    assert f1(METHOD, Gaussian(variance=0.1)) < 0.5


def test_no_item_row_is_read() -> None:
    """The same guess where the rows that were sent are zeros."""
    prior = Prior(
        WIDE.shape,
        Seeds(0)("attack"),
        METHOD,
        popularity=WIDE.popularity,
        features=WIDE.features,
    )
    found = []
    for blank in (False, True):
        attack = FeatureSpan().prepare(prior)
        memory = attack.start(prior)
        for view in _views():
            if isinstance(view, UploadsView) and blank:
                rows = {
                    n: replace(r, value=torch.zeros_like(r.value))
                    for n, r in view.uploads.rows.items()
                }
                view = replace(view, uploads=replace(view.uploads, rows=rows))
            memory = attack.observe(memory, view)
        found.append(attack.guess(memory, prior))
    one, other = found
    assert isinstance(one, Items)
    assert isinstance(other, Items)
    assert torch.equal(one.score, other.score)


def _views() -> list[ModelView | UploadsView]:
    model, _ = METHOD.init(WIDE.shape, SEEDS("init"))
    return [ModelView(round=0, model=model), *trained(METHOD, WIDE)]


def test_it_says_why_it_reads_no_method_without_features() -> None:
    assert FeatureSpan().misfit(METHOD) == ""
    assert "features" in FeatureSpan().misfit(FedAvg())


def test_settings_that_mean_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="ridge"):
        FeatureSpan(ridge=0.0)
