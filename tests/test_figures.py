"""Figures against means that are worked out by hand."""

from dataclasses import replace

import pytest
import torch

from privfed import figures
from privfed.attacks.items.sign_pc import SignPC
from privfed.attacks.items.support import Support
from privfed.channels.plain import Plain
from privfed.data.load import DataSettings, load
from privfed.evaluation.judge import task_of
from privfed.evaluation.protocol import Protocol
from privfed.guesses import Items
from privfed.methods.fcf import FCF
from privfed.rounds import Outcome, Setup, run
from privfed.seeds import Seeds

WORLD = load(DataSettings(features=())).world
SETUP = Setup(
    WORLD,
    FCF(width=8, epochs=1),
    Plain(),
    attacks={"support": Support(), "sign_pc": SignPC()},
    rounds=2,
)
DRAWS = Seeds(0)("bootstrap")
OUTCOMES = [run(replace(SETUP, seed=seed)) for seed in (0, 1, 2)]


def truth(client: int) -> set[int]:
    start, end = WORLD.train.offsets[client : client + 2].tolist()
    return set(WORLD.train.item[start:end].tolist())


def recall_of(outcome: Outcome) -> float:
    guess = outcome.guesses["sign_pc"]
    assert isinstance(guess, Items)
    found = []
    for row, client in enumerate(guess.clients.tolist()):
        claimed = set(guess.chosen[row].nonzero()[:, 0].tolist())
        found.append(len(claimed & truth(client)) / len(truth(client)))
    return sum(found) / len(found)


def test_leakage_is_the_mean_over_clients_of_what_was_recovered() -> None:
    leaked = figures.recovered(OUTCOMES[:1], DRAWS)
    found, prior = leaked.figures, leaked.prior

    key = "leakage.sign_pc.recall"
    assert found[key].value == pytest.approx(recall_of(OUTCOMES[0]))
    assert found["leakage.support.recall"].value == 1.0
    assert found[key].over == "clients"
    assert not leaked.refused
    gain = found["leakage.support.f1"].value - prior["leakage.support.f1"]["prior"]
    assert found["leakage.support.f1_advantage"].value == pytest.approx(gain)


def test_several_seeds_are_averaged_and_give_the_interval() -> None:
    found = figures.recovered(OUTCOMES, DRAWS).figures
    each = [recall_of(outcome) for outcome in OUTCOMES]
    figure = found["leakage.sign_pc.recall"]

    assert figure.value == pytest.approx(sum(each) / 3)
    assert figure.over == "seeds"
    assert figure.low is not None
    assert figure.high is not None
    assert figure.low <= figure.value <= figure.high


def test_utility_is_that_of_the_best_round() -> None:
    found = figures.utility(OUTCOMES[:1], DRAWS)
    log = {row["round"]: row for row in OUTCOMES[0].state.log}
    best = log[OUTCOMES[0].state.best.round]

    assert found["utility.hr@10"].value == pytest.approx(best["utility.hr@10"])
    assert found["utility.ndcg@10"].value == pytest.approx(best["utility.ndcg@10"])
    assert found["fairness.ndcg@10_std"].value > 0


def test_popularity_ranks_by_training_counts_and_nothing_else() -> None:
    protocol = Protocol(ranking="full", at=(5,))
    counts = WORLD.popularity.tolist()
    order = sorted(range(WORLD.shape.items), key=lambda i: (-counts[i], i))
    hits = []
    for client in range(WORLD.shape.clients):
        start, end = WORLD.test.offsets[client : client + 2].tolist()
        wanted = WORLD.test.item[start:end].tolist()
        if wanted:
            offered = [i for i in order if i not in truth(client)][:5]
            hits.append(len(set(wanted) & set(offered)) / len(wanted))

    task = task_of(FCF(), WORLD, protocol, Seeds(0))
    floor = figures.references([task])

    assert floor["utility.hr@5"]["popularity"] == pytest.approx(sum(hits) / len(hits))


def test_costs_are_per_client_and_round() -> None:
    found = figures.costs(OUTCOMES[:1])
    table = WORLD.shape.items * 8 * 4

    assert found["cost.bytes_down"].value == table
    assert 0 < found["cost.bytes_up"].value <= table + WORLD.shape.items * 4
    assert torch.tensor([f.value for f in found.values()]).gt(0).all()
