"""The generated log of usage: the counts of the real one, and something to learn."""

import pytest
import torch

from privfed.data.choices import WIDTH
from privfed.data.usage import FULL, SERVICES, Population, usage, usage_log

SMALL = Population(60, 100, 300)


def test_the_log_is_the_same_every_time_and_another_for_another_seed() -> None:
    one, again, other = (usage(s, SMALL).fingerprint for s in (0, 0, 1))

    assert one == again != other


def test_sizes_are_those_that_were_published() -> None:
    log, levels = usage_log(0, SMALL)
    pairs = torch.unique(log.user * SERVICES + log.item) // SERVICES
    services = torch.bincount(pairs, minlength=60)
    records = torch.bincount(log.user)

    assert (log.users, log.items, SERVICES) == (60, 2400, 2400)
    assert 1 <= int(services.min()) <= int(services.max()) <= 36
    assert 100 <= int(records.min()) <= int(records.max()) <= 300
    assert torch.equal(levels.sum(1), torch.ones(len(log)))
    assert (FULL.clients, FULL.fewest, FULL.most) == (9369, 100, 5000)


def test_records_keep_every_row_and_have_103_features() -> None:
    log, levels = usage_log(0, SMALL)
    data = usage(0, SMALL)

    assert len(data) == len(log)
    assert data.choices is not None
    assert data.choices.shape == (len(log), WIDTH) == (len(log), 103)
    assert torch.equal(data.choices[:, -4:], levels)


def test_counting_rules_are_about_as_good_as_published() -> None:
    data = usage()
    assert data.choices is not None
    key = data.user * 40 + data.item
    counts = torch.bincount(key, minlength=data.users * 40).view(-1, 40)

    last = (data.choices[:, :40].argmax(1) == data.item).float().mean()
    often = counts.max(1).values.sum() / len(data)

    assert 0.6 < last < 0.8  # 70 % in the paper
    assert 0.35 < often < 0.6  # 43 %


def test_time_goes_forward() -> None:
    log, _ = usage_log(0, SMALL)
    assert log.time is not None
    same = log.user.diff() == 0

    assert bool((log.time.diff()[same] >= 0).all())


@pytest.mark.parametrize(
    "wrong", [{"clients": 0}, {"fewest": 0}, {"fewest": 9, "most": 8}]
)
def test_an_impossible_population_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Population(**wrong)
