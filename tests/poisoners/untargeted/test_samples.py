"""Training repeated on chosen samples, against the method's own training."""

from dataclasses import replace

import pytest
import torch
from torch import Generator, Tensor

from privfed.data.cohort import cohort_of
from privfed.interfaces import Method, Round, State
from privfed.methods.bpr import BPR
from privfed.methods.dl_frs import DLFRS
from privfed.methods.fedavg import FedAvg
from privfed.methods.fedmr import FedMR
from privfed.methods.fedncf import FedNCF
from privfed.methods.fedrap import FedRAP
from privfed.methods.mf_frs import MFFRS
from privfed.poisoners.untargeted.fedattack import FedAttack, all_scores, hardest
from privfed.poisoners.untargeted.label_flip import LabelFlip, flipped
from privfed.poisoners.untargeted.samples import Samples, trained
from privfed.poisoning import Plot, Sortie
from privfed.seeds import Seeds, Stream
from tests.poisoners.plots import plot
from tests.worlds import world

ITEMS, HONEST, MALICIOUS = 240, 4, 3
QUICK = {"width": 8, "negatives": 3}
METHODS: list[Method] = [
    BPR(**QUICK, clip=1e9, start_size=0.5),  # type: ignore[arg-type]
    MFFRS(**QUICK, start_size=0.5),  # type: ignore[arg-type]
    MFFRS(**QUICK, start_size=0.5, loss="bpr"),  # type: ignore[arg-type]
    FedAvg(**QUICK, epochs=3),  # type: ignore[arg-type]
    FedRAP(**QUICK, epochs=2),  # type: ignore[arg-type]
    FedNCF(**QUICK, epochs=3),  # type: ignore[arg-type]
    DLFRS(**QUICK),  # type: ignore[arg-type]
]
each_method = pytest.mark.parametrize(
    "method", METHODS, ids=[f"{k} {type(m).__name__}" for k, m in enumerate(METHODS)]
)


def before(method: Method) -> tuple[Plot, State, State]:
    """A plot, the model, and private tensors that are no longer alike."""
    nothing = torch.zeros(0, dtype=torch.int64)
    there = replace(plot(method, ITEMS, HONEST, MALICIOUS), targets=nothing)
    model, private = method.init(there.shape, Stream(1))
    rng = Generator().manual_seed(2)
    own = {
        name: value + 0.3 * torch.randn(value.shape, generator=rng)
        for name, value in private.items()
    }
    return there, model, own


def after_training(method: Method, taken: list[list[int]]) -> tuple[Plot, Sortie]:
    """A round of the malicious clients; what they hold is ``taken``."""
    there, model, private = before(method)
    lists = [*([[]] * HONEST), *taken]
    cohort = cohort_of(world(lists, ITEMS), there.mine)
    seeds = Seeds(3)
    here = Round(0, seeds("train"), seeds("once"))
    uploads = method.train(model, private, cohort, here).uploads
    own = {name: value[there.mine] for name, value in private.items()}
    return there, Sortie(0, there.mine, model, own, uploads, Stream(9))


def tables(sortie: Sortie) -> dict[str, Tensor]:
    """The rows of an upload, (clients, items, width) by table."""
    found = {}
    for name, rows in sortie.uploads.rows.items():
        table = torch.zeros(MALICIOUS, ITEMS, rows.value.shape[1])
        table[rows.sender, rows.item] = rows.value
        found[name] = table
    return found


def drawn_for(item: int, sent: Tensor) -> list[int]:
    """The negatives that a client with one positive must have drawn."""
    return [i for i in sent.nonzero()[:, 0].tolist() if i != item]


@each_method
def test_on_the_devices_own_samples_it_is_what_the_device_sends(method: Method) -> None:
    """A device with one positive and three different negatives, as many as it drew."""
    there, here = after_training(method, [[5], [11], [17]])
    moved = next(table.any(2) for table in tables(here).values())
    samples = [[item, *drawn_for(item, moved[k])] for k, item in enumerate((5, 11, 17))]
    assert [len(one) for one in samples] == [4, 4, 4], "another seed, please"

    found = trained(Samples(torch.tensor(samples)[:, None]), here, there)

    forged = replace(here, uploads=found)
    for name, table in tables(here).items():
        torch.testing.assert_close(tables(forged)[name], table, rtol=1e-4, atol=1e-7)
    for name, value in here.uploads.dense.items():
        torch.testing.assert_close(found.dense[name], value, rtol=1e-4, atol=1e-7)


def test_pairwise_training_by_one_client_at_a_time() -> None:
    """BPR's loss and its regularization, by autograd, several positives."""
    method = METHODS[0]
    assert isinstance(method, BPR)
    there, here = after_training(method, [[5], [11], [17]])
    item = torch.stack([torch.randperm(ITEMS)[:8].view(2, 4) for _ in range(3)])
    for taken in ("first", "others"):
        samples = Samples(item, taken, times=3)
        found = tables(replace(here, uploads=trained(samples, here, there)))["items"]
        for k in range(MALICIOUS):
            rows = here.model["items"].clone().requires_grad_()
            score = rows @ here.own["users"][k]
            loss = torch.zeros(())
            for first, *others in item[k].tolist():
                for other in others:
                    margin = score[first] - score[other]
                    side = margin if taken == "first" else -margin
                    loss = loss - 3 * torch.sigmoid(side).log()
            (slope,) = torch.autograd.grad(loss, rows)
            touched = torch.zeros(ITEMS, 1)
            touched[item[k].flatten()] = 1.0
            slope = slope + method.regularization * rows.detach() * touched
            torch.testing.assert_close(found[k], slope * -method.learning_rate)


