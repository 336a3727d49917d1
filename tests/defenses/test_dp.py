"""``dp``: what it is prepared from, which methods it takes, and what it promises."""

from dataclasses import replace

import pytest

from privfed.accounting.interaction import InteractionRelease, epsilon
from privfed.catalog import entries
from privfed.channels.plain import Plain
from privfed.choices import choose
from privfed.data.splits import by_ratio, leave_one_out
from privfed.data.worlds import demo
from privfed.defenses.dp import DP
from privfed.errors import SettingsError
from privfed.evaluation.protocol import Protocol
from privfed.interfaces import Method, PerInteraction
from privfed.methods.fcf import FCF
from privfed.methods.fedmf import FedMF
from privfed.rounds import Outcome, Setup, run
from privfed.sampling import Sampling

DATA = demo(users=24, items=60)
RANKED, RATED = leave_one_out(DATA), by_ratio(DATA, 0, task="rating")
SMALL = {  # settings of methods whose own are too large for a test, or need more
    "metamf": "width=4,layer=2,low=4,collaborative=8,hidden=8",
    "metamf_si": "width=4,layer=2,low=4,collaborative=8,hidden=8",
    "metamf_sm": "width=4,layer=2,low=4,collaborative=8,hidden=8",
    "fedrec": "virtual=0",
}
REFUSED = {
    "fcf_original": ("solved for from all interactions at once", "user_dp"),
    "fedrec_pp": ("virtual ratings follow from all", "user_dp"),
    "fedrec_maml": ("through a step on other interactions", "user_dp"),
    "fedmeta": ("through a step on other choices", "user_dp"),
    "cali3f": ("trains twice on its interactions", "ldp"),
    "fedfast": ("weighs delegates by how many interactions", "ldp"),
    "mf_frs": ("divided by how many interactions", "user_dp"),
}


def method(name: str) -> Method:
    part: Method = choose("method", f"{name}:{SMALL.get(name, '')}".rstrip(":")).part
    return part


def private_run(of: Method, defense: DP, sampling: Sampling | None = None) -> Outcome:
    asked = Setup(
        RATED if of.task == "rating" else RANKED,
        of,
        Plain(),
        (defense,),
        sampling=sampling or Sampling(),
        protocol=Protocol(every=2, negatives=20),
        rounds=2,
    )
    return run(asked)


@pytest.mark.parametrize("name", [*entries("method")])
def test_dp_takes_a_method_or_says_why_not_and_what_to_take(name: str) -> None:
    if name in REFUSED:
        why, other = REFUSED[name]
        part = method(name)
        with pytest.raises(SettingsError, match=f"{why}.*take --defense {other}"):
            DP().method(part)
    else:
        assert isinstance(DP().method(method(name)), PerInteraction)


def test_the_promise_is_that_of_all_steps_of_all_rounds() -> None:
    [promise] = private_run(
        FCF(width=8), DP(noise_multiplier=2.0, sampling_rate=0.5, steps=3)
    ).guarantees

    spent = epsilon(InteractionRelease(2.0, 0.5, steps=6), 1e-5)
    assert promise.epsilon == spent.value
    assert promise.unit == "interaction"


def test_noise_is_calibrated_to_the_epsilon_asked_for() -> None:
    [promise] = private_run(
        FedMF(width=8, start_spread=0.1), DP(epsilon=3.0)
    ).guarantees

    assert promise.epsilon is not None
    assert 2.9 < promise.epsilon <= 3.0


def test_without_noise_nothing_is_promised() -> None:
    [promise] = private_run(FCF(width=8), DP(noise_multiplier=0.0)).guarantees

    assert not promise.private
    assert promise.epsilon is None
    assert "No differential privacy" in promise.sentence()
    assert "nothing is noised" in promise.sentence()


def test_rounds_made_of_single_interactions_are_refused() -> None:
    """Who takes part would tell who has an interaction left to train on."""
    with pytest.raises(SettingsError, match="take --sampling all"):
        private_run(method("metamf"), DP(), Sampling("interactions"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"epsilon": 1.0, "noise_multiplier": 1.0}, "not both"),
        ({"epsilon": 0.0}, "epsilon must be positive, got 0"),
        ({"noise_multiplier": -1.0}, "noise_multiplier must be 0 or more, got -1"),
        ({"noise_multiplier": float("inf")}, "noise_multiplier must be 0 or more"),
        ({"clip": 0.0}, "clip must be positive, got 0"),
        ({"delta": 1.0}, r"delta must lie in \(0, 1\)"),
        ({"sampling_rate": 0.0}, r"sampling_rate must lie in \(0, 1\]"),
        ({"steps": 0}, "steps must be at least 1"),
    ],
)
def test_bad_settings_are_refused_by_name(changes: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replace(DP(), **changes)  # type: ignore[arg-type]
