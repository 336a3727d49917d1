"""Made-up ratings in a device's data."""

from dataclasses import replace
from typing import Literal

import pytest
import torch
from torch import Tensor

from privfed.attacks.items.support import Support
from privfed.channels.plain import Plain
from privfed.data.cohort import Cohort, cohort_of
from privfed.data.splits import by_ratio, leave_one_out
from privfed.data.world import Pairs
from privfed.data.worlds import demo
from privfed.defenses import pseudo_items
from privfed.defenses.pseudo_items import PseudoItems
from privfed.errors import SettingsError
from privfed.evaluation.protocol import Protocol
from privfed.guesses import Items
from privfed.interfaces import Method, Plan, Turn
from privfed.machine import Machine
from privfed.methods.bpr import BPR
from privfed.methods.fedmf import FedMF
from privfed.methods.fedrec import FedRec
from privfed.rounds import Outcome, Setup, run
from privfed.sampling import Sampling
from privfed.seeds import Seeds
from tests.methods.factored import MANY, rated, round_of, shaken
from tests.worlds import everyone, uneven

WORLD = rated(uneven(MANY, items=60))
FREE = torch.tensor([count > 0 for count in MANY])


def predict(cohort: Cohort, pairs: Pairs) -> Tensor:
    """Something that depends on client and item, below and above the scale too."""
    return cohort.clients[pairs.sender].float() - 3 + pairs.item / 10


def turn(number: int = 3) -> Turn:
    shape = replace(WORLD.shape, scale=(1.0, 5.0))
    return Turn(number, shape, round_of(number).stream, predict=predict)


def data() -> Cohort:
    return replace(everyone(WORLD), shape=turn().shape)


def by_client(cohort: Cohort, client: int) -> tuple[Tensor, Tensor]:
    own = cohort.sender == client
    return cohort.item[own], cohort.label[own]


@pytest.mark.parametrize("share", [1, 2, 3])
def test_each_client_gets_its_own_unrated_items_after_its_ratings(share: int) -> None:
    after = PseudoItems(share).on_data(data(), turn())

    assert (after.sender.diff() >= 0).all()
    assert len(after.context) == len(after.item)
    for client, count in enumerate(MANY):
        item, label = by_client(data(), client)
        both, labels = by_client(after, client)
        made = both[count:]
        assert torch.equal(both[:count], item)
        assert torch.equal(labels[:count], label)
        assert len(made) == len(set(made.tolist())) == min(share * count, 60 - count)
        assert not torch.isin(made, item).any()


@pytest.mark.parametrize("fill", ["mean", "hybrid"])
def test_their_rating_is_the_mean_or_a_prediction_cut_to_the_scale(
    fill: Literal["mean", "hybrid"],
) -> None:
    defense = PseudoItems(2, fill, predict_after=5)
    for number in (5, 6):
        after = defense.on_data(data(), turn(number))
        for client, count in enumerate(MANY):
            _, own = by_client(data(), client)
            item, label = by_client(after, client)
            expected = own.mean().expand(len(item) - count)
            if fill == "hybrid" and number == 6:
                expected = (client - 3 + item[count:] / 10).clamp(1, 5)
            if count:
                torch.testing.assert_close(label[count:], expected)


def test_the_model_asked_is_that_of_the_method() -> None:
    """Turn.predict is given the cohort of the round, real ratings alone."""
    seen: list[int] = []

    def asked(cohort: Cohort, pairs: Pairs) -> Tensor:
        seen.extend([len(cohort.item), len(pairs.item)])
        return torch.ones(len(pairs.item))

    now = replace(turn(20), predict=asked)
    after = PseudoItems(1, "hybrid").on_data(data(), now)

    assert seen == [sum(MANY), len(after.item) - sum(MANY)]


def test_it_is_pure_and_draws_anew_each_round() -> None:
    given = data()
    before = given.item.clone(), given.label.clone()
    one, again, other = (PseudoItems().on_data(given, turn(k)).item for k in (3, 3, 4))

    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert torch.equal(given.item, before[0])
    assert torch.equal(given.label, before[1])


