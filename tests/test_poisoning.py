"""Malicious clients: who they are, what they see, and how their effect is measured."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from privfed.adversary import Knowledge
from privfed.channels.masked.channel import Masked
from privfed.channels.plain import Plain
from privfed.channels.robust.rules import Krum
from privfed.data.cohort import cohort_of
from privfed.data.world import Pairs, World
from privfed.defenses.user_dp import UserDP
from privfed.errors import SettingsError
from privfed.evaluation.exposure import Exposure, exposed
from privfed.evaluation.marks import Marks
from privfed.evaluation.protocol import Protocol
from privfed.interfaces import State
from privfed.machine import Machine
from privfed.messages import Rows, Uploads
from privfed.methods.bpr import BPR
from privfed.methods.fedmf import FedMF
from privfed.metrics.score import means
from privfed.party import Malicious, Party
from privfed.poisoning import Plot, Poisoner, Sortie
from privfed.rounds import Keeping, Outcome, Setup, run
from privfed.sampling import Sampling
from privfed.seeds import Seeds
from tests.worlds import world

ONE = Machine(workers=1)
WORLD = world(
    [[0, 1, 2, 3], [0, 1, 4], [0, 2, 5, 6], [1, 3], [0, 7]],
    12,
    [[4], [2], [1], [0], [3]],
)
METHOD = BPR(width=4, learning_rate=0.5)
FEW = Protocol(negatives=3)


@dataclass(frozen=True)
class Quiet(Poisoner):
    """Owns a target on each device, and sends nothing."""

    aim = "promote"
    paper = "none"

    def data(self, plot: Plot) -> Pairs:
        count = len(plot.mine)
        sender = torch.arange(count)
        item = plot.targets[:1].expand(count)
        return Pairs(sender, item, torch.ones(count), torch.zeros(count, 0))

    def forge(self, memory: State, sortie: Sortie, plot: Plot) -> tuple[State, Uploads]:
        empty = {
            name: Rows(rows.sender[:0], rows.item[:0], rows.value[:0])
            for name, rows in sortie.uploads.rows.items()
        }
        return memory, replace(sortie.uploads, rows=empty)


@dataclass(frozen=True)
class Loud(Quiet):
    """Sends one row for its target, along the mean item row, as long as it is told."""

    length: float = 1.0

    def forge(self, memory: State, sortie: Sortie, plot: Plot) -> tuple[State, Uploads]:
        here = len(sortie.clients)
        value = torch.full((here, 4), self.length)
        rows = Rows(torch.arange(here), plot.targets[:1].expand(here), value)
        return memory, replace(sortie.uploads, rows={"items": rows})


@dataclass(frozen=True)
class Listener(Quiet):
    """Remembers which clients' uploads it heard."""

    knows = Knowledge(uploads=True)

    def start(self, plot: Plot) -> State:
        return {"heard": torch.zeros(plot.clients)}

    def forge(self, memory: State, sortie: Sortie, plot: Plot) -> tuple[State, Uploads]:
        assert sortie.honest is not None
        heard = memory["heard"].clone()
        heard[sortie.honest.clients] += 1
        return {"heard": heard}, sortie.uploads


def attacked(poisoner: Poisoner, share: float = 0.4, **more: Any) -> Outcome:
    party = Party(poisoner=poisoner, share=share, target="10")
    asked = Setup(WORLD, METHOD, Plain(), protocol=FEW, rounds=3, party=party)
    return run(replace(asked, **more), ONE)


def test_who_sends_nothing_changes_nothing() -> None:
    clean, quiet = attacked(Quiet(), 0.0).state, attacked(Quiet()).state

    assert torch.equal(clean.model["items"], quiet.model["items"])
    assert torch.equal(clean.private["users"], quiet.private["users"][:5])
    plain = run(Setup(WORLD, METHOD, Plain(), protocol=FEW, rounds=3), ONE).state
    assert torch.equal(plain.model["items"], clean.model["items"])
    assert torch.equal(plain.marks["test"].value, quiet.marks["test"].value)


def test_malicious_clients_join_the_population_and_are_not_measured() -> None:
    found = attacked(Loud())

    assert found.world.malicious == 2
    assert found.world.shape.clients == 7
    assert found.world.popularity.sum() == WORLD.popularity.sum()
    assert int(found.state.marks["exposure"].held.owner.max()) < 5
    assert found.state.took_part.all()


def test_a_server_that_cuts_rows_cuts_forged_ones_too() -> None:
    least, most = (attacked(Loud(length=x)).state.model["items"] for x in (1e3, 1e6))

    assert torch.allclose(least, most)
    clean = attacked(Loud(), 0.0).state.model["items"]
    moved = (least - clean).norm(dim=1)
    assert moved[10] == pytest.approx(3 * 2 * METHOD.longest_row(), rel=0.05)