def test_the_hardest_samples() -> None:
    score = torch.tensor([[0.0, 5.0, 3.0, -2.0, 4.0, 1.0], [1.0, 2.0, 3, 4, 5, 6]])
    assert hardest(score, 1, 2).tolist() == [[[3, 1, 4]], [[0, 5, 4]]]
    assert hardest(score, 2, 1).tolist() == [[[3, 1], [0, 4]], [[0, 5], [1, 4]]]


@each_method
def test_scores_are_the_methods_own(method: Method) -> None:
    there, model, private = before(method)
    own = {name: value[there.mine] for name, value in private.items()}
    _, here = after_training(method, [[5], [11], [17]])
    found = all_scores(replace(here, own=own), there)

    cohort = cohort_of(world([[]] * there.clients, ITEMS), there.mine)
    theirs = method.score(model, private, cohort)  # type: ignore[attr-defined]
    torch.testing.assert_close(found, theirs, rtol=1e-4, atol=1e-5)


@each_method
def test_fedattack_pulls_the_best_down_and_the_worst_up(method: Method) -> None:
    there, here = after_training(method, [[5], [11], [17]])
    memory, uploads = FedAttack(profile=6, different=2).forge({}, here, there)
    assert memory == {}
    before_ = all_scores(here, there)
    forged = tables(replace(here, uploads=uploads))
    chosen = hardest(before_, 2, 3)
    for k in range(MALICIOUS):
        sent = {
            i
            for table in forged.values()
            for i in table[k].any(1).nonzero()[:, 0].tolist()
        }
        assert sent <= set(chosen[k].flatten().tolist())
        model = {**here.model}
        for name, table in forged.items():
            size = 0.01 / table[k].abs().max()
            model[name] = model[name] + size * table[k]
        now = all_scores(replace(here, model=model), there)[k]
        worst, best = chosen[k, 0, 0], chosen[k, 0, 1]
        assert now[worst] > before_[k, worst]
        assert now[best] < before_[k, best]


def test_fedattack_counts_its_one_pair_as_often_as_a_profile() -> None:
    there, here = after_training(METHODS[0], [[5], [11], [17]])
    (once,), (often,) = (
        tables(
            replace(here, uploads=FedAttack(profile=n).forge({}, here, there)[1])
        ).values()
        for n in (1, 10)
    )
    decay = tables(here)["items"] * 0
    item = hardest(all_scores(here, there), 1, 3)[0, 0]
    decay[0, item] = here.model["items"][item] * -0.01 * 0.1
    torch.testing.assert_close(often[0] - decay[0], 10 * (once[0] - decay[0]))


def test_flipped_samples_are_those_taken_and_others() -> None:
    there, here = after_training(METHODS[0], [[5], [11], [17]])
    taken = torch.tensor([[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]])
    item = flipped(taken, here, there)

    assert item.shape == (3, 4, 4)
    assert torch.equal(item[..., 0], taken)
    for one in item:
        assert len(set(one.flatten().tolist())) == 16
    assert torch.equal(item, flipped(taken, here, there))


@pytest.mark.parametrize(("count", "shape"), [(120, (3, 120, 2)), (230, (3, 10, 2))])
def test_a_small_catalog_has_fewer_others(count: int, shape: tuple[int, ...]) -> None:
    there, here = after_training(METHODS[0], [[5], [11], [17]])
    item = flipped(torch.arange(count).expand(3, -1), here, there)
    assert item.shape == shape
    assert len(set(item[0].flatten().tolist())) == item[0].numel()


@each_method
def test_flipped_labels_are_labels_of_the_other_kind(method: Method) -> None:
    """What a client trains is what a client with the same vector would that took
    exactly the others."""
    poisoner = LabelFlip(profile=3)
    there, here = after_training(method, [[5], [11], [17]])
    _, found = poisoner.forge({}, here, there)

    made = poisoner.data(there)
    taken = made.item.view(MALICIOUS, 3)
    item = flipped(taken, here, there)
    expected = trained(Samples(item, "others"), here, there)
    for name, rows in expected.rows.items():
        assert torch.equal(rows.value, found.rows[name].value)
    kinds = Samples(item, "others").label
    assert not kinds[..., 0].any()
    assert kinds[..., 1:].all()


def test_a_method_that_tells_too_little_is_refused() -> None:
    for poisoner in (FedAttack(), LabelFlip()):
        assert "repeat it" in poisoner.misfit(FedMR())
        assert not poisoner.misfit(BPR())


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="different must be at most profile, 30"):
        FedAttack(different=31)
