"""Three accountants on one release: their figures agree as far as theory lets them."""

import pytest

from privfed.accounting.interaction import InteractionRelease, epsilon

RELEASES = [
    InteractionRelease(0.8, 0.05, 60),
    InteractionRelease(1.0, 0.1, 40),
    InteractionRelease(2.0, 0.25, 30),
    InteractionRelease(1.1, 0.01, 1000),
    InteractionRelease(4.0, 0.5, 100),
]


@pytest.mark.parametrize("release", RELEASES, ids=repr)
def test_pld_is_within_one_percent_of_opacus_prv(release: InteractionRelease) -> None:
    found = epsilon(release, 1e-5)

    assert found.prv is not None
    assert found.value == pytest.approx(found.prv, rel=0.01)


@pytest.mark.parametrize("release", RELEASES, ids=repr)
def test_opacus_rdp_is_above_pld_and_not_far(release: InteractionRelease) -> None:
    found = epsilon(release, 1e-5)

    assert found.rdp is not None
    assert found.value < found.rdp < 1.35 * found.value
