"""Uploads without a name are put down to their client, where there is one to find."""

import pytest
import torch
from torch import Generator, Tensor

from privfed.adversary import Prior
from privfed.attacks.users.linkage import Linkage
from privfed.data.world import World
from privfed.guesses import Links
from privfed.interfaces import Method, Round
from privfed.messages import Rows, Uploads
from privfed.methods.bpr import BPR
from privfed.methods.fedmf import FedMF
from privfed.methods.fedncf import FedNCF
from privfed.methods.local_sgd import LocalSGD
from privfed.methods.pfedrec import PFedRec
from privfed.views import UnlinkedView, UploadsView
from tests.attacks.views import SEEDS, prior_of, view_of
from tests.worlds import shards, world


def crowd(clients: int = 12, items: int = 400) -> World:
    rng = Generator().manual_seed(5)
    lists = [
        torch.randperm(items, generator=rng)[: 6 + k % 5].tolist()
        for k in range(clients)
    ]
    return world(lists, items)


def name_of(number: int, clients: int) -> Tensor:
    """Pseudonym of each client in a round."""
    return torch.randperm(clients, generator=Generator().manual_seed(40 + number))


def seen(method: Method, of: World, rounds: int = 2) -> list[UnlinkedView]:
    model, private = method.init(of.shape, SEEDS("init"))
    found = []
    for number in range(rounds):
        now = Round(number, SEEDS("train", number), SEEDS("once"))
        for cohort in shards(of, 3):
            up = method.train(model, private, cohort, now).uploads
            clear = UploadsView(
                round=number,
                clients=up.clients,
                bytes_up=up.clients,
                items={},
                uploads=up,
            )
            found.append(UnlinkedView.of(clear, name_of(number, of.shape.clients)))
    return found


def links(prior: Prior, *views: UnlinkedView) -> Links:
    attack = Linkage()
    memory = attack.start(prior)
    for view in views:
        memory = attack.observe(memory, view)
    return attack.guess(memory, prior)


def linked(found: Links, clients: int) -> float:
    """The share whose best scored upload is their own."""
    first, later = (name_of(r, clients).argsort() for r in found.rounds)
    best = found.others[found.score.argmax(1)]
    return float((first[found.clients] == later[best]).double().mean())


@pytest.mark.parametrize(
    "method",
    [
        PFedRec(width=8, item_rate=0.01),
        BPR(width=8),
        FedNCF(width=8),
        FedMF(width=8, start_spread=0.1, learning_rate=0.01),
    ],
    ids=lambda m: type(m).__name__,
)
def test_a_client_is_found_again(method: LocalSGD) -> None:
    found = links(prior_of(12, 400, 4), *seen(method, crowd()))
    assert found.clients.tolist() == found.others.tolist() == list(range(12))
    assert linked(found, 12) >= 0.9


def test_shards_in_any_order_change_nothing() -> None:
    views = seen(BPR(width=8), crowd())
    half = len(views) // 2
    turned = [*views[:half][::-1], *views[half:][::-1]]
    one, other = (links(prior_of(12, 400, 1), *v) for v in (views, turned))
    assert torch.equal(one.score, other.score)


def test_only_two_rounds_are_kept() -> None:
    views = seen(BPR(width=8), crowd(), rounds=3)
    prior = prior_of(12, 400, 1)
    two, three = links(prior, *views[: 2 * len(views) // 3]), links(prior, *views)
    assert two.rounds == three.rounds == (0, 1)
    assert torch.equal(two.score, three.score)


def test_noise_is_not_linked() -> None:
    clients, items = 40, 30
    rng = Generator().manual_seed(8)
    sender = torch.arange(clients).repeat_interleave(items)
    item = torch.arange(items).repeat(clients)
    views = []
    for number in range(2):
        value = torch.randn(clients * items, 6, generator=rng)
        view = view_of(torch.arange(clients), {"items": Rows(sender, item, value)})
        names = name_of(number, clients)
        views.append(UnlinkedView.of(view, names))
        views[-1] = UnlinkedView(round=number, uploads=views[-1].uploads)

    found = links(prior_of(clients, items, 4), *views)

    assert found.score.isfinite().all()
    assert linked(found, clients) < 0.2


@pytest.mark.parametrize("rounds", [0, 1])
def test_without_two_rounds_there_is_no_claim(rounds: int) -> None:
    found = links(prior_of(12, 400, 1), *seen(BPR(width=8), crowd(), rounds))
    assert len(found.clients) == len(found.others) == 0


def test_empty_uploads_give_finite_scores() -> None:
    none = Rows(*(torch.zeros(0, dtype=torch.int64),) * 2, torch.zeros(0, 3))
    views = [
        UnlinkedView(round=r, uploads=Uploads(torch.arange(3), {"items": none}))
        for r in range(2)
    ]
    assert links(prior_of(3, 5, 1), *views).score.isfinite().all()


def test_a_setting_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match="sketch"):
        Linkage(sketch=0)
