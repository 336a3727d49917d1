"""Interactions come out of repeated local training."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from privfed.adversary import Prior
from privfed.attacks.items.raifle import Raifle, likely_count
from privfed.attacks.reading import records
from privfed.devices.batches import collect
from privfed.guesses import Items
from privfed.interfaces import Round
from privfed.methods.backbone import Backbone
from privfed.methods.bpr import BPR
from privfed.methods.fcf import FCF
from privfed.methods.fedncf import FedNCF
from privfed.methods.fedrap import FedRAP
from privfed.seeds import Seeds
from privfed.views import ModelView, UploadsView
from tests.test_replay import METHODS
from tests.worlds import everyone, shards, uneven

SEEDS = Seeds(6)
WORLD = uneven((8, 6, 9, 7), 200)


def claimed(attack: Raifle, of: Backbone, noise: float = 0.0) -> Items:
    prior = Prior(WORLD.shape, SEEDS("attack"), of)
    memory = attack.start(prior)
    model, private = of.init(WORLD.shape, SEEDS("init"))
    memory = attack.observe(memory, ModelView(round=0, model=model))
    rng = torch.Generator().manual_seed(1)

    def noised(x: Tensor) -> Tensor:
        return x + noise * torch.randn(x.shape, generator=rng) * x.abs().mean()

    for cohort in shards(WORLD, 2):
        now = Round(0, SEEDS("train", 0), SEEDS("once"))
        up = of.train(model, private, cohort, now).uploads
        rows = {n: replace(r, value=noised(r.value)) for n, r in up.rows.items()}
        up = replace(up, rows=rows, dense={n: noised(v) for n, v in up.dense.items()})
        items = {n: (r.sender, r.item) for n, r in rows.items()}
        size = torch.zeros(len(cohort.clients), dtype=torch.int64)
        view = UploadsView(
            round=0, clients=up.clients, bytes_up=size, items=items, uploads=up
        )
        memory = attack.observe(memory, view)
    return attack.guess(memory, prior)


def f1(found: Items) -> float:
    true = torch.zeros(WORLD.shape.clients, WORLD.shape.items, dtype=torch.bool)
    true[WORLD.train.owner, WORLD.train.item] = True
    mine = true[found.clients]
    hits = (mine & found.chosen).sum(1).double()
    return float((2 * hits / (mine.sum(1) + found.chosen.sum(1))).mean())


@pytest.mark.parametrize("of", [FedNCF, FCF, FedRAP])
def test_it_finds_the_interactions_among_the_negatives(of: type[Backbone]) -> None:
    method = of(width=16, learning_rate=0.05, epochs=2, item_std=0.3)

    assert f1(claimed(Raifle(tries=2), method)) > 0.8  # chance is 0.2


def test_under_noise_that_drowns_uploads_it_does_no_better_than_chance() -> None:
    method = FCF(width=8, learning_rate=0.5, epochs=2, item_std=0.3)

    assert f1(claimed(Raifle(iterations=20), method, 30.0)) < 0.5


def test_scores_are_finite_and_lowest_where_nothing_was_sent() -> None:
    found = claimed(Raifle(iterations=5), FCF(width=8, epochs=1))

    assert bool(found.score.isfinite().all())
    assert float(found.score.min()) == -31.0
    assert bool((found.score[found.chosen] > -31.0).all())


def test_the_likely_count_is_that_of_the_sampling_rule() -> None:
    method = METHODS[0]
    world = uneven((30, 12, 60), 400)
    samples = collect(everyone(world), method.sampling(), SEEDS("draw"))

    found = likely_count(samples.rows.sum(1), method.negatives, 400)

    gap = (found - world.train.counts).abs()
    assert bool((gap <= 0.1 * world.train.counts + 1).all())
    assert likely_count(torch.tensor([7]), 0, 30).tolist() == [7]


def test_only_methods_whose_training_can_be_repeated_are_attacked() -> None:
    assert Raifle().misfit(FedNCF()) == ""
    assert "cannot repeat" in Raifle().misfit(BPR())


def test_rows_that_a_table_lacks_did_not_move() -> None:
    prior = Prior(WORLD.shape, SEEDS("attack"), FedNCF(width=8))
    memory = records.begin(prior)
    model, private = FedNCF(width=8).init(WORLD.shape, SEEDS("init"))
    cohort = everyone(WORLD)
    now = Round(0, SEEDS("train", 0), SEEDS("once"))
    up = FedNCF(width=8).train(model, private, cohort, now).uploads
    rows = up.rows["items_mf"]
    keep = torch.arange(len(rows.item)) % 2 == 0
    half = replace(
        rows, sender=rows.sender[keep], item=rows.item[keep], value=rows.value[keep]
    )
    up = replace(up, rows={**up.rows, "items_mf": half})
    memory = records.received(memory, ModelView(round=0, model=model))
    view = UploadsView(
        round=0,
        clients=up.clients,
        bytes_up=torch.zeros(4, dtype=torch.int64),
        items={},
        uploads=up,
    )
    memory = records.sent(memory, view, 4, 1)

    [sent] = records.victims(memory).uploads

    whole = up.rows["items_mlp"]
    assert int(sent.real.sum()) == len(whole.item)
    moved = sent.rows_moved["items_mf"][sent.real]
    assert torch.equal(moved[~keep], torch.zeros_like(moved[~keep]))
    torch.testing.assert_close(moved[keep], half.value.double())
    torch.testing.assert_close(
        sent.rows["items_mlp"][sent.real], model["items_mlp"][whole.item].double()
    )