def test_who_is_granted_uploads_hears_the_honest_ones_alone() -> None:
    heard = attacked(Listener()).state.plotted["heard"]

    assert heard.tolist() == [3, 3, 3, 3, 3, 0, 0]


def test_who_is_granted_nothing_is_handed_nothing() -> None:
    seen: list[tuple[Plot, Sortie]] = []

    @dataclass(frozen=True)
    class Looks(Quiet):
        def forge(
            self, memory: State, sortie: Sortie, plot: Plot
        ) -> tuple[State, Uploads]:
            seen.append((plot, sortie))
            return memory, sortie.uploads

    attacked(Looks())
    plot, sortie = seen[0]
    assert sortie.honest is None
    assert plot.public is None
    assert plot.popularity is None
    assert plot.item_means is None
    assert not plot.features
    assert sortie.own["users"].shape == (2, 4)
    assert sortie.clients.tolist() == [5, 6]


def test_a_public_share_is_a_part_of_every_history_rounded_up() -> None:
    @dataclass(frozen=True)
    class Knows(Quiet):
        def public_share(self) -> float:
            return 0.5

    plot = attacked(Knows()).plot
    assert plot is not None
    assert plot.public is not None
    assert plot.public.counts.tolist() == [2, 2, 2, 1, 1, 0, 0]
    own = set(zip(WORLD.train.owner.tolist(), WORLD.train.item.tolist(), strict=True))
    known = zip(plot.public.owner.tolist(), plot.public.item.tolist(), strict=True)
    assert set(known) <= own


def by_hand(scores: Tensor, of: World, targets: list[int], k: int) -> float:
    """ER@K as a loop over clients."""
    each = []
    for client in range(of.honest):
        alone = torch.tensor([client])
        met = {
            int(item)
            for part in (of.train, of.validation, of.test)
            for item in part.of(alone).item
        }
        fresh = [t for t in targets if t not in met]
        rest = [i for i in range(of.shape.items) if i not in met]
        hits = []
        for target in fresh:
            above = [i for i in rest if scores[client, i] >= scores[client, target]]
            hits.append(len(above) <= k)  # itself is one of them
        if hits:
            each.append(sum(hits) / len(hits))
    return sum(each) / len(each)


@pytest.mark.parametrize("targets", [[10], [3], [0, 3, 10]])
def test_exposure_is_what_a_loop_finds(targets: list[int]) -> None:
    joined = WORLD.joined_by(2)
    exposure = Exposure.of(joined, torch.tensor(targets))
    draws = torch.Generator().manual_seed(1)
    scores = torch.randint(0, 9, (7, 12), generator=draws).float()  # many ties
    marks = {name: Marks.none(pairs) for name, pairs in exposure.held().items()}
    for clients in (torch.arange(3), torch.arange(3, 7)):
        found = exposure.measure(scores[clients], cohort_of(joined, clients))
        for name, value in found.items():
            marks[name].put(clients, value)

    told = means([*exposed(marks).items()])
    for k in (5, 10):
        assert told[f"er@{k}"] == pytest.approx(by_hand(scores, joined, targets, k))


def test_a_standing_is_in_deviations_of_the_clients_scores() -> None:
    exposure = Exposure.of(WORLD, torch.tensor([10]))
    scores = torch.randn(5, 12, generator=torch.Generator().manual_seed(0))
    everyone = cohort_of(WORLD, torch.arange(5))

    found = exposure.measure(scores, everyone)["standing"]
    assert found.tolist() == pytest.approx(
        ((scores[:, 10] - scores.mean(1)) / scores.std(1)).tolist()
    )


def test_rating_methods_are_judged_by_what_they_predict() -> None:
    rated = replace(
        WORLD,
        task="rating",
        shape=replace(WORLD.shape, scale=(1.0, 5.0)),
        validation=WORLD.test,
    )

    @dataclass(frozen=True)
    class Stars(Quiet):
        tasks = ("rating",)

        def data(self, plot: Plot) -> Pairs:
            made = super().data(plot)
            return replace(made, label=made.label * 5)

        def forge(
            self, memory: State, sortie: Sortie, plot: Plot
        ) -> tuple[State, Uploads]:
            return memory, sortie.uploads

    party = Party(poisoner=Stars(), share=0.4, target="10")
    setup = Setup(rated, FedMF(width=4), Plain(), rounds=2, party=party)
    found = run(setup, ONE)

    state, private = found.state, found.state.private["users"]
    told = private[:5] @ state.model["items"][10]
    assert state.marks["standing"].value.tolist() == pytest.approx(told.tolist())


def test_a_rule_that_filters_says_whom_it_dropped() -> None:
    found = attacked(Loud(length=1e3), channel=Krum(malicious=0.2))

    traffic = found.state.traffic
    assert traffic.malicious_cast > 0
    assert 0 <= traffic.malicious_dropped <= traffic.dropped


