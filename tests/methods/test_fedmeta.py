"""FedMeta: exact gradients, each client's own, and what its figures rest on."""

import runpy
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import cross_entropy

import privfed
from privfed.channels.plain import Plain
from privfed.data.cohort import Cohort, cohort_of
from privfed.data.interactions import Interactions
from privfed.data.splits import by_clients
from privfed.data.usage import Population, usage
from privfed.data.world import Shape, World
from privfed.defenses.gaussian import Gaussian
from privfed.errors import SettingsError
from privfed.evaluation.protocol import Protocol
from privfed.interfaces import Round, State
from privfed.machine import Machine
from privfed.messages import Total
from privfed.methods.fedmeta import RATE, FedMeta
from privfed.methods.meta.adaptation import adapt, copies, meta_gradient, slopes
from privfed.methods.meta.models import Classifier, Letters, Logistic, Network
from privfed.methods.meta.records import Taking
from privfed.rounds import Setup, run
from privfed.seeds import Seeds

SEEDS = Seeds(3)
FIRST = Round(0, SEEDS("train"), SEEDS("once"))
SHAPE = Shape(9, 40, {}, 103)
ALGORITHMS = ("maml", "fomaml", "meta_sgd", "fedavg", "fedavg_meta")


def letters(clients: int = 20, codes: int = 12, length: int = 6) -> World:
    """Random rows of letters."""
    rng = torch.Generator().manual_seed(0)
    counts = torch.randint(3, 40, (clients,), generator=rng)
    user = torch.repeat_interleave(torch.arange(clients), counts)
    size = (len(user), length)
    context = torch.randint(codes, size, generator=rng).float()
    item = torch.randint(codes, (len(user),), generator=rng)
    data = Interactions("letters", clients, codes, user, item, choices=context)
    return by_clients(data, 0)


SERVICES = by_clients(usage(0, Population(24, 5, 60)), 0)
LETTERS = letters()
WORLDS = {"logistic": SERVICES, "network": SERVICES, "lstm": LETTERS}


def small(algorithm: str, model: str) -> FedMeta:
    return FedMeta(
        algorithm=algorithm,  # type: ignore[arg-type]
        model=model,  # type: ignore[arg-type]
        hidden=8,
        inner_rate=0.3,
        inner_steps=2,
        adapt_steps=3,
        outer_rate=0.02,
        records=30,
        local_rate=0.01,
        batch=7,
    )


def shards(world: World) -> list[Cohort]:
    """Those who train, in shards of one padded size."""
    from privfed.devices.batches import bucket

    sizes = bucket(world.train.counts[world.eligible])
    return [cohort_of(world, world.eligible[sizes == s]) for s in torch.unique(sizes)]


# Sizes.


@pytest.mark.parametrize(("model", "numbers"), [("logistic", 4160), ("network", 9256)])
def test_parameters_are_as_many_as_published(model: str, numbers: int) -> None:
    maml, sgd = (FedMeta(a, model) for a in ("maml", "meta_sgd"))  # type: ignore[arg-type]
    theta, both = (m.init(SHAPE, SEEDS("init"))[0] for m in (maml, sgd))
    adapted = maml.adapted(theta, cohort_of(SERVICES, torch.tensor([0])))

    def count(weights: Mapping[str, Tensor]) -> int:
        return sum(value.numel() for value in weights.values())

    assert count(theta) == count(adapted) == numbers
    assert count(theta) + count(adapted) == {4160: 8320, 9256: 18_512}[numbers]
    assert count(both) + count(adapted) == {4160: 12_480, 9256: 27_768}[numbers]


def test_the_unified_network_is_as_large_as_published() -> None:
    script = Path(privfed.__file__).parents[1] / "benchmarks" / "fedmeta.py"
    if not script.exists():
        pytest.skip("the benchmarks are not shipped")
    records = SimpleNamespace(
        context=torch.zeros(9, 103), users=9369, offsets=torch.tensor([0, 9])
    )
    task = SimpleNamespace(
        records=records, services=2400, service=torch.zeros(9, dtype=torch.int64)
    )

    assert runpy.run_path(str(script))["Unified"](task).numbers == 918_452


def test_an_upload_is_as_large_as_the_model_and_meta_sgds_twice() -> None:
    for algorithm, factor in (("maml", 1), ("meta_sgd", 2), ("fedavg", 1)):
        method = small(algorithm, "network")
        model, _ = method.init(SERVICES.shape, SEEDS("init"))
        cohort = shards(SERVICES)[0]
        sent = method.train(model, {}, cohort, FIRST).uploads
        weight = 4 if algorithm == "fedavg" else 0

        numbers = 8 * 103 + 8 + 40 * 8 + 40
        assert set(sent.bytes_up(SERVICES.shape).tolist()) == {
            4 * factor * numbers + weight
        }
        assert method.bytes_down(model) == 4 * factor * numbers
        assert set(sent.scale) == set(sent.dense)


