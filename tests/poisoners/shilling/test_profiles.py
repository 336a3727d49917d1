"""What each profile holds, on plots small enough to count by hand."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from privfed.data.world import Pairs, Shape
from privfed.errors import SettingsError
from privfed.interfaces import Method
from privfed.methods.bpr import BPR
from privfed.methods.fedmf import FedMF
from privfed.poisoners.shilling.average import AverageAttack, RandomAttack
from privfed.poisoners.shilling.popular import Bandwagon, PopularAttack
from privfed.poisoners.shilling.profile import Shilling
from privfed.poisoners.shilling.segment import Segment
from privfed.poisoning import Plot
from privfed.seeds import Stream

ITEMS, MALICIOUS = 50, 7
POPULARITY = torch.arange(ITEMS).flip(0) * 2  # item 0 is the most popular
MEANS = torch.linspace(1, 5, ITEMS)
RANKING, RATING = BPR(), FedMF()
EVERY = [RandomAttack(), AverageAttack(), PopularAttack(), Bandwagon(), Segment()]
every_attack = pytest.mark.parametrize("attack", EVERY, ids=lambda a: type(a).__name__)
both_tasks = pytest.mark.parametrize("method", [RANKING, RATING], ids=["rank", "rate"])


def plot(
    method: Method,
    targets: tuple[int, ...] = (40,),
    features: Mapping[str, Tensor] | None = None,
    malicious: int = MALICIOUS,
    seed: int = 0,
    step: float = 1.0,
) -> Plot:
    """All that any profile is granted."""
    scale = (1.0, 5.0) if method.task == "rating" else None
    return Plot(
        Shape(5 + malicious, ITEMS, scale=scale, step=step if scale else 0.0),
        Stream(seed),
        method,
        popularity=POPULARITY,
        features=features or {},
        mine=torch.arange(5, 5 + malicious),
        targets=torch.tensor(targets),
        item_means=MEANS,
    )


def profiles(pairs: Pairs) -> list[dict[int, float]]:
    """Each client's items and their labels."""
    found: list[dict[int, float]] = [{} for _ in range(int(pairs.sender.max()) + 1)]
    columns = (pairs.sender.tolist(), pairs.item.tolist(), pairs.label.tolist())
    for sender, item, label in zip(*columns, strict=True):
        assert item not in found[sender], "each item once"
        found[sender][item] = label
    return found


@every_attack
@both_tasks
@pytest.mark.parametrize("targets", [(40,), (0, 3, 44)])
def test_every_client_holds_the_targets_among_as_many_as_asked_for(
    attack: Shilling, method: Method, targets: tuple[int, ...]
) -> None:
    pairs = replace(attack, positives=12).data(plot(method, targets))

    found = profiles(pairs)
    assert len(found) == MALICIOUS
    assert all(len(one) == 12 and one.keys() >= set(targets) for one in found)
    assert pairs.sender.diff().min() >= 0
    assert (pairs.item.diff()[pairs.sender.diff() == 0] > 0).all()
    assert pairs.context.shape == (12 * MALICIOUS, 0)
    high = 1.0 if method.task == "ranking" else 5.0
    assert all(one[target] == high for one in found for target in targets)
    allowed = {1.0} if method.task == "ranking" else {1.0, 2.0, 3.0, 4.0, 5.0}
    assert set(pairs.label.tolist()) <= allowed


@every_attack
@both_tasks
def test_a_clients_profile_is_its_own_and_the_same_again(
    attack: Shilling, method: Method
) -> None:
    """Whoever else is malicious, and whatever else is drawn."""
    attack = replace(attack, positives=12)
    few = profiles(attack.data(plot(method, malicious=4)))

    assert few == profiles(attack.data(plot(method)))[:4]
    assert few == profiles(attack.data(plot(method, malicious=4)))


@pytest.mark.parametrize("attack", [RandomAttack(), AverageAttack(), Bandwagon()])
def test_where_there_are_draws_no_two_clients_and_no_two_seeds_are_alike(
    attack: Shilling,
) -> None:
    found = profiles(replace(attack, positives=12).data(plot(RANKING)))
    other = profiles(replace(attack, positives=12).data(plot(RANKING, seed=1)))

    assert len({tuple(sorted(one)) for one in [*found, *other]}) == 2 * MALICIOUS


