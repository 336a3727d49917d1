"""A scorer says what the method itself says, and can be differentiated."""

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from privfed.data.cohort import Cohort, cohort_of
from privfed.data.world import Pairs
from privfed.errors import SettingsError
from privfed.interfaces import Method, Ranker, Rater, State
from privfed.methods.bpr import BPR
from privfed.methods.fcf_original import FCFOriginal
from privfed.methods.fedavg import FedAvg
from privfed.methods.fedmf import FedMF
from privfed.methods.fedncf import FedNCF
from privfed.methods.fedrap import FedRAP
from privfed.methods.pfedrec import PFedRec
from privfed.poisoners.crafting.scorer import can_score, scorer
from privfed.seeds import Stream
from tests.worlds import uneven

WORLD = uneven()
SHAPE = WORLD.shape
METHODS = [
    BPR(width=8),
    FedNCF(width=8),
    FedAvg(width=8),
    PFedRec(width=8),
    FedRAP(width=8),
    FedMF(width=8, start_spread=0.3),
]


def stirred(values: State) -> dict[str, Tensor]:
    """Every number another one, so that nothing cancels or is alike."""
    rng = torch.Generator().manual_seed(1)
    return {n: v + torch.randn(v.shape, generator=rng) for n, v in values.items()}


def told(method: Method, model: State, private: State, cohort: Cohort) -> Tensor:
    """(clients, items) by the method itself."""
    clients, items = len(cohort.clients), SHAPE.items
    if isinstance(method, Ranker):
        return method.score(model, private, cohort)
    assert isinstance(method, Rater)
    every = torch.arange(clients * items)
    none = torch.zeros(len(every))
    pairs = Pairs(every // items, every % items, none, torch.zeros(len(every), 0))
    return method.predict(model, private, cohort, pairs).view(clients, items)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)
def test_a_scorer_says_what_the_method_says(method: Method) -> None:
    model, private = (stirred(part) for part in method.init(SHAPE, Stream(3)))
    cohort = cohort_of(WORLD, torch.tensor([0, 2, 5]))
    item = torch.arange(SHAPE.items).expand(3, -1)
    of = scorer(method, SHAPE)
    own = {name: private[name][cohort.clients] for name in of.own}

    found = of.predict(of.rows(model, item), model, of.samples(model, own, item))

    expected = told(method, model, private, cohort)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)
def test_rows_shared_layers_and_users_all_have_a_gradient(method: Method) -> None:
    model, private = (stirred(part) for part in method.init(SHAPE, Stream(3)))
    of = scorer(method, SHAPE)
    item = torch.arange(SHAPE.items).expand(2, -1)

    def leaves(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {n: v.detach().clone().requires_grad_() for n, v in values.items()}

    own = {name: private[name][:2] for name in of.own}
    rows, mine = leaves(of.rows(model, item)), leaves(of.samples(model, own, item))
    shared = leaves({name: model[name] for name in of.shared})

    nodes = [*rows.values(), *shared.values(), *mine.values()]
    slopes = torch.autograd.grad(of.predict(rows, shared, mine).sum(), nodes)

    assert all(slope.any() for slope in slopes)


def test_a_method_that_says_too_little_is_refused() -> None:
    assert not can_score(FCFOriginal())
    assert can_score(BPR())
    with pytest.raises(SettingsError, match="FCFOriginal does not say how it scores"):
        scorer(FCFOriginal(), SHAPE)