# Gradients.


def problem(classifier: Classifier, clients: int = 2) -> tuple[State, ...]:
    """Float64 weights of some clients, and records to support and to ask."""
    rng = torch.Generator().manual_seed(1)
    shape = Shape(clients, 5, {}, 6)
    start = {
        name: value.double() for name, value in classifier.init(shape, rng).items()
    }
    parts = []
    for count in (7, 4):
        x = torch.randint(5, (clients, count, 6), generator=rng).double()
        y = torch.randint(5, (clients, count), generator=rng)
        parts.append({"x": x, "y": y})
    return start, parts[0], parts[1]


def losses(classifier: Classifier, part: State, weights: State) -> Tensor:
    told = classifier.logits(weights, part["x"]).log_softmax(2)
    return -told.gather(2, part["y"][:, :, None])[:, :, 0].mean(1)


CLASSIFIERS = (Logistic(), Network(4), Letters(4))


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("classifier", CLASSIFIERS, ids=lambda c: type(c).__name__)
def test_maml_is_the_slope_that_finite_differences_find_and_fomaml_is_not(
    classifier: Classifier, steps: int
) -> None:
    start, support, query = problem(classifier)
    known, asked = (partial(losses, classifier, part) for part in (support, query))
    rates = dict.fromkeys(start, 0.5)

    def found(exact: bool) -> dict[str, Tensor]:
        own = copies(start, 2)
        slope = meta_gradient(own, known, asked, rates, steps, exact)
        return {name: value.sum(0) for name, value in slope.weights.items()}

    def value(weights: State) -> float:
        own = copies(weights, 2)
        return float(asked(adapt(own, known, rates, steps, exact=False)).sum().detach())

    rng = torch.Generator().manual_seed(2)
    way = {n: torch.randn(v.shape, generator=rng).double() for n, v in start.items()}
    small = 1e-5
    ahead, behind = (
        {n: v + sign * small * way[n] for n, v in start.items()} for sign in (1, -1)
    )
    slope = (value(ahead) - value(behind)) / (2 * small)
    exact, first = (
        sum(float((found(e)[n] * way[n]).sum()) for n in start) for e in (True, False)
    )

    assert exact == pytest.approx(slope, rel=1e-6, abs=1e-8)
    assert abs(first - slope) > 1e-3 * abs(slope)


@pytest.mark.parametrize("classifier", CLASSIFIERS, ids=lambda c: type(c).__name__)
def test_first_order_meta_sgd_gives_the_support_gradient_away(
    classifier: Classifier,
) -> None:
    start, support, query = problem(classifier)
    known, asked = (partial(losses, classifier, part) for part in (support, query))
    own = copies(start, 2)
    rates = copies({n: torch.full_like(v, 0.3) for n, v in start.items()}, 2)
    found = meta_gradient(own, known, asked, rates, 1, exact=False)
    support_slope = slopes(known(own), own)

    for name, value in found.weights.items():
        sent = value.abs() > 1e-12
        ratio = found.rates[name][sent] / value[sent]
        assert torch.allclose(ratio, -support_slope[name][sent], atol=1e-9)


def test_a_client_learns_nothing_of_another() -> None:
    classifier = Network(4)
    start, support, query = problem(classifier)
    known, asked = (partial(losses, classifier, part) for part in (support, query))
    both = meta_gradient(
        copies(start, 2), known, asked, dict.fromkeys(start, 0.5), 2, True
    )
    alone = [
        {name: value[k : k + 1] for name, value in part.items()}
        for k in (0, 1)
        for part in (support, query)
    ]
    for k in (0, 1):
        one, other = (partial(losses, classifier, x) for x in alone[2 * k : 2 * k + 2])
        rates = dict.fromkeys(start, 0.5)
        mine = meta_gradient(copies(start, 1), one, other, rates, 2, True)
        for name, value in mine.weights.items():
            assert torch.allclose(value[0], both.weights[name][k], atol=1e-12)


