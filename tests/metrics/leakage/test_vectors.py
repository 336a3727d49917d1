"""Claimed vectors against the true ones, by hand and against NumPy."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator, Tensor

from privfed.adversary import NotApplicable, Prior
from privfed.guesses import Vectors
from privfed.methods.fedncf import FedNCF
from privfed.metrics.leakage import judge
from privfed.metrics.leakage.judged import Judged, Truth
from privfed.metrics.score import Score
from privfed.seeds import Seeds
from tests.worlds import uneven

WORLD = uneven()


def judged(claim: Tensor, real: Tensor, name: str = "user") -> Judged:
    truth = Truth(
        WORLD,
        {"server.users": real},
        {"user": real[:, None]},  # as a layer of one output has it
        torch.ones(len(real), dtype=torch.bool),
    )
    prior = Prior(WORLD.shape, Seeds(0)("attack"), FedNCF())
    found = judge(Vectors(torch.arange(len(claim)), name, claim), truth, prior)
    assert isinstance(found, Judged)
    return found


def value(found: Judged, name: str, floor: bool = False) -> float:
    measure = (found.floor if floor else found.scores)[name]
    assert isinstance(measure, Score)
    return measure.mean()


def drawn(seed: int, clients: int = 8, width: int = 5, shift: float = 0.0) -> Tensor:
    rng = Generator().manual_seed(seed)
    return torch.randn(clients, width, generator=rng, dtype=torch.float64) + shift


def test_the_truth_itself_is_perfect() -> None:
    real = drawn(0, shift=3.0)
    for name in ("user", "server.users"):
        found = judged(real, real, name)

        assert value(found, "cosine") == pytest.approx(1)
        assert value(found, "own_cosine") == pytest.approx(1)
        assert value(found, "sign_agreement") == 1
        assert value(found, "relative_error") == 0


def test_a_claim_made_alike_for_all_is_no_better_than_the_floor() -> None:
    """Where vectors start alike its cosine is near 1, and says nothing of anybody."""
    real = drawn(1, clients=200, shift=8.0)
    claim = real.mean(0).expand(200, -1)

    found = judged(claim, real)

    assert value(found, "cosine") > 0.98
    assert value(found, "cosine", floor=True) > 0.98
    assert value(found, "own_cosine") == pytest.approx(0, abs=1e-6)
    assert found.lead == "own_cosine"


@given(st.integers(0, 300))
def test_figures_are_those_of_numpy_client_by_client(seed: int) -> None:
    real, claim = drawn(seed), drawn(seed + 1000)
    found = judged(claim, real)

    expected: dict[str, list[float]] = {
        name: []
        for name in ("cosine", "own_cosine", "sign_agreement", "relative_error")
    }
    for k in range(8):
        x, y = claim[k].numpy(), real[k].numpy()
        others = [one for one in range(8) if one != k]
        norm = np.linalg.norm
        a = x / norm(x) - np.mean([v / norm(v) for v in claim[others].numpy()], 0)
        b = y / norm(y) - np.mean([v / norm(v) for v in real[others].numpy()], 0)
        expected["cosine"].append(x @ y / norm(x) / norm(y))
        expected["own_cosine"].append(a @ b / norm(a) / norm(b))
        expected["sign_agreement"].append(float(np.mean(np.sign(x) == np.sign(y))))
        expected["relative_error"].append(float(norm(x - y) / norm(y)))
    for name, values in expected.items():
        assert value(found, name) == pytest.approx(float(np.mean(values)))


def test_length_changes_no_direction() -> None:
    real = drawn(2)
    found = judged(real * 7.0, real)

    assert value(found, "own_cosine") == pytest.approx(1)
    assert value(found, "relative_error") == pytest.approx(6)


def test_a_claim_about_some_clients_is_compared_with_theirs() -> None:
    real = drawn(3)
    truth = Truth(WORLD, {}, {"user": real}, torch.ones(8, dtype=torch.bool))
    some = torch.tensor([1, 4, 6])
    prior = Prior(WORLD.shape, Seeds(0)("attack"), FedNCF())

    found = judge(Vectors(some, "user", real[some]), truth, prior)

    assert isinstance(found, Judged)
    assert len(found.scores["cosine"]) == 3
    assert value(found, "cosine") == pytest.approx(1)


def test_one_client_alone_has_nobody_to_stand_out_from() -> None:
    real = drawn(4, clients=1)
    truth = Truth(WORLD, {}, {"user": real}, torch.ones(1, dtype=torch.bool))
    prior = Prior(WORLD.shape, Seeds(0)("attack"), FedNCF())
    assert isinstance(
        judge(Vectors(torch.tensor([0]), "user", real), truth, prior), NotApplicable
    )


def test_a_claim_that_is_not_finite_is_an_error() -> None:
    real = drawn(5)
    claim = real.clone()
    claim[2, 1] = torch.nan
    with pytest.raises(ArithmeticError, match="finite"):
        judged(claim, real)
