"""User vectors are recovered in closed form, where a part of an upload scales them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator, Tensor

from privfed.adversary import Prior
from privfed.attacks.reading.vector_readers import first_values, inverted
from privfed.attacks.users.user_vector import UserVector
from privfed.channels.plain import Plain
from privfed.data.world import World
from privfed.guesses import Vectors
from privfed.interfaces import FromTotal, Method, Round
from privfed.messages import Rows, Uploads
from privfed.methods.bpr import BPR
from privfed.methods.cali3f import Cali3F
from privfed.methods.fcf import FCF
from privfed.methods.fedavg import FedAvg
from privfed.methods.federeco import Federeco
from privfed.methods.fedmf import FedMF
from privfed.methods.fedmr import FedMR
from privfed.methods.fedncf import FedNCF
from privfed.methods.fedrap import FedRAP
from privfed.methods.neural_avg import NeuralAvg
from privfed.methods.pfedrec import PFedRec
from privfed.metrics.leakage.vectors import cosine
from privfed.seeds import Seeds
from privfed.surfaces import ReadsUser
from privfed.views import ServerView, View
from tests.attacks.views import view_of
from tests.worlds import everyone, opening, shards, uneven, world

SEEDS = Seeds(3)


@dataclass(frozen=True, eq=False)
class Trained:
    """Some rounds of training: what the server saw, and what is left."""

    views: list[View]
    model: Mapping[str, Tensor]
    private: Mapping[str, Tensor]
    prior: Prior


def trained(method: Method, of: World, rounds: int = 1, size: int = 3) -> Trained:
    assert isinstance(method, FromTotal)
    start, private = method.init(of.shape, SEEDS("init"))
    model = dict(start)
    own = {name: value.clone() for name, value in private.items()}
    views: list[View] = []
    for number in range(rounds):
        held = {name: value.clone() for name, value in model.items()}
        views.append(ServerView(round=number, model=held))
        channel = Plain()
        opened = channel.open(opening(of.shape, number))
        for cohort in shards(of, size):
            now = Round(number, SEEDS("train", number), SEEDS("once"))
            done = method.train(model, own, cohort, now)
            for name, value in done.private.items():
                own[name][cohort.clients] = value
            opened, view = channel.send(opened, done.uploads)
            views.append(view)
        model = dict(method.apply(model, channel.close(opened).total))
    return Trained(views, model, own, prior_of(method, of))


def prior_of(method: Method, of: World) -> Prior:
    return Prior(of.shape, SEEDS("attack"), method, popularity=of.popularity)


def claimed(prior: Prior, views: list[View], **settings: float) -> Vectors:
    attack = UserVector(**settings).prepare(prior)  # type: ignore[arg-type]
    memory = attack.start(prior)
    for view in views:
        memory = attack.observe(memory, view)
    found = attack.guess(memory, prior)
    assert isinstance(found, Vectors)
    return found


def crowd(clients: int = 12, items: int = 200) -> World:
    rng = Generator().manual_seed(1)
    lists = [torch.randperm(items, generator=rng)[:12].tolist() for _ in range(clients)]
    return world(lists, items)


def own_cosine(found: Tensor, real: Tensor) -> Tensor:
    return cosine(found - found.mean(0), real - real.mean(0))


@given(seed=st.integers(0, 500), batch=st.integers(1, 40))
def test_a_layer_gives_the_vector_away_whatever_the_batch(
    seed: int, batch: int
) -> None:
    rng = Generator().manual_seed(seed)
    clients, out, width = 3, 5, 4
    delta = torch.randn(clients, batch, out, generator=rng, dtype=torch.float64)
    user = torch.randn(clients, width, generator=rng, dtype=torch.float64)
    weight = torch.zeros(clients, out, width, dtype=torch.float64)
    for client in range(clients):  # the gradient, sample by sample
        for sample in range(batch):
            weight[client] += torch.outer(delta[client, sample], user[client])

    found, energy = inverted(weight, delta.sum(1))

    torch.testing.assert_close(found, user, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(energy[:, 0], delta.sum(1).square().sum(1))


def test_where_nothing_moved_nothing_is_told() -> None:
    found, energy = inverted(torch.zeros(2, 3, 4), torch.zeros(2, 3))

    assert not found.any()
    assert not energy.any()


@pytest.mark.parametrize("batch", [4, 10_000])
def test_fedncfs_private_vectors_are_recovered(batch: int) -> None:
    method = FedNCF(width=16, epochs=1, batch=batch, learning_rate=0.3, item_std=0.3)
    run = trained(method, crowd(), rounds=3)

    found = claimed(run.prior, run.views)

    real = run.private["user_mlp"].double()
    assert found.name == "user_mlp"
    assert found.clients.tolist() == list(range(12))
    assert own_cosine(found.vector, real).min() > (0.999 if batch > 60 else 0.8)
    assert cosine(found.vector, real).min() > 0.999
    if batch > 60:  # one step: also as long as it is
        torch.testing.assert_close(found.vector, real, rtol=1e-3, atol=1e-5)


def test_a_client_by_client_loop_claims_the_same() -> None:
    method = FedNCF(width=16, epochs=2, batch=16, learning_rate=0.3)
    run = trained(method, crowd(5, 60), rounds=4)
    found = claimed(run.prior, run.views, earlier=0.7)

    sums, steps = [], []
    for client in range(5):
        pull, moved = torch.zeros(16).double(), torch.zeros(16).double()
        weight = excess = left = free = 0.0
        layer = torch.zeros(0)
        for view in run.views:
            if isinstance(view, ServerView):
                layer = view.model["mlp0.weight"][:, :16].double()
                continue
            sent: Uploads = view.uploads  # type: ignore[attr-defined]
            if client not in sent.clients:
                continue
            at = sent.clients.tolist().index(client)
            change = sent.dense["mlp0.weight"][at, :, :16].double()
            bias = sent.dense["mlp0.bias"][at].double()
            vector = change.T @ bias / (bias @ bias)
            rest = float((change - torch.outer(bias, vector)).norm() ** 2)
            noise = rest / (15 * 16)
            clear = bias @ bias - 16 * noise
            pull = 0.7 * pull + change.T @ bias - moved * clear
            weight = 0.7 * weight + float(bias @ bias)
            excess = 0.7 * excess + 16 * noise
            left, free = 0.7 * left + rest, 0.7 * free + 15 * 16
            moved = moved + layer.T @ bias
        sums.append((pull, weight - excess, left / free * weight))
        steps.append(moved)
    pulls, weights, noises = zip(*sums, strict=True)
    together = predicted_by_hand(
        torch.stack(pulls), torch.tensor(weights), torch.tensor(noises)
    )
    expected = together + torch.stack(steps)
    torch.testing.assert_close(found.vector, expected, rtol=1e-6, atol=1e-9)


def predicted_by_hand(pull: Tensor, weight: Tensor, noise: Tensor) -> Tensor:
    """The mean of all, and of what a client is off it the share that is no noise."""
    mean = pull.sum(0) / weight.sum()
    above = below = 0.0
    for p, w, v in zip(pull, weight.clamp_min(0), noise, strict=True):
        trust = float((w / v) ** 2)
        above += trust * (float(((p - w * mean) ** 2).mean()) - float(v))
        below += trust * float(w**2)
    between = max(0.0, above / below)
    found = [
        mean + between * w * (p - w * mean) / (between * w**2 + v)
        for p, w, v in zip(pull, weight.clamp_min(0), noise, strict=True)
    ]
    return torch.stack(found)


def noisy(seed: int, spread: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(real, pull, weight, noise) of clients whose first values spread so far."""
    rng = Generator().manual_seed(seed)
    weight = 0.1 + torch.rand(20, generator=rng, dtype=torch.float64)
    noise = 0.01 + 0.1 * torch.rand(20, generator=rng, dtype=torch.float64)
    real = 3.0 + torch.randn(20, 6, generator=rng, dtype=torch.float64) * spread
    drawn = torch.randn(20, 6, generator=rng, dtype=torch.float64)
    return real, weight[:, None] * real + drawn * noise[:, None].sqrt(), weight, noise