@pytest.mark.parametrize("attack", [RandomAttack(), AverageAttack()])
def test_random_filler_is_uniform_over_the_catalog(attack: Shilling) -> None:
    many = plot(RANKING, malicious=2000)
    item = replace(attack, positives=11).data(many).item
    counts = torch.bincount(item[item != 40], minlength=ITEMS)

    assert counts[40] == 0
    rest = counts[torch.arange(ITEMS) != 40]
    assert int(rest.sum()) == 20_000
    assert stats.chisquare(rest.numpy()).pvalue > 1e-3


def test_where_nothing_is_rated_the_average_attack_is_the_random_one() -> None:
    average, random = (
        kind(positives=9).data(plot(RANKING)) for kind in (AverageAttack, RandomAttack)
    )

    assert torch.equal(average.item, random.item)
    assert torch.equal(average.label, random.label)


def test_every_filler_item_that_there_is_can_be_drawn() -> None:
    found = profiles(RandomAttack(positives=ITEMS).data(plot(RANKING)))

    assert all(len(one) == ITEMS for one in found)


def test_blocks_of_clients_change_no_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = profiles(RandomAttack(positives=9).data(plot(RANKING)))
    monkeypatch.setattr("privfed.poisoners.shilling.drawing._BLOCK", 2 * ITEMS)

    assert profiles(RandomAttack(positives=9).data(plot(RANKING))) == whole


@both_tasks
def test_the_popular_attack_takes_the_most_popular_items(method: Method) -> None:
    pairs = PopularAttack(positives=6).data(plot(method, (1, 40)))

    right = {0: 1.0, 1: 1.0, 2: 1.0, 3: 1.0, 4: 1.0, 40: 1.0}
    label = 1.0 if method.task == "ranking" else 5.0
    assert profiles(pairs) == [dict.fromkeys(right, label)] * MALICIOUS


@settings(max_examples=20)
@given(positives=st.integers(10, 40), head=st.sampled_from([0.1, 0.3]))
def test_bandwagon_has_a_tenth_of_its_items_from_the_head(
    positives: int, head: float
) -> None:
    """With random ones that it rates low, the popular ones are those rated highest."""
    attack = Bandwagon(positives, head=head, mean=1.0, deviation=0.0)
    found = profiles(attack.data(plot(RATING)))

    for one in found:
        liked = {item for item, rating in one.items() if rating == 5.0} - {40}
        assert len(liked) == positives // 10
        assert max(liked) < head * ITEMS
        assert all(one[item] == 1.0 for item in one.keys() - liked - {40})


def test_what_is_drawn_from_the_head_is_uniform_in_it() -> None:
    attack = Bandwagon(10, popular=0.2, mean=1.0, deviation=0.0)
    pairs = attack.data(plot(RATING, malicious=2000))

    liked = pairs.item[(pairs.label == 5) & (pairs.item != 40)]
    counts = torch.bincount(liked)
    assert len(counts) == 5
    assert int(counts.sum()) == 4000
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3


def test_the_average_attack_rates_an_item_as_others_do() -> None:
    for one in profiles(AverageAttack(positives=20).data(plot(RATING))):
        for item in one.keys() - {40}:
            assert one[item] == round(float(MEANS[item]))


def test_an_item_that_nobody_rated_gets_the_mean_of_the_others() -> None:
    means = MEANS.clone()
    means[:25] = torch.nan
    known = replace(plot(RATING), item_means=means)

    for one in profiles(AverageAttack(positives=20).data(known)):
        for item in one.keys() - {40}:
            right = float(means[25:].mean()) if item < 25 else float(means[item])
            assert one[item] == round(right)


def test_ratings_are_uniform_on_the_scale_where_no_mean_is_known() -> None:
    pairs = RandomAttack(positives=11).data(plot(RATING, malicious=2000))
    counts = torch.bincount(pairs.label[pairs.item != 40].long(), minlength=6)[1:]

    assert int(counts.sum()) == 20_000
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3


