"""Attributes follow from what uploads give away, and from nothing else."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Generator, Tensor

from privfed.adversary import NotApplicable
from privfed.attacks.items.sign_pc import SignPC
from privfed.attacks.users.attribute import Attribute, classified, told
from privfed.attacks.users.user_vector import UserVector
from privfed.channels.plain import Plain
from privfed.data.attributes import Labels
from privfed.data.load import DataSettings, load
from privfed.data.world import World
from privfed.defenses.gaussian import Gaussian
from privfed.figures import recovered
from privfed.guesses import Items, Ratings, Vectors
from privfed.interfaces import Defense, Method
from privfed.methods.fedmf import FedMF
from privfed.methods.fedmr import FedMR
from privfed.methods.fedncf import FedNCF
from privfed.methods.pfedrec import PFedRec
from privfed.rounds import Setup, run
from privfed.seeds import Seeds
from privfed.views import ServerView
from tests.worlds import world


def taste(clients: int = 60, items: int = 160, hidden: int = 0) -> World:
    """Men take the first half of the items, women the other; some are not known."""
    rng = Generator().manual_seed(5)
    man = torch.arange(clients) % 2
    lists = []
    for one in man.tolist():
        drawn = torch.randperm(items // 2, generator=rng)[:12] + (1 - one) * items // 2
        lists.append(drawn.tolist())
    label = man.clone()
    label[:hidden] = -1
    attributes = {"gender": Labels(("F", "M"), label)}
    return replace(world(lists, items), attributes=attributes)


def measured(
    of: World,
    method: Method,
    attack: Attribute,
    defenses: tuple[Defense, ...] = (),
    rounds: int = 1,
) -> dict[str, tuple[float, float, float]]:
    setup = Setup(
        of, method, Plain(), defenses, attacks={"attribute": attack}, rounds=rounds
    )
    leakage = recovered([run(setup)], Seeds(0)("figures"))
    assert not leakage.refused
    cut = len("leakage.attribute.")
    return {
        key[cut:]: (one.value, one.low or 0.0, one.high or 1.0)
        for key, one in leakage.figures.items()
    }


@pytest.mark.parametrize(("source", "least"), [("items", 0.95), ("vector", 0.75)])
def test_taste_gives_gender_away(source: str, least: float) -> None:
    attack = Attribute(source=source)  # type: ignore[arg-type]
    method = PFedRec(width=8, item_rate=10.0)

    found = measured(taste(), method, attack, rounds=8)

    assert found["gender_accuracy"][0] > least
    assert found["gender_auc"][0] > least + 0.04
    assert found["accuracy_advantage"][1] > least - 0.65


@pytest.mark.parametrize("source", ["items", "ratings"])
def test_ratings_give_gender_away(source: str) -> None:
    attack = Attribute(source=source)  # type: ignore[arg-type]
    of = taste()
    stars = 1.0 + torch.arange(len(of.train.item)) % 5
    shape = replace(of.shape, scale=(1.0, 5.0), step=1.0)
    of = replace(of, train=replace(of.train, label=stars), shape=shape, task="rating")

    found = measured(of, FedMF(width=6, start=0.4, start_spread=0.1), attack, rounds=3)

    assert found["gender_accuracy"][0] > 0.9


@pytest.mark.parametrize("source", ["items", "vector"])
def test_noise_that_hides_the_uploads_hides_the_attribute(source: str) -> None:
    attack = Attribute(source=source)  # type: ignore[arg-type]
    noise = (Gaussian(variance=100.0),)

    found = measured(taste(), PFedRec(width=8, item_rate=0.1), attack, noise)

    assert found["accuracy_advantage"][1] <= 0.05
    assert 0.25 < found["gender_auc"][0] < 0.75


def test_only_users_of_other_folds_teach() -> None:
    """Attributes that follow from nothing are guessed no better than by chance."""
    of = taste(100)
    rng = Generator().manual_seed(1)
    label = torch.randint(2, (100,), generator=rng)
    of = replace(of, attributes={"gender": Labels(("F", "M"), label)})

    found = measured(of, PFedRec(width=8, item_rate=0.1), Attribute())

    assert 0.3 < found["gender_auc"][0] < 0.65


def test_users_whose_attribute_is_not_known_do_not_count() -> None:
    found = measured(taste(hidden=20), PFedRec(width=8, item_rate=0.1), Attribute())
    assert found["gender_accuracy"][0] > 0.9


def test_the_demo_world_gives_its_users_away() -> None:
    of = load(DataSettings(features=())).world

    found = measured(of, PFedRec(), Attribute())

    assert found["gender_auc"][1] > 0.6
    assert found["occupation_accuracy"][0] > 0.3
    assert found["accuracy_advantage"][1] > 0.02


def blobs(clients: int = 80, width: int = 6) -> tuple[Tensor, Tensor]:
    """Rows of three classes around three centers."""
    rng = Generator().manual_seed(2)
    center = torch.randn(3, width, generator=rng, dtype=torch.float64)
    label = torch.randint(3, (clients,), generator=rng)
    noise = torch.randn(clients, width, generator=rng, dtype=torch.float64)
    return center[label] + 0.4 * noise, label


@pytest.mark.parametrize("empty", [0, 10])
def test_the_classifier_is_scikit_learns_on_centered_scaled_rows(empty: int) -> None:
    table, label = blobs()
    table = torch.cat([table, torch.zeros(80, empty * 6).double()], 1)  # sparse
    some = torch.where(torch.arange(80) < 50, label, -1)
    labels = Labels(("a", "b", "c"), some)

    found = classified(table, labels, torch.arange(80), 1.0)

    rows = table.numpy() - table.numpy().mean(0)
    rows = rows / np.sqrt((rows**2).sum(1).mean())
    model = LogisticRegression(C=1.0, max_iter=1000).fit(rows[:50], label[:50].numpy())
    expected = model.predict_log_proba(rows)
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-2)
    assert (found.argmax(1)[50:] == label[50:]).double().mean() > 0.8


def test_scaling_a_table_changes_no_guess() -> None:
    table, label = blobs()
    labels = Labels(("a", "b", "c"), torch.where(torch.arange(80) < 50, label, -1))
    clients = torch.arange(80)

    found = classified(table, labels, clients, 1.0)
    other = classified(table * 1e-4, labels, clients, 1.0)

    torch.testing.assert_close(found, other, rtol=1e-3, atol=1e-3)


def test_a_class_that_nobody_known_has_is_never_claimed() -> None:
    table, label = blobs()
    seen = torch.where((torch.arange(80) < 50) & (label != 1), label, -1)

    found = classified(table, Labels(("a", "b", "c"), seen), torch.arange(80), 1.0)

    assert found.isfinite().all()
    assert (found.argmax(1) != 1).all()


@pytest.mark.parametrize("known", [[-1] * 4, [2, 2, -1, -1]])
def test_where_nothing_can_be_learned_the_shares_are_claimed(known: list[int]) -> None:
    labels = Labels(("a", "b", "c"), torch.tensor(known))

    found = classified(torch.eye(4).double(), labels, torch.arange(4), 1.0)

    torch.testing.assert_close(found.exp().sum(1), torch.ones(4).double())
    assert torch.equal(found, found[:1].expand(4, -1))
    assert known[0] < 0 or found[0].argmax() == 2


def test_rows_that_tell_nothing_are_finite() -> None:
    labels = Labels(("a", "b"), torch.tensor([0, 1, -1, 1]))
    found = classified(torch.zeros(4, 3).double(), labels, torch.arange(4), 1.0)
    assert found.isfinite().all()


def test_what_is_read_has_length_one() -> None:
    clients = torch.arange(2)
    chosen = torch.tensor([[True, True, False], [False, False, False]])
    items = told(Items(clients, chosen.float(), chosen), 3)
    rated = told(
        Ratings(
            clients,
            torch.tensor([0, 0]),
            torch.tensor([0, 2]),
            torch.tensor([5.0, 3.0]),
        ),
        3,
    )
    vectors = told(Vectors(clients, "v", torch.tensor([[3.0, 4.0], [0.0, 0.0]])), 3)

    assert items.norm(dim=1).tolist() == pytest.approx([1, 0])
    assert rated[0].tolist() == pytest.approx([0.5, 0, 0.5, 0.5, 0, -0.5])
    assert not rated[1].any()
    assert vectors[0].tolist() == pytest.approx([0.6, 0.8])


def test_it_applies_where_the_attack_that_it_reads_does() -> None:
    vector, items = Attribute(source="vector"), Attribute()

    assert vector.misfit(FedMR()) == UserVector().misfit(FedMR()) != ""
    assert items.misfit(FedNCF()) == SignPC().misfit(FedNCF()) == ""
    assert not items.misfit(FedMF())


def test_data_that_tell_no_attribute_are_a_reason() -> None:
    of = replace(taste(), attributes={})
    outcome = run(
        Setup(of, PFedRec(width=4), Plain(), attacks={"it": Attribute()}, rounds=1)
    )
    refused = outcome.guesses["it"]
    assert isinstance(refused, NotApplicable)
    assert "attribute" in refused.reason


def test_it_must_be_prepared() -> None:
    with pytest.raises(TypeError, match="prepare"):
        Attribute().observe({}, ServerView(round=0, model={}))


def test_bad_settings_are_named() -> None:
    with pytest.raises(ValueError, match="fit"):
        Attribute(fit=0.0)