@given(seed=st.integers(0, 200), spread=st.sampled_from([0.0, 0.1, 1.0]))
def test_first_values_are_predicted_as_by_hand(seed: int, spread: float) -> None:
    _, pull, weight, noise = noisy(seed, spread)

    found = first_values(pull, weight[:, None], noise[:, None])
    torch.testing.assert_close(found, predicted_by_hand(pull, weight, noise))


@pytest.mark.parametrize("spread", [0.0, 0.1, 1.0])
def test_predicted_first_values_are_nearer_on_average(spread: float) -> None:
    ours, plain = 0.0, 0.0
    for seed in range(50):
        real, pull, weight, noise = noisy(seed, spread)
        found = first_values(pull, weight[:, None], noise[:, None])
        ours += float((found - real).square().sum())
        plain += float((pull / weight[:, None] - real).square().sum())
    assert ours < plain


def test_without_noise_no_client_is_drawn_to_the_others() -> None:
    real = torch.randn(9, 4, generator=Generator().manual_seed(0)).double()
    weight = torch.rand(9, 1, generator=Generator().manual_seed(1)).double() + 0.1
    none = torch.zeros(9, 1).double()

    torch.testing.assert_close(first_values(weight * real, weight, none), real)
    alone = first_values(real[:1], none[:1] + 1, none[:1])
    torch.testing.assert_close(alone, real[:1])


