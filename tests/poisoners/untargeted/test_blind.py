"""Forged from ordinary uploads alone: the sign flipped, noise, made-up ratings."""

from dataclasses import replace

import pytest
import torch

from privfed.data.world import Shape
from privfed.errors import SettingsError
from privfed.methods.bpr import BPR
from privfed.methods.fedmf import FedMF
from privfed.poisoners.untargeted.gaussian_upload import GaussianUpload
from privfed.poisoners.untargeted.label_flip import LabelFlip
from privfed.poisoners.untargeted.sign_flip import SignFlip
from privfed.poisoning import Plot
from privfed.seeds import Stream
from tests.poisoners.plots import plot, sortie
from tests.poisoners.untargeted.sent import ITEMS, sent_by, some_uploads, vectors

MINE = (5, 6, 7)
PLOT = plot(BPR(), ITEMS, 5, 3, targets=())
MEANS = torch.linspace(1.0, 5.0, 40)
RATED = Plot(
    Shape(45, 40, scale=(1.0, 5.0), step=0.5),
    Stream(0),
    FedMF(),
    mine=torch.arange(5, 45),
    targets=torch.zeros(0, dtype=torch.int64),
    item_means=MEANS,
)


def test_a_flipped_upload_is_minus_the_ordinary_one() -> None:
    own = some_uploads(MINE)
    _, found = SignFlip(factor=3.0).forge({}, sortie({}, own), PLOT)
    assert torch.equal(vectors(found), vectors(own) * -3)


def test_noise_is_normal_and_lies_where_the_ordinary_upload_does() -> None:
    many = range(5, 305)
    own = some_uploads(many)
    there = plot(BPR(), ITEMS, 5, 300, targets=())
    _, found = GaussianUpload(deviation=2.0).forge({}, sortie({}, own), there)

    assert sent_by(found) == sent_by(own)
    for value in (found.rows["items"].value, found.dense["out.weight"]):
        expected = 2.0 * own.scale["items"]
        assert value.std() == pytest.approx(expected, rel=0.05)
        assert abs(float(value.mean())) < 0.05 * expected
        assert value.numel() == len(torch.unique(value))


def test_a_clients_noise_depends_on_nobody_else_and_on_the_round() -> None:
    own, alone = some_uploads(MINE, share=1.0), some_uploads((6,), share=1.0)
    _, together = GaussianUpload().forge({}, sortie({}, own), PLOT)
    _, single = GaussianUpload().forge({}, sortie({}, alone), PLOT)
    assert torch.equal(vectors(single)[0], vectors(together)[1])

    later = replace(sortie({}, own), stream=Stream(10))
    _, other = GaussianUpload().forge({}, later, PLOT)
    assert not torch.equal(vectors(other), vectors(together))


def test_flipped_ratings_mirror_the_items_means() -> None:
    pairs = LabelFlip(profile=12).data(RATED)

    assert len(pairs.item) == 40 * 12
    expected = 6.0 - MEANS[pairs.item]
    assert (pairs.label - expected).abs().max() <= 0.25 + 1e-6
    assert (pairs.label * 2 == (pairs.label * 2).round()).all()
    assert (pairs.label[MEANS[pairs.item] > 4.5] < 2).all()


def test_flipped_ratings_are_all_there_is_to_it() -> None:
    own = some_uploads(MINE)
    memory, found = LabelFlip().forge({}, sortie({}, own), RATED)
    assert found is own
    assert memory == {}


def test_made_up_ratings_are_spread_over_the_scale() -> None:
    label = SignFlip(profile=30).data(RATED).label
    values, counts = torch.unique(label, return_counts=True)
    assert values.tolist() == [1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5]
    assert (counts[1:-1] > 90).all()  # of 1200 in eight steps, the ends half a step


def test_a_profile_longer_than_the_catalog_is_refused() -> None:
    with pytest.raises(SettingsError, match="lower the number"):
        SignFlip(profile=ITEMS + 1).data(PLOT)


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="factor must be positive"):
        SignFlip(factor=-1.0)
    with pytest.raises(ValueError, match="deviation must be positive"):
        GaussianUpload(deviation=0.0)
