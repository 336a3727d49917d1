"""What each method promises beside its arithmetic: sizes, doors, negatives."""

from dataclasses import replace
from math import sqrt
from typing import Any

import pytest
import torch
from torch import Tensor

from privfed.data.world import Shape
from privfed.errors import SettingsError
from privfed.interfaces import START, Method, Round
from privfed.messages import Rows
from privfed.methods.fcf import FCF
from privfed.methods.fedavg import FedAvg
from privfed.methods.fedmr import BACKBONES, FedMR
from privfed.methods.fedncf import FedNCF
from privfed.methods.fedrap import FedRAP
from privfed.methods.local_sgd import LocalSGD
from privfed.methods.pfedrec import PFedRec
from privfed.seeds import Seeds
from tests.worlds import everyone, shards, uneven, world

KU = Shape(204, 560, {"image": 512, "text": 512})
SEEDS = Seeds(2)
FIRST = Round(0, SEEDS("train"), SEEDS("once"))
ALL: list[LocalSGD] = [
    *(one(width=8, epochs=1) for one in (FedAvg, FCF, FedNCF, PFedRec, FedRAP)),
    *(FedMR(width=8, id_width=8, epochs=1, backbone=b) for b in ("fcf", "fedncf")),
]


def counted(method: Method, shape: Shape) -> int:
    """Trainable numbers as FedMR's Table 5 counts them.

    One device's, but every user's rows where users have embeddings.
    """
    model, private = method.init(shape, SEEDS("init"))
    shared = sum(v.numel() for n, v in model.items() if not n.endswith(START))
    users = sum(v.numel() for n, v in private.items() if n.startswith("user"))
    own = sum(v[0].numel() for n, v in private.items() if not n.startswith("user"))
    return shared + users + own


@pytest.mark.parametrize(
    ("method", "numbers"),
    [
        (FedAvg(width=64), 35_905),
        (FCF(width=64), 35_905),
        (PFedRec(width=64), 35_905),
        (FedMR(backbone="fedavg"), 455_620),
        (FedMR(backbone="fcf"), 455_620),
        (FedMR(backbone="pfedrec"), 455_620),
        (FedNCF(width=64), 108_737),
        (FedMR(backbone="fedncf"), 564_292),
        (FedRAP(width=64), 71_745),
        (FedMR(backbone="fedrap"), 742_340),
    ],
    ids=lambda value: str(value) if isinstance(value, int) else None,
)
def test_parameters_are_as_many_as_published(method: Method, numbers: int) -> None:
    assert counted(method, KU) == numbers


def test_weights_start_xavier_normal_and_biases_at_zero() -> None:
    model, private = FedNCF(width=64).init(Shape(3, 500), SEEDS("init"))

    for name, fans in {"items_mf": 564, "mlp0.weight": 192, "mlp1.weight": 96}.items():
        ratio = model[name].std().item() / sqrt(2 / fans)
        assert 0.95 < ratio < 1.05, name
    assert all(not v.any() for n, v in model.items() if n.endswith("bias"))
    assert all(torch.equal(v[0], v[2]) for v in private.values())


@pytest.mark.parametrize("method", ALL, ids=lambda m: type(m).__name__)
def test_init_is_a_function_of_its_stream(method: Method) -> None:
    shape = uneven().shape
    first, again, other = (method.init(shape, SEEDS(p))[0] for p in ("a", "a", "b"))

    assert all(torch.equal(first[n], again[n]) for n in first)
    assert any(not torch.equal(first[n], other[n]) for n in first)


@pytest.mark.parametrize("method", ALL, ids=lambda m: type(m).__name__)
def test_an_upload_names_no_private_tensor_and_only_touched_rows(
    method: LocalSGD,
) -> None:
    of = uneven()
    model, private = method.init(of.shape, SEEDS("init"))

    for cohort in shards(of, 100):
        trained = method.train(model, private, cohort, FIRST)
        up = trained.uploads
        assert not {*up.rows, *up.dense} & {*private, *trained.private_rows}
        assert {*up.rows, *up.dense} == {n for n in model if not n.endswith(START)}
        assert set(up.scale) == {*up.rows, *up.dense}
        for rows in up.rows.values():
            pairs = rows.sender * of.shape.items + rows.item
            assert torch.equal(pairs, torch.unique(pairs))  # once each, in order
            sent = torch.bincount(rows.sender, minlength=len(cohort.clients))
            assert (sent <= cohort.counts * 5).all()
            assert (sent >= cohort.counts).all()


