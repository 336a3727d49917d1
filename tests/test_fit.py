"""Parts that cannot work together are refused by name."""

from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from privfed.built_in import Kind
from privfed.catalog import name_of
from privfed.channels.plain import Plain
from privfed.choices import choose
from privfed.data.cohort import Cohort
from privfed.defenses.dp import CalibratedDP
from privfed.defenses.gaussian import Gaussian
from privfed.devices.dpsgd import InteractionDP
from privfed.devices.penalty import Penalty
from privfed.errors import SettingsError
from privfed.fit import check
from privfed.interfaces import Channel, Defense, Method, Penalized, Turn
from privfed.messages import Total, Uploads
from privfed.methods.fcf import FCF
from privfed.methods.fedmf import FedMF
from privfed.methods.metamf.method import MetaMF


class Data(Defense):
    def on_data(self, cohort: Cohort, turn: Turn) -> Cohort:
        return cohort


class Term(Defense):
    def penalty(self, turn: Turn) -> Penalty | None:
        return None


class Bound(Defense):
    bounds_upload = True

    def on_upload(self, uploads: Uploads, turn: Turn) -> Uploads:
        return uploads


class Noise(Defense):
    def on_total(self, total: Total, turn: Turn) -> Total:
        return total


@dataclass(frozen=True)
class Open(FCF, Penalized):
    pass


@dataclass(frozen=True)
class Rule(Plain):
    sums = False


PRIVATE = CalibratedDP(InteractionDP(1.0, 1.0, 1.0, 1, 1.0), 1e-5, 1)

IMPOSSIBLE: Sequence[tuple[Method, list[Defense], Channel, str]] = [
    (FCF(), [PRIVATE, PRIVATE], Plain(), "both make local training private"),
    (FCF(), [Term(), PRIVATE], Plain(), "CalibratedDP and Term .* no further term"),
    (FCF(), [Data(), PRIVATE], Plain(), "CalibratedDP and Data .* depends on every"),
    (FCF(), [Bound(), Gaussian()], Plain(), "write Bound last"),
    (FedMF(), [Term()], Plain(), "Term and fedmf .* takes no further term"),
    (FCF(), [Noise()], Rule(), "Noise and Rule .* about a sum"),
    (MetaMF(), [], Rule(), "metamf and Rule .* makes no total"),
    (MetaMF(), [Noise()], Plain(), "metamf and Noise .* makes no total"),
]


@pytest.mark.parametrize(("method", "chain", "channel", "told"), IMPOSSIBLE)
def test_an_impossible_pair_is_refused_by_name(
    method: Method, chain: list[Defense], channel: Channel, told: str
) -> None:
    with pytest.raises(SettingsError, match=told):
        check(method, chain, chain, channel)


@pytest.mark.parametrize(
    "chain",
    [
        [],
        [Gaussian(), Bound()],
        [Data(), Term(), Gaussian(), Noise()],
        [PRIVATE, Gaussian(), Noise()],
    ],
)
def test_what_fits_is_let_through(chain: list[Defense]) -> None:
    check(Open(), chain, chain, Plain())


def test_presets_of_one_class_have_names_of_their_own() -> None:
    rows: dict[Kind, tuple[str, ...]] = {
        "method": ("fedmr", "fedmr_paper", "metamf_si"),
        "defense": ("gaussian",),
        "channel": ("plain",),
    }
    for kind, names in rows.items():
        for name in names:
            assert name_of(choose(kind, name).part) == name