def test_neither_cohort_nor_chunks_change_a_draw(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = PseudoItems(2).on_data(data(), turn(20))
    monkeypatch.setattr(pseudo_items, "_CLIENTS", 3)
    chunked = PseudoItems(2).on_data(data(), turn(20))
    alone = cohort_of(WORLD, torch.tensor([9]))
    alone = PseudoItems(2).on_data(replace(alone, shape=turn().shape), turn(20))

    assert torch.equal(whole.item, chunked.item)
    assert torch.equal(whole.label, chunked.label)
    assert torch.equal(alone.item, by_client(whole, 9)[0])
    assert torch.equal(alone.label, by_client(whole, 9)[1])


def test_none_is_the_identity() -> None:
    given = data()
    assert PseudoItems(0).on_data(given, turn()) is given


@pytest.mark.parametrize("share", [1, 2])
def test_fedrec_under_it_is_fedrec_with_virtual_ratings(share: int) -> None:
    """The method's own virtual ratings are the oracle: same draws, same round."""
    own = FedRec(width=8, learning_rate=0.3, virtual=share, fill="mean")
    bare = replace(own, virtual=0)
    model, private = shaken(own, WORLD)
    # one stream for both, so that the draws are alike
    filled = PseudoItems(share, "mean").on_data(everyone(WORLD), turn())

    expected = own.train(model, private, everyone(WORLD), round_of(3))
    found = bare.train(model, private, filled, round_of(3))

    torch.testing.assert_close(found.private["users"], expected.private["users"])
    one, other = found.uploads.rows["items"], expected.uploads.rows["items"]
    assert torch.equal(one.sender, other.sender)
    assert torch.equal(one.item, other.item)
    torch.testing.assert_close(one.value, other.value)


def outcome(method: Method, defense: PseudoItems, machine: Machine) -> Outcome:
    world = by_ratio(demo(users=24, items=60), 0, task="rating")
    setup = Setup(
        world,
        method,
        Plain(),
        (defense,),
        {"support": Support()},
        protocol=Protocol(every=1),
        rounds=4,
    )
    return run(setup, machine)


def test_a_run_has_the_same_bits_in_any_shards() -> None:
    method, defense = FedMF(width=8, start_spread=0.1), PseudoItems(2, "hybrid", 1)
    whole = outcome(method, defense, Machine(workers=1))

    for machine in (Machine(workers=1, shard=1), Machine(workers=2, shard=3)):
        other = outcome(method, defense, machine)
        assert torch.equal(other.state.model["items"], whole.state.model["items"])
        assert torch.equal(other.state.private["users"], whole.state.private["users"])


@pytest.mark.parametrize("share", [0, 1, 3])
def test_the_item_ids_say_so_much_less(share: int) -> None:
    method = FedMF(width=8, start_spread=0.1)
    guess = outcome(method, PseudoItems(share), Machine(workers=1)).guesses["support"]
    world = by_ratio(demo(users=24, items=60), 0, task="rating")
    truth = torch.zeros(24, 60, dtype=torch.bool)
    truth[world.train.owner, world.train.item] = True

    assert isinstance(guess, Items)
    right = (guess.chosen & truth[guess.clients]).sum() / guess.chosen.sum()

    assert right == pytest.approx(1 / (1 + share), abs=0.05)


def test_a_ranker_is_refused_and_sent_to_fedgnn() -> None:
    world = leave_one_out(demo(users=24, items=60))
    with pytest.raises(SettingsError, match=r"makes up ratings.*take --defense fedgnn"):
        run(Setup(world, BPR(), Plain(), (PseudoItems(),), rounds=1))


def test_a_method_that_adds_virtual_ratings_itself_is_refused() -> None:
    with pytest.raises(SettingsError, match="give it virtual=0"):
        PseudoItems().method(FedRec())
    assert PseudoItems().method(FedRec(virtual=0)) == FedRec(virtual=0)


def test_rounds_of_single_interactions_are_refused() -> None:
    plan = Plan(WORLD.shape, 1, 1, 1.0, FedMF(), 4, Sampling("interactions"))
    with pytest.raises(SettingsError, match="take --sampling uniform"):
        PseudoItems().prepare(plan)
    assert PseudoItems().prepare(replace(plan, sampling=Sampling())) == PseudoItems()


def test_unusable_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="share must be 0 or more"):
        PseudoItems(-1)
    with pytest.raises(ValueError, match="predict_after must be 0 or more"):
        PseudoItems(predict_after=-1)


def test_seeds_matter() -> None:
    one, other = (replace(turn(), stream=Seeds(seed)("data 0", 3)) for seed in (1, 2))
    first = PseudoItems().on_data(data(), one).item
    assert not torch.equal(first, PseudoItems().on_data(data(), other).item)