def test_rows_for_the_target_are_counted_by_who_sent_them() -> None:
    traffic = attacked(Loud()).state.traffic
    assert traffic.malicious_rows == 3 * 2
    assert 0 <= traffic.honest_rows <= 3 * 5


@pytest.mark.parametrize(
    ("channel", "defenses"),
    [(Masked(min_cohort=3), ()), (Plain(), (UserDP(epsilon=8.0),))],
)
def test_forged_uploads_go_through_every_channel_and_defense(
    channel: object, defenses: tuple[object, ...]
) -> None:
    found = attacked(Loud(), channel=channel, defenses=defenses)
    assert "hijack.er@10" in found.state.log[-1]


def test_an_epoch_takes_everybody_once() -> None:
    joined = WORLD.joined_by(3)
    sampling = Sampling("epoch", clients_per_round=3)
    for epoch in (0, 1):
        rounds = [sampling.cohort(3 * epoch + r, joined, Seeds(0)) for r in range(3)]
        assert [len(one.clients) for one in rounds] == [3, 3, 2]
        assert sorted(torch.cat([one.clients for one in rounds]).tolist()) == [
            *range(8)
        ]


def test_shards_and_workers_change_nothing() -> None:
    found = [
        run(
            Setup(
                WORLD,
                METHOD,
                Plain(),
                protocol=FEW,
                rounds=3,
                sampling=Sampling("epoch", clients_per_round=4),
                party=Party(poisoner=Loud(), share=0.4, target="tail"),
            ),
            machine,
        ).state
        for machine in (ONE, Machine(workers=2, shard=1))
    ]
    for name, value in found[0].model.items():
        assert torch.equal(value, found[1].model[name])


def test_a_killed_run_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    party = Party(poisoner=Listener(), share=0.4, target="10")
    asked = Setup(WORLD, METHOD, Plain(), protocol=FEW, rounds=4, party=party)
    keeping = Keeping(tmp_path / "run.safetensors", every=1)

    run(replace(asked, rounds=2), ONE, keeping)
    again = run(asked, ONE, replace(keeping, resume=True)).state
    whole = run(asked, ONE).state
    assert torch.equal(again.plotted["heard"], whole.plotted["heard"])
    assert torch.equal(again.model["items"], whole.model["items"])
    assert again.traffic == whole.traffic


CLASSES: Mapping[str, set[int]] = {
    "head": {0},
    "torso": {1, 2, 3, 4, 5},
    "tail": {6, 7, 8, 9, 10, 11},
    "least": {8},
}


@pytest.mark.parametrize("target", CLASSES)
def test_targets_are_drawn_from_their_class(target: str) -> None:
    for seed in range(5):
        drawn = Malicious(target=target).items(WORLD, Seeds(seed)("targets"))
        assert set(drawn.tolist()) <= CLASSES[target]


def test_targets_by_number_and_several_of_a_class() -> None:
    stream = Seeds(0)("targets")
    assert Malicious(target="7+3").items(WORLD, stream).tolist() == [3, 7]
    assert len(Malicious(target="tail", targets=3).items(WORLD, stream)) == 3


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        (Malicious(target="99"), "99 is no item"),
        (Malicious(target="head", targets=5), "5 targets are more than the 1"),
    ],
)
def test_items_that_are_not_there_are_refused(settings: Malicious, word: str) -> None:
    with pytest.raises(SettingsError, match=word):
        settings.items(WORLD, Seeds(0)("targets"))


def test_a_share_that_is_nobody_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"nobody; give --malicious 0\.2"):
        Malicious(share=0.01).count(WORLD)


@pytest.mark.parametrize("bad", [{"share": -1.0}, {"targets": 0}, {"target": "x"}])
def test_impossible_settings_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        Malicious(**bad)  # type: ignore[arg-type]


def test_sampling_by_interactions_would_never_take_them() -> None:
    with pytest.raises(SettingsError, match="would not take part"):
        attacked(Quiet(), sampling=Sampling("interactions"))


def test_an_attack_on_another_task_is_refused() -> None:
    @dataclass(frozen=True)
    class Rates(Quiet):
        tasks = ("rating",)

    with pytest.raises(SettingsError, match="this run's is ranking"):
        attacked(Rates())


def test_a_forged_upload_of_another_form_is_refused() -> None:
    @dataclass(frozen=True)
    class Wrong(Quiet):
        def forge(
            self, memory: State, sortie: Sortie, plot: Plot
        ) -> tuple[State, Uploads]:
            return memory, replace(sortie.uploads, rows={})

    with pytest.raises(ValueError, match="form of the others"):
        attacked(Wrong())


def test_made_up_data_must_fit_on_devices() -> None:
    @dataclass(frozen=True)
    class Twice(Quiet):
        def data(self, plot: Plot) -> Pairs:
            made = super().data(plot)
            return replace(made, sender=made.sender * 0)

    with pytest.raises(ValueError, match="each item once"):
        attacked(Twice())