def test_ratings_lie_around_the_mean_where_it_is_known() -> None:
    fine = plot(RATING, malicious=2000, step=0.0)
    pairs = RandomAttack(positives=11, mean=3.0, deviation=0.4).data(fine)
    label = pairs.label[pairs.item != 40].double()

    assert abs(float(label.mean()) - 3.0) < 0.02
    assert 0.38 < float(label.std()) < 0.42
    assert len(set(label.tolist())) > 1000


def test_ratings_off_the_scale_become_its_ends() -> None:
    pairs = RandomAttack(positives=11, mean=5.0, deviation=9.0).data(plot(RATING))

    assert Counter(pairs.label.tolist()).keys() <= {1.0, 2.0, 3.0, 4.0, 5.0}
    assert {1.0, 5.0} <= set(pairs.label.tolist())


GENRES = torch.zeros(ITEMS, 3)  # every third item is of the target's genre, 40 % 3
GENRES[torch.arange(ITEMS), torch.arange(ITEMS) % 3] = 1.0


def test_a_segment_is_made_of_items_with_like_features() -> None:
    """Of those, the most popular: item 0 is the most popular of all, not of this."""
    granted = plot(RANKING, features={"genre": GENRES})

    found = profiles(Segment(positives=6).data(granted))

    assert found == [dict.fromkeys((1, 4, 7, 10, 13, 40), 1.0)] * MALICIOUS


def test_a_segment_of_several_targets_is_like_all_of_them() -> None:
    """Items with both genres stand before items with one."""
    both = GENRES.clone()
    both[[20, 30], :2] = 1.0
    both[[20, 30], 2] = 0.0
    granted = plot(RANKING, (40, 39), {"genre": both})

    found = profiles(Segment(positives=4, segment=0.04).data(granted))

    assert found == [dict.fromkeys((20, 30, 39, 40), 1.0)] * MALICIOUS


def test_without_features_a_segment_is_a_band_of_popularity() -> None:
    """Ranks are item numbers here."""
    found = profiles(Segment(positives=5, segment=0.08).data(plot(RANKING)))

    assert found == [dict.fromkeys((38, 39, 40, 41, 42), 1.0)] * MALICIOUS


def test_a_segment_is_rated_high_and_everything_else_low() -> None:
    granted = plot(RATING, features={"genre": GENRES})

    for one in profiles(Segment(positives=11).data(granted)):
        liked = {item for item, rating in one.items() if rating == 5.0}
        assert liked == {1, 4, 7, 10, 13, 40}
        assert [one[item] for item in one.keys() - liked] == [1.0] * 5


def test_a_feature_of_zeros_is_like_nothing() -> None:
    blank = GENRES.clone()
    blank[[1, 4]] = 0.0
    granted = plot(RANKING, features={"genre": blank})

    found = profiles(Segment(positives=4, segment=0.06).data(granted))

    assert found == [dict.fromkeys((7, 10, 13, 40), 1.0)] * MALICIOUS


@every_attack
@both_tasks
@pytest.mark.parametrize("positives", [3, ITEMS + 1])
def test_too_few_or_too_many_positives_are_refused(
    attack: Shilling, method: Method, positives: int
) -> None:
    with pytest.raises(SettingsError, match=f"items, 50, got {positives}"):
        replace(attack, positives=positives).data(plot(method, (1, 2, 40)))


def test_more_popular_items_than_the_head_has_are_refused() -> None:
    with pytest.raises(SettingsError, match="head of 5"):
        Bandwagon(positives=30, popular=0.5).data(plot(RANKING))


@pytest.mark.parametrize("mean", [0.9, 5.1, float("nan")])
def test_a_mean_off_the_scale_is_refused(mean: float) -> None:
    with pytest.raises(SettingsError, match="1 to 5"):
        RandomAttack(positives=5, mean=mean).data(plot(RATING))


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (RandomAttack, "positives", 1),
        (RandomAttack, "deviation", -0.1),
        (Bandwagon, "popular", 0.0),
        (Bandwagon, "popular", 1.1),
        (Bandwagon, "head", float("nan")),
        (Segment, "segment", 0.0),
        (Segment, "liked", 2.0),
    ],
)
def test_impossible_settings_are_refused(
    kind: type[Shilling], name: str, value: float
) -> None:
    with pytest.raises(ValueError, match=name):
        kind(**{name: value})  # type: ignore[arg-type]