def test_letters_are_read_as_pytorchs_lstm_reads_them() -> None:
    reader, shape = Letters(8), Shape(1, 12, {}, 6)
    model = reader.init(shape, torch.Generator().manual_seed(0))
    x = torch.randint(12, (1, 5, 6), generator=torch.Generator().manual_seed(1))
    lstm = torch.nn.LSTM(8, 8, num_layers=2, batch_first=True)
    with torch.no_grad():
        for k in (0, 1):
            getattr(lstm, f"weight_ih_l{k}").copy_(model[f"lstm{k}.input"])
            getattr(lstm, f"weight_hh_l{k}").copy_(model[f"lstm{k}.state"])
            getattr(lstm, f"bias_ih_l{k}").copy_(model[f"lstm{k}.bias"])
            getattr(lstm, f"bias_hh_l{k}").zero_()
        last = lstm(model["letters"][x[0]])[0][:, -1]
        expected = last @ model["out.weight"].T + model["out.bias"]
        own = {name: value[None] for name, value in model.items()}
        found = reader.logits(own, x.float())[0]

    assert torch.allclose(found, expected, atol=1e-6)


# The naive twin: one client at a time, with what PyTorch has for it.


def _logits(model: str, weights: State, x: Tensor) -> Tensor:
    if model == "network":
        x = torch.relu(x @ weights["hidden.weight"].T + weights["hidden.bias"])
    return x @ weights["out.weight"].T + weights["out.bias"]


def _drawn(method: FedMeta, cohort: Cohort, client: int) -> list[int]:
    """Places that an episode takes of one client's records."""
    count = int(cohort.counts[client])
    keys = FIRST.stream.bits(cohort.clients[client], torch.arange(count)).tolist()
    size = min(method.records, max(2, int(count * method.share)), count)
    return sorted(sorted(range(count), key=lambda n: keys[n])[:size])


def _episode(
    method: FedMeta, model: State, cohort: Cohort, client: int
) -> dict[str, Tensor]:
    """Gradient of one client's query loss by torch.func."""
    mine = cohort.sender == client
    x, y = cohort.context[mine], cohort.item[mine]
    places = _drawn(method, cohort, client)
    cut = int(method.support * len(places) + 0.5)
    cut = max(1, min(cut, len(places) - 1))
    known, asked = places[:cut], places[cut:]

    def loss(weights: State, at: list[int]) -> Tensor:
        return cross_entropy(_logits(method.model, weights, x[at]), y[at])

    def after(everything: dict[str, Tensor]) -> Tensor:
        theta = {n: v for n, v in everything.items() if not n.startswith(RATE)}
        for _ in range(method.inner_steps):
            down = torch.func.grad(loss)(theta, known)
            if method.algorithm == "fomaml":
                down = {n: v.detach() for n, v in down.items()}
            rates = {n: everything.get(RATE + n, method.inner_rate) for n in theta}
            theta = {n: v - rates[n] * down[n] for n, v in theta.items()}
        return loss(theta, asked)

    found: dict[str, Tensor] = torch.func.grad(after)(dict(model))
    return found


@pytest.mark.parametrize("model", ["logistic", "network"])
@pytest.mark.parametrize("algorithm", ["maml", "fomaml", "meta_sgd"])
def test_an_episode_is_what_each_client_would_do_alone(
    algorithm: str, model: str
) -> None:
    method = small(algorithm, model)
    theta, _ = method.init(SERVICES.shape, SEEDS("init"))

    for cohort in shards(SERVICES):
        sent = method.train(theta, {}, cohort, FIRST).uploads
        for client in range(len(cohort.clients)):
            expected = _episode(method, theta, cohort, client)
            assert set(expected) == set(sent.dense)
            for name, value in expected.items():
                found = -sent.dense[name][client]
                assert torch.allclose(found, value, atol=2e-6), (name, client)


def _trained_alone(
    method: FedMeta, model: State, cohort: Cohort, client: int
) -> dict[str, Tensor]:
    """One client's epoch with PyTorch's Adam."""
    mine = cohort.sender == client
    x, y = cohort.context[mine], cohort.item[mine]
    draws = FIRST.stream.of("epoch", 0)
    keys = draws.bits(cohort.clients[client], torch.arange(len(y))).tolist()
    order = sorted(range(len(y)), key=lambda n: keys[n])
    own = {n: v.clone().requires_grad_() for n, v in model.items()}
    adam = torch.optim.Adam(own.values(), lr=method.local_rate)
    for start in range(0, len(order), method.batch):
        at = order[start : start + method.batch]
        adam.zero_grad()
        cross_entropy(_logits(method.model, own, x[at]), y[at]).backward()  # type: ignore[no-untyped-call]
        adam.step()
    return {n: v.detach() - model[n] for n, v in own.items()}


