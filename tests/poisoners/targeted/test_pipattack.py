"""PipAttack: rows that look popular, users who want them, near what is usual."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from privfed.interfaces import Method, State
from privfed.messages import Uploads
from privfed.methods.bpr import BPR
from privfed.methods.dl_frs import DLFRS
from privfed.methods.fcf_original import FCFOriginal
from privfed.methods.fedncf import FedNCF
from privfed.poisoners.targeted.levels import Estimator, levels_of
from privfed.poisoners.targeted.pipattack import PipAttack
from privfed.poisoning import Plot
from privfed.seeds import Stream
from tests.methods.factored import shaken
from tests.poisoners.plots import ordinary, plot, sortie
from tests.worlds import world

POPULARITY = torch.arange(20).flip(0) + 1
METHODS: list[Method] = [BPR(width=8), DLFRS(), FedNCF(width=8)]
SMALL = PipAttack(fillers=4, fit=5)


def told(of: object) -> str:
    return type(of).__name__


def forged(
    attack: PipAttack, of: Plot, model: State | None = None
) -> tuple[State, Uploads, Uploads, State]:
    """Memory, what is sent, what would have been sent, and the model of a round."""
    first, private = shaken(of.method, world([[]] * of.clients, of.items))
    model = model or first
    usual = ordinary(attack, of, model, private, of.mine)
    memory, sent = attack.forge(attack.start(of), sortie(model, usual), of)
    return memory, sent, usual, model


def table_of(uploads: Uploads, name: str) -> Tensor:
    rows = uploads.rows[name]
    out = torch.zeros(len(uploads.clients), 20, rows.value.shape[1])
    out[rows.sender, rows.item] = rows.value
    return out


def test_levels_are_shares_of_the_catalog_from_the_top() -> None:
    popularity = torch.tensor([5, 9, 0, 9, 1, 2, 3, 0, 0, 8])

    levels = levels_of(popularity, (0.1, 0.4))

    assert levels.tolist() == [1, 2, 0, 1, 0, 0, 1, 0, 0, 1]


def test_the_estimator_is_adam_on_a_weighted_cross_entropy() -> None:
    """Beside torch's own network, loss and optimizer."""
    table = torch.randn(30, 6, generator=torch.Generator().manual_seed(1))
    level = torch.tensor([0] * 20 + [1] * 7 + [2] * 3)
    learner = Estimator(hidden=8, rate=0.05)
    memory = learner.start(6, 3, Stream(4))
    layers = nn.Linear(6, 8), nn.Linear(8, 3)
    twin = nn.Sequential(layers[0], nn.ReLU(), layers[1])
    with torch.no_grad():
        for k, layer in enumerate(layers):
            layer.weight.copy_(memory[f"weight{k}"])
            layer.bias.copy_(memory[f"bias{k}"])
    adam = torch.optim.Adam(twin.parameters(), lr=0.05)
    x = (table - table.mean(0)) / table.std(0)
    loss = nn.CrossEntropyLoss(weight=1 / torch.bincount(level))

    for _ in range(12):
        adam.zero_grad()
        torch.autograd.backward(loss(twin(x), level))
        adam.step()
    found = learner.learned(learner.learned(memory, table, level, 5), table, level, 7)

    torch.testing.assert_close(
        learner.logits(found, table, table), twin(x).detach(), rtol=1e-3, atol=1e-4
    )


def test_the_estimator_tells_popular_rows_from_others() -> None:
    rng = torch.Generator().manual_seed(2)
    level = levels_of(torch.arange(200), (0.1, 0.45))
    table = torch.randn(200, 8, generator=rng) + level[:, None] * 1.5
    learner = Estimator()

    found = learner.learned(learner.start(8, 3, Stream(4)), table, level, 200)

    right = learner.logits(found, table, table).argmax(1) == level
    assert float(right.float().mean()) > 0.9


@pytest.mark.parametrize("method", METHODS, ids=told)
def test_all_but_the_targets_and_the_layers_is_sent_as_usual(method: Method) -> None:
    of = plot(method, targets=(4, 11), popularity=POPULARITY)

    _, sent, usual, _ = forged(SMALL, of)

    others = [item for item in range(20) if item not in (4, 11)]
    for name in usual.rows:
        assert torch.equal(
            table_of(sent, name)[:, others], table_of(usual, name)[:, others]
        )
        key = sent.rows[name].sender * 20 + sent.rows[name].item
        assert (key.diff() > 0).all()
    assert sent.dense.keys() == usual.dense.keys()


@pytest.mark.parametrize("method", METHODS, ids=told)
def test_a_very_quiet_attack_sends_what_is_usual(method: Method) -> None:
    of = plot(method, popularity=POPULARITY)

    _, sent, usual, _ = forged(replace(SMALL, quiet=1e9), of)

    for name in usual.rows:
        torch.testing.assert_close(table_of(sent, name), table_of(usual, name))
    for name, value in usual.dense.items():
        torch.testing.assert_close(sent.dense[name], value)


def test_the_target_moves_by_the_gradient_of_both_losses() -> None:
    """Beside autograd, on inner products: -log sigmoid(<u, v>) - a log p(popular)."""
    of = plot(BPR(width=8, learning_rate=0.2), popularity=POPULARITY)
    attack = replace(SMALL, popular=0.7, quiet=0.5)
    users = attack.start(of)["own.users"]

    memory, sent, usual, model = forged(attack, of)

    learner = {
        name.removeprefix("estimator."): value
        for name, value in memory.items()
        if name.startswith("estimator.")
    }
    h = table_of(usual, "items")[:, 4]
    for k in range(3):
        v = (model["items"][4] + h[k]).requires_grad_()
        logit = attack.estimator.logits(learner, v, model["items"])
        loss = -(users[k] @ v).sigmoid().log() - 0.7 * logit.log_softmax(0)[2]
        (slope,) = torch.autograd.grad(loss, v)
        torch.testing.assert_close(
            table_of(sent, "items")[k, 4],
            h[k] - 0.2 / 0.5 * slope,
            rtol=1e-4,
            atol=1e-6,
        )


def test_the_target_comes_to_look_popular() -> None:
    """Of rows that tell their level, the target's is drawn to the popular ones."""
    of = plot(BPR(width=8), popularity=POPULARITY, targets=(19,))
    level = levels_of(POPULARITY, (0.1, 0.45))
    rng = torch.Generator().manual_seed(2)
    model = {"items": torch.randn(20, 8, generator=rng) * 0.3 + level[:, None]}
    attack = replace(SMALL, popular=5.0, fit=100, quiet=0.02)

    memory, sent, _, _ = forged(attack, of, model)

    learner = {n.removeprefix("estimator."): v for n, v in memory.items()}
    before = model["items"][19]
    after = before + table_of(sent, "items")[0, 19]
    likes = [
        float(attack.estimator.logits(learner, row, model["items"]).softmax(0)[2])
        for row in (before, after)
    ]
    assert likes[1] > likes[0] + 0.1


def test_what_it_may_know_is_popularity_and_no_more() -> None:
    assert PipAttack.knows.words() == "the items' popularity"
    assert "how it scores" in PipAttack().misfit(FCFOriginal())


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("popular", 0.0),
        ("quiet", 0.0),
        ("fillers", -1),
        ("top", 0.0),
        ("middle", 0.95),
        ("hidden", 0),
        ("fit", 0),
        ("start_size", -1.0),
    ],
)
def test_an_unusable_setting_is_named(setting: str, value: float) -> None:
    given: dict[str, Any] = {setting: value}
    with pytest.raises(ValueError, match=setting):
        PipAttack(**given)