def test_uploads_of_noise_alone_are_finite() -> None:
    rng = Generator().manual_seed(0)
    pull = torch.randn(9, 4, generator=rng).double()
    for weight in (torch.zeros(9, 1), -torch.ones(9, 1), torch.full((9, 1), 1e-30)):
        assert (
            first_values(pull, weight.double(), torch.ones(9, 1).double())
            .isfinite()
            .all()
        )


@pytest.mark.parametrize(
    "method",
    [
        FedAvg(width=8, epochs=1),
        FCF(width=8, epochs=1, item_rate=0.01),
        PFedRec(width=8, item_rate=0.01),
        FedRAP(width=8, epochs=1, item_rate=0.01),
    ],
    ids=lambda m: type(m).__name__,
)
def test_the_direction_of_linear_heads_is_recovered_with_its_sign(
    method: Method,
) -> None:
    run = trained(method, crowd(), rounds=2)

    found = claimed(run.prior, run.views)

    real = run.private["head.weight"].flatten(1).double()
    assert found.name == "head.weight"
    torch.testing.assert_close(found.vector.norm(dim=1), torch.ones(12).double())
    assert cosine(found.vector, real).min() > 0.99


def test_with_one_negative_popularity_orients_bprs_vectors() -> None:
    items, clients = 60, 10
    liked = [list(range(c % 3, 24, 2)) for c in range(clients)]  # the first 24 only
    of = world(liked, items)
    run = trained(BPR(width=8, start_size=0.3), of, rounds=2)

    found = claimed(run.prior, run.views)

    assert found.name == "users"
    assert cosine(found.vector, run.private["users"].double()).min() > 0.9


@pytest.mark.parametrize(
    "method",
    [
        FedMF(width=6, start=0.0, start_spread=0.3, learning_rate=1e-3),
        FedMF(width=6, start=0.4, start_spread=0.1, learning_rate=1e-3, steps="all"),
    ],
    ids=["each", "all"],
)
def test_the_direction_of_factors_of_ratings_is_recovered(method: Method) -> None:
    of = crowd()
    stars = 1.0 + torch.arange(len(of.train.item)) % 5
    shape = replace(of.shape, scale=(1.0, 5.0), step=1.0)
    of = replace(of, train=replace(of.train, label=stars), shape=shape, task="rating")
    run = trained(method, of, rounds=2)

    found = claimed(run.prior, run.views)

    assert found.name == "users"
    assert cosine(found.vector, run.private["users"].double()).min() > 0.99


@pytest.mark.parametrize(
    ("method", "exact"),
    [
        (NeuralAvg(width=4, layers=(16, 8, 4), user_rows="own"), True),
        (NeuralAvg(width=4, layers=(16, 8, 4), user_rows="own", kind="gmf"), True),
        (Federeco(width=4, layers=(16, 8, 4), user_rows="owner"), True),
        (Federeco(width=4, layers=(16, 8, 4)), False),  # the mean dilutes the change
    ],
    ids=["own", "gmf", "owner", "mean"],
)
def test_a_row_that_is_sent_is_known(method: Method, exact: bool) -> None:
    run = trained(method, crowd(), rounds=2)

    found = claimed(run.prior, run.views)

    real = run.model[found.name].double()
    assert cosine(found.vector, real).min() > 0.99
    if exact:
        torch.testing.assert_close(found.vector, real, rtol=1e-4, atol=1e-6)


def test_the_server_of_clusters_has_its_users_rows() -> None:
    assert Cali3F().user_row().table == "server.users_mlp"
    assert not UserVector().misfit(Cali3F())


def test_a_client_that_sent_nothing_is_left_out() -> None:
    of = uneven((3, 0, 9), 40)
    for method in (FedNCF(width=16, epochs=1), FedAvg(width=4, epochs=1)):
        run = trained(method, of)
        assert claimed(run.prior, run.views).clients.tolist() == [0, 2]


def test_without_views_nothing_is_claimed() -> None:
    of = crowd()
    for method in (FedNCF(width=4), FedAvg(width=4), NeuralAvg()):
        found = claimed(prior_of(method, of), [])
        assert not len(found.clients)
        assert len(found.vector) == 0