@pytest.mark.parametrize("model", ["logistic", "network"])
def test_fedavg_is_an_epoch_of_adam_on_each_device(model: str) -> None:
    method = small("fedavg", model)
    theta, _ = method.init(SERVICES.shape, SEEDS("init"))

    for cohort in shards(SERVICES):
        sent = method.train(theta, {}, cohort, FIRST).uploads
        assert sent.weight is not None
        assert torch.equal(sent.weight, cohort.counts.float())
        for client in range(len(cohort.clients)):
            expected = _trained_alone(method, theta, cohort, client)
            for name, value in expected.items():
                assert torch.allclose(sent.dense[name][client], value, atol=1e-5)


# Episodes.


@given(
    st.integers(0, 2000),
    st.integers(2, 600),
    st.floats(0.05, 1.0),
    st.floats(0.05, 0.95),
)
def test_an_episode_splits_what_it_takes(
    count: int, records: int, share: float, support: float
) -> None:
    taking = Taking(records, share, support)
    taken = int(taking.taken(torch.tensor(count)))
    known = int(taking.supports(torch.tensor(taken)))

    assert taken <= min(count, max(2, records))
    assert taken >= min(count, 2)
    assert (known >= 1) == (taken >= 1)
    assert taken < 2 or 1 <= known < taken


def test_half_of_few_and_500_of_many_and_four_fifths_support() -> None:
    taking = Taking(500, 0.5, 0.8)
    taken = taking.taken(torch.tensor([0, 1, 3, 100, 5000]))

    assert taken.tolist() == [0, 1, 2, 50, 500]
    assert taking.supports(taken).tolist() == [0, 1, 1, 40, 400]


def test_a_client_of_one_record_sends_zeros() -> None:
    user = torch.tensor([0, 1, 1, 1])
    data = Interactions(
        "few", 2, 40, user, torch.tensor([1, 2, 3, 2]), choices=torch.rand(4, 103)
    )
    world = replace(by_clients(data, 0, ratios=(1.0, 0.0, 0.0)))
    method = small("maml", "network")
    theta, _ = method.init(world.shape, SEEDS("init"))
    sent = method.train(theta, {}, cohort_of(world, torch.tensor([0])), FIRST).uploads

    assert not any(value.any() for value in sent.dense.values())


# The server.


def test_the_server_steps_down_the_mean_gradient() -> None:
    method = small("maml", "logistic")
    theta, _ = method.init(SERVICES.shape, SEEDS("init"))
    slope = {n: torch.ones_like(v) for n, v in theta.items()}
    total = Total({}, {}, {n: -3 * v for n, v in slope.items()}, 3.0, 3)

    after = method.apply(theta, total)

    for name, value in theta.items():  # the first step of Adam has the rate's length
        assert torch.allclose(after[name], value - 0.02, atol=1e-6)
    nothing = Total({}, {}, {}, 0.0, 0)
    assert method.apply(theta, nothing) is theta


def test_fedavg_weighs_clients_by_their_data() -> None:
    method = small("fedavg", "logistic")
    theta, _ = method.init(SERVICES.shape, SEEDS("init"))
    moved = {n: torch.ones_like(v) for n, v in theta.items()}
    total = Total({}, {}, {n: 1 * v + 9 * 2 * v for n, v in moved.items()}, 10.0, 2)

    after = method.apply(theta, total)

    assert all(torch.allclose(after[n], v + 1.9) for n, v in theta.items())


# Predicting.


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_choosing_reads_no_answer_and_no_other_client(algorithm: str) -> None:
    method = small(algorithm, "network")
    theta, _ = method.init(SERVICES.shape, SEEDS("init"))
    testers = (SERVICES.test.counts > 0).nonzero()[:, 0]
    cohort, pairs = cohort_of(SERVICES, testers), SERVICES.test.of(testers)
    scores = method.choose(theta, {}, cohort, pairs)

    other = replace(pairs, item=(pairs.item + 1) % 40)
    assert torch.equal(scores, method.choose(theta, {}, cohort, other))
    assert scores.shape == (len(pairs.item), 40)
    for place, client in enumerate(testers):
        alone, mine = client[None], pairs.sender == place
        own = method.choose(
            theta, {}, cohort_of(SERVICES, alone), SERVICES.test.of(alone)
        )
        assert torch.allclose(own, scores[mine], atol=1e-5)


def test_only_fedavg_predicts_without_adapting() -> None:
    testers = (SERVICES.test.counts > 0).nonzero()[:, 0]
    cohort = cohort_of(SERVICES, testers)
    for algorithm in ALGORITHMS:
        method = small(algorithm, "logistic")
        theta, _ = method.init(SERVICES.shape, SEEDS("init"))
        weights = method.adapted(theta, cohort)["out.weight"]
        moved = not torch.equal(weights, theta["out.weight"].expand_as(weights))
        assert moved == (algorithm != "fedavg")


