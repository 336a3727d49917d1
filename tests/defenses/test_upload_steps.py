"""What every defense that works on uploads promises, whatever it does to them."""

import pytest
import torch

from privfed.choices import choose
from privfed.defenses.fedgnn import FedGNN
from privfed.defenses.gaussian import Gaussian
from privfed.defenses.imia_regularizer import ImiaRegularizer
from privfed.defenses.pseudo_items import PseudoItems
from privfed.defenses.quantize import Quantize
from privfed.defenses.regula import Regula
from privfed.defenses.row_dropout import RowDropout
from privfed.defenses.top_k import TopK
from privfed.interfaces import Defense
from privfed.messages import Uploads
from tests.defenses.uploads import TURN, alike, in_shards, sent, tensors, turn

ACTIVE: list[Defense] = [
    Gaussian(0.2),
    Gaussian(0.2, "touched"),
    Gaussian(0.0, clip=0.7),
    Gaussian(0.3, clip=0.7, per="tensor"),
    Gaussian(0.3, "touched", 0.7, "upload", "upload"),
    FedGNN(pseudo=20),
    FedGNN(pseudo=200, spread="diagonal", per="row"),
    FedGNN(pseudo=7, clip=None, noise=0.0),
    TopK(0.3),
    TopK(0.3, "numbers"),
    Quantize(4),
    RowDropout(0.4),
]
NEUTRAL: list[Defense] = [
    Gaussian(0.0),
    Gaussian(0.0, clip=1e6, per="tensor"),
    FedGNN(pseudo=0, clip=None, noise=0.0),
    TopK(1.0),
    TopK(1.0, "numbers"),
    Quantize(32),
    RowDropout(0.0),
]
DRAWS: list[Defense] = [d for d in ACTIVE if not isinstance(d, TopK)]
EVERY = [*ACTIVE, PseudoItems(), ImiaRegularizer(), Regula()]


@pytest.mark.parametrize("defense", ACTIVE, ids=repr)
def test_it_changes_something_and_not_what_it_was_given(defense: Defense) -> None:
    given, before = sent(), tensors(sent())

    after = tensors(defense.on_upload(given, TURN))

    for name, value in tensors(given).items():
        assert torch.equal(value, before[name]), name
    assert any(
        name not in after or not torch.equal(after[name], v)
        for name, v in before.items()
    )
    assert torch.equal(after["clients"], before["clients"])
    assert torch.equal(after["weight"], before["weight"])


@pytest.mark.parametrize("defense", ACTIVE, ids=repr)
def test_the_same_turn_gives_the_same_bits(defense: Defense) -> None:
    alike(defense.on_upload(sent(), TURN), defense.on_upload(sent(), TURN))


@pytest.mark.parametrize("defense", ACTIVE, ids=repr)
@pytest.mark.parametrize("size", [1, 3])
def test_shards_do_not_change_a_bit(defense: Defense, size: int) -> None:
    alike(in_shards(defense, sent(), size), defense.on_upload(sent(), TURN))


@pytest.mark.parametrize("defense", DRAWS, ids=repr)
def test_rounds_draw_anew(defense: Defense) -> None:
    if defense == Gaussian(0.0, clip=0.7):
        return  # clips, and draws nothing
    one, other = (tensors(defense.on_upload(sent(), turn(k))) for k in (3, 4))
    assert any(
        len(one[name]) != len(other[name]) or not torch.equal(one[name], other[name])
        for name in one
    )


@pytest.mark.parametrize("defense", NEUTRAL, ids=repr)
def test_a_neutral_setting_changes_nothing(defense: Defense) -> None:
    alike(defense.on_upload(sent(), TURN), sent())


@pytest.mark.parametrize("defense", [*ACTIVE, *NEUTRAL], ids=repr)
def test_rows_stay_in_order_and_each_once(defense: Defense) -> None:
    for rows in defense.on_upload(sent(), TURN).rows.values():
        place = rows.sender * 50 + rows.item
        assert (place.diff() > 0).all()
        assert len(rows.value) == len(place)


@pytest.mark.parametrize("defense", [*ACTIVE, *NEUTRAL], ids=repr)
def test_an_upload_without_rows_passes(defense: Defense) -> None:
    bare = Uploads(
        torch.arange(3), {}, {"head": torch.ones(3, 2, 2)}, scale={"head": 1.0}
    )

    after = defense.on_upload(bare, TURN)

    assert after.dense["head"].shape == (3, 2, 2)
    assert not after.rows


@pytest.mark.parametrize("defense", EVERY, ids=repr)
def test_it_promises_no_privacy_and_says_why(defense: Defense) -> None:
    told = defense.guarantee()

    assert not told.private
    assert told.epsilon is None
    assert told.delta is None
    assert told.caveats
    words = type(defense)
    assert all((words.hides, words.does_not_hide, words.cost, words.paper, words.trust))


@pytest.mark.parametrize(
    "name",
    [
        "gaussian",
        "imia_ldp",
        "pseudo_items",
        "fedgnn",
        "top_k",
        "quantize",
        "row_dropout",
        "imia_regularizer",
        "regula",
    ],
)
def test_every_one_is_in_the_catalog_and_goes_there_and_back(name: str) -> None:
    chosen = choose("defense", name)

    again = choose("defense", chosen.row())

    assert again == chosen
    assert choose("defense", name.replace("_", "-")) == chosen
