"""FCF's dense upload gives away who took what, how much each weighed, and x."""

import pytest
import torch
from torch import Generator

from privfed.adversary import Prior
from privfed.attacks.items.fcf_dense import FCFDense, Solved
from privfed.data.cohort import cohort_of
from privfed.data.world import World, ragged
from privfed.guesses import Items
from privfed.interfaces import Round
from privfed.messages import Rows
from privfed.methods.factors import distinct
from privfed.methods.fcf_original import FCFOriginal
from privfed.methods.fedavg import FedAvg
from privfed.seeds import Seeds
from privfed.views import ModelView
from tests.attacks.views import truth, view_of
from tests.worlds import everyone, uneven

METHOD = FCFOriginal(width=8)
SEEDS = Seeds(3)


def uploaded(of: World) -> tuple[torch.Tensor, Rows]:
    """The table that devices received, and their rows."""
    model, private = METHOD.init(of.shape, SEEDS("init"))
    now = Round(0, SEEDS("train"), SEEDS("once"))
    up = METHOD.train(model, private, everyone(of), now).uploads
    return model["items"], up.rows["items"]


def claimed(of: World, table: torch.Tensor, *uploads: Rows) -> Items:
    prior = Prior(of.shape, SEEDS("attack"), METHOD)
    attack = FCFDense().prepare(prior)
    memory = attack.start(prior)
    for number, rows in enumerate(uploads):
        memory = attack.observe(memory, ModelView(round=number, model={"items": table}))
        everybody = torch.arange(of.shape.clients)
        memory = attack.observe(memory, view_of(everybody, {"items": rows}, number))
    found = attack.guess(memory, prior)
    assert isinstance(found, Items)
    return found


def test_one_upload_gives_every_interaction_away() -> None:
    of = uneven()
    found = claimed(of, *uploaded(of))
    assert torch.equal(found.chosen, truth(of, found.clients))


def test_the_vector_and_the_weight_of_every_interaction_follow_too() -> None:
    of = uneven()
    count = of.train.label.clone()
    count[::3] = 4.0  # taken four times
    train = ragged(of.shape.clients, of.train.owner, of.train.item, count)
    graded = World("graded", of.shape, train, of.validation, of.test)
    table, rows = uploaded(graded)

    solved = Solved.of(rows, table, of.shape.clients, 50)

    cohort = cohort_of(graded, torch.arange(of.shape.clients))
    vectors = METHOD.users({"items": table}, distinct(cohort))
    some = train.counts > 0
    torch.testing.assert_close(
        solved.user[some].float(), vectors[some], rtol=1e-3, atol=1e-5
    )
    found = solved.confidence[train.owner, train.item]
    torch.testing.assert_close(
        found.float(), 1 + METHOD.confidence * count, rtol=1e-2, atol=1e-2
    )


def test_noise_on_every_number_averages_out() -> None:
    of = uneven()
    table, rows = uploaded(of)
    rng, noisy = Generator().manual_seed(1), []
    for _ in range(40):
        noise = torch.randn(rows.value.shape, generator=rng) * 5.0
        noisy.append(Rows(rows.sender, rows.item, rows.value + noise))

    one, many = claimed(of, table, noisy[0]), claimed(of, table, *noisy)

    def right(found: Items) -> float:
        return float((found.chosen == truth(of, found.clients)).double().mean())

    assert right(many) > right(one) + 0.05
    assert right(many) > 0.9


def test_noise_alone_is_no_interaction() -> None:
    of = uneven()
    rng = Generator().manual_seed(2)
    table, rows = uploaded(of)
    noise = torch.randn(rows.value.shape, generator=rng)
    found = claimed(of, table, Rows(rows.sender, rows.item, noise))
    assert not found.chosen.any()


def test_it_says_why_it_reads_no_other_method() -> None:
    assert FCFDense().misfit(METHOD) == ""
    assert "FCF" in FCFDense().misfit(FedAvg())


def test_settings_that_mean_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="deviations"):
        FCFDense(deviations=1.0)