def test_adapting_all_records_at_once_is_plain_gradient_descent() -> None:
    method = replace(small("maml", "logistic"), records=10_000, share=1.0)
    theta, _ = method.init(SERVICES.shape, SEEDS("init"))
    client = (SERVICES.test.counts > 0).nonzero()[:1, 0]
    cohort = cohort_of(SERVICES, client)
    own = {n: v.clone() for n, v in theta.items()}
    for _ in range(3):
        leaves = {n: v.requires_grad_() for n, v in own.items()}
        told = _logits("logistic", leaves, cohort.context)
        down = torch.autograd.grad(cross_entropy(told, cohort.item), [*leaves.values()])
        own = {
            n: (v - 0.3 * d).detach()
            for (n, v), d in zip(leaves.items(), down, strict=True)
        }

    found = method.adapted(theta, cohort)

    assert all(torch.allclose(found[n][0], v, atol=1e-5) for n, v in own.items())


# Runs.


def _setup(method: FedMeta, world: World, **changes: object) -> Setup:
    plain = Setup(world, method, Plain(), protocol=Protocol(every=2), rounds=3)
    return replace(plain, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("model", ["logistic", "network", "lstm"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_neither_shards_nor_memory_nor_workers_change_a_result(
    algorithm: str, model: str
) -> None:
    setup = _setup(
        small(algorithm, model), WORLDS[model], defenses=(Gaussian(variance=1e-4),)
    )
    whole = run(setup, Machine(workers=1)).state

    for machine in (
        Machine(workers=2),
        Machine(workers=1, shard=1),
        Machine(workers=2, shard=3, memory=64 * 2**20),
    ):
        other = run(setup, machine).state
        assert other.model.keys() == whole.model.keys()
        for name, value in whole.model.items():
            assert torch.equal(value, other.model[name]), name
        assert torch.equal(whole.marks["test"].value, other.marks["test"].value)
        assert torch.equal(
            whole.marks["validation"].value, other.marks["validation"].value
        )


@pytest.mark.parametrize("algorithm", ["maml", "meta_sgd"])
def test_it_learns_to_adapt(algorithm: str) -> None:
    """Better than the most frequent service, and than what was not trained."""
    world = by_clients(usage(0, Population(120, 60, 200)), 0)
    method = FedMeta(
        algorithm,  # type: ignore[arg-type]
        inner_rate=0.5,
        outer_rate=0.02,
        adapt_steps=10,
    )
    outcome = run(_setup(method, world, rounds=15), Machine(workers=1))
    task, state = outcome.task, outcome.state
    floor = task.scores(task.references()["most frequent"])["accuracy@1"].mean()
    trained = task.scores(state.marks["test"])["accuracy@1"].mean()
    start = run(
        _setup(replace(method, outer_rate=1e-12), world, rounds=1), Machine(workers=1)
    )

    assert trained > floor + 0.1
    assert trained > task.scores(start.state.marks["test"])["accuracy@1"].mean() + 0.05


# Bad input.


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"records": 1}, "records must be at least 2"),
        ({"inner_steps": 0}, "inner_steps must be at least 1"),
        ({"adapt_steps": -1}, "adapt_steps must be at least 0"),
        ({"inner_rate": 0.0}, "inner_rate must be positive"),
        ({"outer_rate": float("inf")}, "outer_rate must be positive"),
        ({"local_rate": float("nan")}, "local_rate must be positive"),
        ({"share": 1.5}, "share must be above 0 and at most 1"),
        ({"support": 1.0}, "support must be above 0"),
        ({"hidden": 6}, "hidden must be a multiple of 4"),
        ({"batch": 0}, "batch must be at least 1"),
    ],
)
def test_impossible_settings_are_refused(
    settings: dict[str, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        FedMeta(**settings)  # type: ignore[arg-type]


def test_data_without_contexts_is_refused() -> None:
    with pytest.raises(SettingsError, match="no contexts; take --data usage"):
        FedMeta().init(Shape(3, 5), SEEDS("init"))


def test_an_lstm_reads_letters_only() -> None:
    method = small("maml", "lstm")
    theta, _ = method.init(SERVICES.shape, SEEDS("init"))

    with pytest.raises(SettingsError, match=r"predict=letters.*take model=network"):
        method.train(theta, {}, shards(SERVICES)[0], FIRST)
