"""Many problems at once are minimized as if each were alone."""

import pytest
import torch
from torch import Generator, Tensor

from privfed.attacks.reading.descent import adam, lbfgs


def valley(x: Tensor, _: Tensor) -> Tensor:
    """Rosenbrock's function; its least value is 0, at ones."""
    steep = 100 * (x[:, 1:] - x[:, :-1].square()).square()
    return (steep + (1 - x[:, :-1]).square()).sum(1)


def starts(count: int, width: int = 6) -> Tensor:
    rng = Generator().manual_seed(0)
    return torch.randn(count, width, generator=rng, dtype=torch.float64) * 0.5


def test_lbfgs_finds_what_the_one_of_pytorch_finds() -> None:
    found = lbfgs(valley, starts(5), 300)

    for k, one in enumerate(starts(5)):
        x = one[None].clone().requires_grad_()
        reference = torch.optim.LBFGS(
            [x], max_iter=300, line_search_fn="strong_wolfe", tolerance_change=0
        )

        def closure(x: Tensor = x) -> float:
            value = valley(x, torch.zeros(1)).sum()
            x.grad = torch.autograd.grad(value, x)[0]
            return float(value.detach())

        reference.step(closure)  # type: ignore[no-untyped-call]
        torch.testing.assert_close(found.point[k], x.detach()[0], atol=1e-5, rtol=0)
    assert float(found.value.max()) < 1e-15


def test_a_problem_does_not_depend_on_those_beside_it() -> None:
    together = lbfgs(valley, starts(4), 40)

    for k in range(4):
        alone = lbfgs(valley, starts(4)[k, None], 40)
        torch.testing.assert_close(together.point[k, None], alone.point)


def test_each_problem_gets_its_own_data() -> None:
    aims = torch.arange(12.0, dtype=torch.float64).view(4, 3)

    found = lbfgs(lambda x, at: (x - aims[at]).square().sum(1), aims * 0, 30)

    torch.testing.assert_close(found.point, aims)


def test_a_problem_that_is_good_enough_stops() -> None:
    most: list[int] = []

    def counted(x: Tensor, at: Tensor) -> Tensor:
        most.append(len(at))
        return valley(x, at)

    found = lbfgs(counted, starts(5), 300, enough=1e-2)

    assert float(found.value.max()) <= 1e-2
    assert most[-1] < 5


@pytest.mark.parametrize("signed", [False, True])
def test_adam_keeps_the_best_point_of_each_problem(signed: bool) -> None:
    aims = torch.tensor([[1.0, -2.0], [0.5, 3.0]], dtype=torch.float64)

    found = adam(
        lambda x, at: (x - aims[at]).square().sum(1), aims * 0, 600, 0.05, signed
    )

    torch.testing.assert_close(found.point, aims, atol=0.02, rtol=0)
    value = (found.point - aims).square().sum(1)
    torch.testing.assert_close(found.value, value)


def test_a_value_that_is_no_number_is_stepped_around() -> None:
    def cliff(x: Tensor, _: Tensor) -> Tensor:
        value = (x - 0.9).square().sum(1)
        return torch.where(x[:, 0] > 1, torch.nan, value)

    found = lbfgs(cliff, torch.full((2, 1), -5.0, dtype=torch.float64), 50)

    torch.testing.assert_close(found.point, torch.full_like(found.point, 0.9))