def test_only_fedavg_sends_weights() -> None:
    of = uneven()
    for method in ALL:
        model, private = method.init(of.shape, SEEDS("init"))
        for cohort in shards(of, 100):
            up = method.train(model, private, cohort, FIRST).uploads
            if isinstance(method, FedAvg):
                assert up.weight is not None
                assert up.weight.tolist() == cohort.counts.tolist()
            else:
                assert up.weight is None


def test_the_local_view_scores_with_the_rows_a_client_trained() -> None:
    of = uneven()
    method = PFedRec(width=8, view="local", learning_rate=0.01)
    model, private = method.init(of.shape, SEEDS("init"))
    cohort = shards(of, 100)[0]
    rows = method.train(model, private, cohort, FIRST).uploads.rows

    plain = method.score(model, private, cohort)
    local = method.score_locally(model, private, cohort, rows)

    table = model["items"].expand(len(cohort.clients), -1, -1).clone()
    table[rows["items"].sender, rows["items"].item] += rows["items"].value
    head = private["head.weight"][cohort.clients][:, 0]
    torch.testing.assert_close(local, (table * head[:, None]).sum(2))
    assert not torch.equal(local, plain)


def test_fedmrs_router_ignores_what_a_client_did_not_interact_with() -> None:
    """Scores move with the features of the client's own items through the mixture."""
    of = uneven((3, 5))
    method = FedMR(width=8, id_width=8)
    model, private = method.init(of.shape, SEEDS("init"))
    mine = of.train.item[:3]
    other = torch.tensor(sorted({*range(60)} - set(of.train.item.tolist())))
    target = int(other[0])

    def score(changed: Tensor) -> Tensor:
        image = of.features["image"].clone()
        image[changed] += 5.0
        features = {**of.features, "image": image}
        return method.score(model, private, everyone(replace(of, features=features)))

    before = score(torch.tensor([], dtype=torch.int64))
    assert torch.equal(score(other[1:])[:, target], before[:, target])
    assert not torch.equal(score(mine)[0, target], before[0, target])
    assert torch.equal(score(mine)[1, target], before[1, target])


@pytest.mark.parametrize("method", ALL, ids=lambda m: type(m).__name__)
def test_private_training_draws_from_the_whole_catalog(method: LocalSGD) -> None:
    leaky = replace(method, negatives_pool="items_in_train")
    drawn = leaky.private_training().sampling()

    assert drawn.exclude == "nothing"
    assert drawn.pool == "all_items"


@pytest.mark.parametrize("kind", [FedAvg, FedMR], ids=["fedavg", "fedmr"])
@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("width", 0),
        ("epochs", 0),
        ("batch", 0),
        ("negatives", 0),
        ("learning_rate", 0.0),
        ("learning_rate", float("inf")),
        ("learning_rate", float("nan")),
        ("item_rate", -1.0),
    ],
)
def test_an_unusable_setting_is_named(
    kind: type[LocalSGD], setting: str, value: float
) -> None:
    given: dict[str, Any] = {setting: value}
    with pytest.raises(ValueError, match=setting):
        kind(**given)


def test_fedmr_refuses_an_id_table_without_width() -> None:
    with pytest.raises(ValueError, match="id_width"):
        FedMR(id_width=0)


def test_fedmr_needs_features() -> None:
    with pytest.raises(SettingsError, match="features"):
        FedMR().init(Shape(2, 5), SEEDS("init"))


def test_fedmr_names_a_modality_that_is_not_there() -> None:
    of = uneven((2,))
    method = FedMR(width=4, id_width=4, modalities="image+sound")
    model, private = method.init(of.shape, SEEDS("init"))

    with pytest.raises(SettingsError, match="'sound' among id, image, text"):
        method.score(model, private, everyone(of))


def test_a_client_that_took_everything_is_refused_by_name() -> None:
    of = world([[0, 1], [0, 1, 2]], items=3)
    method = FedAvg(width=4)
    model, private = method.init(of.shape, SEEDS("init"))

    with pytest.raises(SettingsError, match="client 1 has only 0 items"):
        method.train(model, private, everyone(of), FIRST)


def test_every_backbone_is_in_fedmrs_table() -> None:
    assert {type(m) for m in ALL} - {FedMR} == set(BACKBONES.values())


def test_a_private_table_is_kept_as_its_change_from_the_public_start() -> None:
    of = uneven((4, 6))
    method = FedRAP(width=8, learning_rate=0.05)
    model, private = method.init(of.shape, SEEDS("init"))
    cohort = everyone(of)

    trained = method.train(model, private, cohort, FIRST)
    kept: Rows = trained.private_rows["own_items"]
    shared: Rows = trained.uploads.rows["items"]

    # In round 0 the regularizers are off, so both tables take the same steps.
    assert torch.equal(kept.item, shared.item)
    torch.testing.assert_close(kept.value, shared.value, rtol=1e-4, atol=1e-6)
