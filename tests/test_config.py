"""Settings: what is written is what runs, and a slip names the key."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privfed.attacks.items.sign_pc import SignPC
from privfed.attacks.items.support import Support
from privfed.built_in import BUILT_IN
from privfed.channels.plain import Plain
from privfed.choices import choose
from privfed.config import RunSettings, read_study, run_settings
from privfed.defenses.dp import DP
from privfed.defenses.gaussian import Gaussian
from privfed.errors import SettingsError
from privfed.methods.fedmr import FedMR


def test_nothing_given_is_a_complete_run() -> None:
    run = run_settings()

    assert run.method.part == FedMR()
    assert run.defense == ()
    assert run.channel.part == Plain()
    assert [one.part for one in run.attack] == [Support(), SignPC()]


def test_a_spec_is_the_part_with_its_settings() -> None:
    chosen = choose("defense", "dp:epsilon=4,delta=1e-6")

    assert chosen.name == "dp"
    assert chosen.part == DP(epsilon=4.0, delta=1e-6)


def test_a_table_is_the_part_with_its_settings() -> None:
    chosen = choose("method", {"name": "fedmr", "backbone": "fedavg", "dropout": False})

    assert chosen.part == FedMR(backbone="fedavg", dropout=False)


def test_a_preset_comes_first_and_what_is_given_wins() -> None:
    released = choose("method", "fedmr_release").part
    changed = choose("method", "fedmr_release:negatives=4").part

    assert (released.epochs, released.negatives) == (5, 1)
    assert (changed.epochs, changed.negatives) == (5, 4)


@pytest.mark.parametrize("value", ["true", "yes", "1"])
def test_yes_can_be_said_in_words(value: str) -> None:
    assert choose("method", f"fedmr:dropout={value}").part.dropout is True


def test_none_is_a_value_where_a_setting_may_be_missing() -> None:
    assert choose("defense", "dp:epsilon=none").part == DP()


@settings(deadline=None)  # the first example imports a method
@given(
    variance=st.floats(0, 1e6, allow_nan=False),
    rows=st.sampled_from(["all", "touched"]),
)
def test_a_spec_reads_back_as_the_same_part(variance: float, rows: str) -> None:
    table = {"name": "gaussian", "variance": variance, "rows": rows}
    chosen = choose("defense", table)

    assert choose("defense", chosen.spec) == chosen


def test_a_spec_tells_only_what_differs() -> None:
    assert choose("defense", "dp:epsilon=4,clip=0.5").spec == "dp:epsilon=4"
    assert choose("defense", "dp").spec == "dp"


def test_a_spec_says_what_its_name_does_not() -> None:
    assert choose("method", "metamf").spec == "metamf"
    whole = choose("method", "metamf:batch=none,width=4")
    assert whole.spec == "metamf:width=4,batch=none"
    assert choose("method", whole.spec) == whole
    assert choose("method", whole.row()) == whole


@settings(deadline=None)
@given(
    method=st.sampled_from(sorted(BUILT_IN["method"])),
    epsilon=st.floats(1e-3, 100),
    seed=st.integers(0, 2**31),
    at=st.lists(st.integers(1, 100), min_size=1, max_size=4),
    data=st.text("abc -.\"'\\\n\té", min_size=1).filter(str.strip),
    attack=st.lists(st.sampled_from(["support", "sign_pc"]), unique=True),
)
def test_every_setting_survives_toml(
    method: str, epsilon: float, seed: int, at: list[int], data: str, attack: list[str]
) -> None:
    run = run_settings(
        {
            "method": method,
            "defense": [{"name": "dp", "epsilon": epsilon}, "gaussian"],
            "attack": attack,
            "seed": seed,
            "protocol": {"at": at, "ranking": "full"},
            "data": {"data": data, "features": ["title=tfidf", "given"]},
            "machine": {"memory": "3GiB"},
            "out": "here/there",
        }
    )

    assert run_settings(tomllib.loads(run.to_toml())) == run


def test_a_later_layer_wins_key_by_key_within_a_section() -> None:
    file = {"sampling": {"kind": "uniform", "clients_per_round": 7}, "seed": 3}
    run = run_settings(file, {"sampling": {"clients_per_round": "9"}})

    assert run.sampling.kind == "uniform"
    assert run.sampling.clients_per_round == 9
    assert run.seed == 3


def test_a_later_layer_replaces_parts_whole() -> None:
    file = {"method": "fedmr:width=32", "defense": ["dp", "gaussian"]}
    run = run_settings(file, {"method": "fedmr", "defense": ("gaussian:variance=2",)})

    assert run.method.part == FedMR()
    assert [one.part for one in run.defense] == [Gaussian(variance=2.0)]


def test_a_channel_may_stand_among_the_defenses() -> None:
    run = run_settings({"defense": ["plain", "dp"]})

    assert [one.name for one in run.defense] == ["dp"]
    assert run.channel.name == "plain"


def test_all_is_every_attack_with_the_settings_that_some_are_given() -> None:
    asked = run_settings({"attack": ["all", "sign-pc:power=7"]})
    parts = {one.name: one.part for one in asked.attack}

    assert list(parts) == list(BUILT_IN["attack"])
    assert parts["sign_pc"] == SignPC(power=7)
    assert parts["support"] == Support()


@pytest.mark.parametrize("kind", ["attack", "defense"])
def test_none_stands_for_no_part_at_all(kind: str) -> None:
    run = run_settings(
        {kind: ["support" if kind == "attack" else "dp"]}, {kind: "none"}
    )

    assert getattr(run, kind) == ()


def test_a_section_may_be_one_word() -> None:
    run = run_settings({"data": "ml-100k", "sampling": "queue", "machine": "cuda:1"})

    assert run.data.data == "ml-100k"
    assert run.sampling.kind == "queue"
    assert run.machine.device == "cuda:1"


def test_memory_may_have_a_unit() -> None:
    assert run_settings({"machine": {"memory": "4GiB"}}).machine.memory == 2**32
    assert run_settings({"machine": {"memory": 1000}}).machine.memory == 1000


MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"metod": "fcf"}, "run: no setting 'metod'; did you mean 'method'?"),
    ({"method": "fedmrr"}, "method: no 'fedmrr'; did you mean 'fedmr'?"),
    ({"method": ["fcf"]}, "method: write a name"),
    ({"method": {"width": 3}}, "method: write a name"),
    ({"method": ""}, "method: no ''; there is"),
    (
        {"defense": "pd:clip=1"},
        "defense: no 'pd'; there is bulyan, denoiser, dp, fedgnn, gaussian",
    ),
    (
        {"defense": "dp:epsilom=1"},
        "defense dp: no setting 'epsilom'; did you mean 'epsilon'?",
    ),
    ({"defense": "dp:plan=1"}, "defense dp: no setting 'plan'"),
    ({"defense": "dp:epsilon"}, "defense dp: write key=value, not 'epsilon'"),
    ({"defense": "dp:=1"}, "defense dp: write key=value, not '=1'"),
    ({"defense": "dp:clip=1,clip=2"}, "defense dp: clip is given twice"),
    ({"defense": "dp:epsilon=x"}, "defense dp: epsilon should be a valid number"),
    ({"defense": "dp:epsilon=nan"}, "defense dp: epsilon should be a finite number"),
    ({"defense": "dp:clip=-1"}, "defense dp: clip must be positive, got -1.0"),
    (
        {"defense": [{"name": "dp", "epsilon": True}]},
        "defense dp: epsilon should be a valid number, got True",
    ),
    ({"defense": ["dp", "dp"]}, "defense dp: given twice"),
    ({"defense": ["none", "dp"]}, "defense: none stands alone"),
    ({"defense": ["plain", "plain"]}, "defense: plain and plain cannot go together"),
    ({"attack": ["sign-pc", "sign_pc"]}, "attack sign_pc: given twice"),
    ({"attack": ["all", "sgn_pc"]}, "attack: no 'sgn_pc'"),
    ({"attack": 3}, "attack: write a name, or a table with one, not 3"),
    ({"sampling": {"kid": "all"}}, "sampling: no setting 'kid'; did you mean 'kind'?"),
    (
        {"sampling": {"kind": "some"}},
        "sampling: kind should be 'all', 'uniform'",
    ),
    ({"sampling": 3}, "sampling: write a table of settings, not 3"),
    (
        {"sampling": {"clients_per_round": 0}},
        "sampling: clients_per_round must be at least 1, got 0",
    ),
    ({"protocol": {"at": "10,x"}}, "protocol: at should be a valid integer"),
    ({"machine": {"memory": "lots"}}, "memory: 'lots' is no size"),
    ({"rounds": 0}, "run: rounds must be at least 1, got 0"),
    ({"rounds": 2.5}, "run: rounds should be a valid integer, got 2.5"),
    ({"rounds": True}, "run: rounds should be a valid integer, got True"),
    ({"seed": -1}, "run: seed must be at least 0, got -1"),
    ({"patience": -1}, "run: patience must be at least 0, got -1"),
]


@pytest.mark.parametrize(("given", "message"), MISTAKES)
def test_a_slip_names_the_key(given: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        run_settings(given)

    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_settings_are_told_as_json_types() -> None:
    run = run_settings({"defense": "dp"})

    assert json.loads(json.dumps(run.plain())) == run.plain()
    assert run.plain()["defense"][0]["name"] == "dp"
    assert "plan" not in run.plain()["defense"][0]


def test_a_study_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text('method = "fcf"\n[[defense]]\nname = "dp"\nepsilon = 4\n')
    run: RunSettings = run_settings(read_study(path))

    assert run.method.name == "fcf"
    assert run.defense[0].part == DP(epsilon=4.0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"method = \nrounds = 3", "study.toml: is no TOML: .*line 1"),
        (b"a = 1\na = 2\n", "study.toml: is no TOML: .*line 2"),
        (b'data = "\xff"', "study.toml: is not UTF-8"),
    ],
)
def test_an_unreadable_study_file_is_told_with_its_line(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "study.toml"
    path.write_bytes(content)

    with pytest.raises(SettingsError, match=message):
        read_study(path)


def test_a_missing_study_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"nowhere.toml: cannot be read"):
        read_study(tmp_path / "nowhere.toml")


def test_one_of_the_attacks_may_be_a_poisoner() -> None:
    run = run_settings({"attack": ["sign_pc", "random-attack:positives=12"]})

    assert [one.name for one in run.attack] == ["sign_pc"]
    assert run.poisoner is not None
    assert run.poisoner.spec == "random_attack:positives=12"
    assert run.party is not None
    assert run.party.poisoner == run.poisoner.part
    again = run_settings(tomllib.loads(run.to_toml()))
    assert again == run


def test_all_attacks_are_those_that_watch() -> None:
    run = run_settings({"attack": ["all", "random_attack"]})

    assert [one.name for one in run.attack] == [*BUILT_IN["attack"]]
    assert run.poisoner is not None
    assert run_settings({"attack": "all"}).poisoner is None


def test_two_poisoners_cannot_share_the_malicious_clients() -> None:
    with pytest.raises(SettingsError, match="random_attack and bandwagon cannot go"):
        run_settings({"attack": ["random_attack", "bandwagon"]})


def test_a_poisoner_is_asked_for_among_the_attacks() -> None:
    with pytest.raises(SettingsError, match="no setting 'poisoner'"):
        run_settings({"poisoner": "random_attack"})


def test_a_slip_among_the_malicious_names_the_key() -> None:
    with pytest.raises(SettingsError, match="target must be tail"):
        run_settings({"malicious": {"target": "best"}})