@pytest.mark.parametrize(
    "method",
    [FedNCF(width=16, epochs=1, batch=4), FedAvg(width=8), NeuralAvg()],
    ids=lambda m: type(m).__name__,
)
def test_neither_shards_nor_their_order_change_a_claim(method: Method) -> None:
    of = crowd()
    alone, together = (trained(method, of, 2, size) for size in (1, 12))
    first, second = alone.views[:13], alone.views[13:]
    mixed = [first[0], *first[:0:-1], second[0], *second[:0:-1]]

    found = claimed(alone.prior, alone.views)

    for other in (claimed(together.prior, together.views), claimed(alone.prior, mixed)):
        assert torch.equal(found.clients, other.clients)
        assert torch.equal(found.vector, other.vector)


def test_noise_alone_tells_no_user_from_another() -> None:
    of = crowd(60)
    method = FedNCF(width=16, epochs=1)
    run = trained(method, of)
    layer = method.user_layer()
    rng = Generator().manual_seed(0)
    views = []
    for view in run.views:
        if not isinstance(view, ServerView):
            sent: Uploads = view.uploads  # type: ignore[attr-defined]
            dense = {
                name: torch.randn(value.shape, generator=rng)
                for name, value in sent.dense.items()
            }
            view = replace(view, uploads=replace(sent, dense=dense))  # type: ignore[call-arg]
        views.append(view)

    found = claimed(run.prior, views)

    real = run.private[layer.vector].double()
    told = own_cosine(found.vector, real)
    assert abs(float(told.mean())) < 4 * float(told.std()) / 60**0.5
    assert float(told.mean()) < 0.2


def test_noised_rows_have_no_direction_of_the_user() -> None:
    rng = Generator().manual_seed(0)
    clients, items = 80, 50
    sender = torch.arange(clients).repeat_interleave(items)
    value = torch.randn(clients * items, 16, generator=rng)
    rows = Rows(sender, torch.arange(items).repeat(clients), value)
    real = torch.randn(clients, 16, generator=rng).double()
    of = world([[0]] * clients, items)

    found = claimed(
        prior_of(FedAvg(width=16), of),
        [view_of(torch.arange(clients), {"items": rows})],
    )

    told = cosine(found.vector, real)
    assert abs(float(told.mean())) < 4 * float(told.std()) / clients**0.5


def noised(run: Trained, deviation: float) -> list[View]:
    """The same views with noise on the layer that reads the vector."""
    rng = Generator().manual_seed(0)
    views = []
    for view in run.views:
        if not isinstance(view, ServerView):
            sent: Uploads = view.uploads  # type: ignore[attr-defined]
            dense = dict(sent.dense)
            for name in ("mlp0.weight", "mlp0.bias"):
                noise = torch.randn(dense[name].shape, generator=rng)
                dense[name] = dense[name] + deviation * noise
            view = replace(view, uploads=replace(sent, dense=dense))  # type: ignore[call-arg]
        views.append(view)
    return views


def test_little_noise_does_not_hide_what_a_client_learned() -> None:
    """Vectors that start alike differ by how far they moved, which is told better."""
    method = FedNCF(width=16, epochs=1, learning_rate=0.3, item_std=0.3)
    run = trained(method, crowd(40), rounds=6)
    real = run.private["user_mlp"].double()
    views = noised(run, 1e-3)

    found = claimed(run.prior, views).vector
    last = views[-1].uploads  # type: ignore[attr-defined]
    alone, _ = inverted(
        last.dense["mlp0.weight"][:, :, :16].double(),
        last.dense["mlp0.bias"].double(),
    )

    assert own_cosine(found, real).mean() > 0.6
    assert own_cosine(alone, real[last.clients]).mean() < 0.4


def test_methods_without_such_a_part_are_refused() -> None:
    assert "number times" in UserVector().misfit(FedMR())
    assert not UserVector().misfit(FedNCF())
    assert isinstance(FedNCF(), ReadsUser)


@pytest.mark.parametrize(
    "bad", [{"earlier": -0.1}, {"earlier": 1.1}, {"power": 0}, {"deviations": -1.0}]
)
def test_bad_settings_are_named(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        UserVector(**bad)  # type: ignore[arg-type]


def test_it_must_be_prepared() -> None:
    of = crowd()
    with pytest.raises(TypeError, match="prepare"):
        UserVector().observe({}, ServerView(round=0, model={}))
    assert everyone(of).clients.tolist() == list(range(12))
