"""FedMR: mixing feature fusion of item id and modalities on top of a backbone.

"Federated multimodal recommendation" as the paper describes it: three (or more)
modalities, gates that multiply features, one softmax, a router that is private and
averages over the items the client interacted with. The released code differs in
each of these points.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

import torch
from torch import Tensor

from privfed.checks import at_least, positive
from privfed.data.cohort import Cohort
from privfed.data.world import Shape
from privfed.devices.batches import Batch
from privfed.devices.gradients import Grads, Local, RowGrad, step
from privfed.devices.tape import Tape
from privfed.errors import SettingsError
from privfed.interfaces import START, Round, State
from privfed.methods.backbone import (
    HEAD,
    Backbone,
    LinearBackbone,
    cross_entropy,
    item_vectors,
)
from privfed.methods.fcf import FCF
from privfed.methods.fedavg import FedAvg
from privfed.methods.fedncf import FedNCF
from privfed.methods.fedrap import FedRAP
from privfed.methods.fusion import Fusion, Kind
from privfed.methods.local_sgd import LocalSGD, Rates
from privfed.methods.parts import Part
from privfed.methods.pfedrec import PFedRec
from privfed.methods.router import learned, mix, trained
from privfed.surfaces import Known, Reads, ReadsItems, Regularized

BACKBONES: Mapping[str, type[Backbone]] = {
    "fedavg": FedAvg,
    "fcf": FCF,
    "fedncf": FedNCF,
    "pfedrec": PFedRec,
    "fedrap": FedRAP,
}


@dataclass(frozen=True)
class FedMR(LocalSGD, Regularized, ReadsItems):
    """FedMR over one of five backbones.

    The defaults learn in few rounds where items are described; ``fedmr_paper``
    names the settings of the paper. ``modalities`` names the inputs, joined by "+"; the
    others are zeroed before their projection, as in the paper's ablation.
    ``router="item"`` lets each item choose its own mixture, which DP-SGD needs: a
    mixture averaged over a client's items ties its interactions together.
    """

    learning_rate: float = 1.0
    epochs: int = 1
    backbone: Literal["fedavg", "fcf", "fedncf", "pfedrec", "fedrap"] = "fcf"
    fusion: Kind = "mix"
    modalities: str = "all"
    id_width: int = 512
    item_rate: float = 1.0
    item_std: float | None = None
    own_rate: float = 1.0  # of FedRAP's private table, relative to the shared one
    router: Literal["interacted", "item"] = "interacted"
    dropout: bool = True

    keeps = "what the backbone keeps; the router of the expert mixture"
    sends = "what the backbone sends (item rows 512 wide); accumulated fusion gradients"
    paper = "FedMR (mixing feature fusion for federated multimodal recommendation)"

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, "id_width")
        positive(self, "item_rate")

    @property
    def core(self) -> Backbone:
        """The backbone with this method's local settings."""
        core = BACKBONES[self.backbone](
            width=self.width,
            learning_rate=self.learning_rate,
            item_rate=self.item_rate,
            item_std=self.item_std,
        )
        return (
            replace(core, own_rate=self.own_rate) if isinstance(core, FedRAP) else core
        )

    @property
    def weighted(self) -> bool:
        return self.core.weighted

    def _fusion(self, shape: Shape) -> Fusion:
        if not shape.widths:
            raise SettingsError(
                "fedmr needs item features; give --features, or run the backbone alone"
            )
        return Fusion(self.fusion, self.width, {"id": self.id_width, **shape.widths})

    def _used(self, modalities: Iterable[str]) -> set[str]:
        known = {"id", *modalities}
        if self.modalities == "all":
            return known
        chosen = set(self.modalities.split("+"))
        if not chosen <= known:
            raise SettingsError(
                f"fedmr.modalities: no {sorted(chosen - known)[0]!r} among "
                f"{', '.join(sorted(known))}"
            )
        return chosen

    def parts(self, shape: Shape) -> Sequence[Part]:
        core, fusion = self.core, self._fusion(shape)
        return [
            *core.tables(self.id_width),
            *fusion.parts(),
            *core.head_parts(self.width),
        ]

    def phases(self, shape: Shape, round: int) -> Sequence[Rates]:
        fusion = [part.name for part in self._fusion(shape).parts()]
        phases = []
        for phase in self.core.phases(shape, round):
            rates = dict(phase)
            rate = rates.pop("fusion", None)
            if rate is not None:
                rates |= dict.fromkeys(fusion, rate)
            phases.append(rates)
        return phases

    def fixed(self, cohort: Cohort) -> Mapping[str, Tensor]:
        used = self._used(cohort.features)
        return {
            f"project.{name}": table if name in used else torch.zeros_like(table)
            for name, table in cohort.features.items()
        }

    def backward(
        self, local: Local, batch: Batch, cohort: Cohort, round: Round
    ) -> tuple[Tensor, Grads]:
        tape = Tape(local, batch)
        return self._headed(tape, self._fused(tape, cohort, round), round)

    def turns(
        self,
        local: Local,
        batch: Batch,
        cohort: Cohort,
        round: Round,
        phases: Sequence[Rates],
    ) -> Tensor:
        """As for any method; one pass through the fusion serves the head's turn too.

        The head's step does not move the vectors that it reads.
        """
        if len(phases) != 2 or set(phases[0]) != {HEAD}:
            return super().turns(local, batch, cohort, round, phases)
        tape = Tape(local, batch)
        x = self._fused(tape, cohort, round)
        alone = Tape(local, batch)
        _, grads = self._headed(alone, x.detach(), round)
        step(local, batch, grads, phases[0])
        loss, grads = self._headed(tape, x, round)
        step(local, batch, grads, phases[1])
        return loss

    def _headed(self, tape: Tape, x: Tensor, round: Round) -> tuple[Tensor, Grads]:
        """Loss and gradients of the head and of all that the tape has recorded."""
        core, batch = self.core, tape.batch
        loss = cross_entropy(core.head(tape, x), batch)
        grads = tape.gradients(loss)
        value, extra = core.penalty(tape.local, batch, round.number)
        return (loss + value).detach(), _with_penalty(grads, extra)

    def _fused(self, tape: Tape, cohort: Cohort, round: Round) -> Tensor:
        """Each sample's item vector, (clients, samples, width)."""
        fusion, used = self._fusion(cohort.shape), self._used(cohort.features)
        tables = [part.name for part in self.core.tables(1)]
        projected = {"id": self._project_id(tape, tables, used)}
        for name, table in cohort.features.items():
            projected[name] = _project(tape, name, table, name in used)
        outputs = fusion.outputs(tape.linear, projected)
        if fusion.kind != "mix":
            return outputs[0]
        draws = round.stream.of("dropout", tape.batch.epoch) if self.dropout else None
        by_item = self.router == "item"
        return mix(outputs, trained(tape, outputs, cohort.clients, draws, by_item))

    def _project_id(self, tape: Tape, tables: list[str], used: set[str]) -> Tensor:
        rows = [tape.batch.rows(tape.local.rows[name]) for name in tables]
        if "id" not in used:
            zeros = torch.zeros_like(rows[0])
            out = tape.linear("project.id", zeros)
            for name in tables:
                tape.rows(name)
            return out
        total = rows[0] if len(rows) == 1 else rows[0] + rows[1]
        return tape.linear("project.id", total, reads=tuple(tables))

    def private_training(self) -> Self:
        return replace(super().private_training(), router="item")

    def known_parts(self) -> Mapping[str, Sequence[Known]]:
        core = self.core
        return core.known_parts() if isinstance(core, Regularized) else {}

    def item_layers(self, shape: Shape) -> Sequence[Reads]:
        used = self._used(shape.widths)
        ids = [
            part.name + START * part.private for part in self.core.tables(self.id_width)
        ]
        layers = [Reads("project.id", tuple(ids))] if "id" in used else []
        seen = [name for name in shape.widths if name in used]
        return layers + [Reads(f"project.{name}", feature=name) for name in seen]

    def score(self, model: State, private: State, cohort: Cohort) -> Tensor:
        core, fusion = self.core, self._fusion(cohort.shape)
        used = self._used(cohort.features)
        ids = item_vectors(model, private, cohort, [p.name for p in core.tables(1)])
        inputs = {"id": ids, **{n: f[None] for n, f in cohort.features.items()}}

        def linear(name: str, x: Tensor) -> Tensor:
            return x @ model[f"{name}.weight"].T + model[f"{name}.bias"]

        projected = {
            name: linear(f"project.{name}", x if name in used else torch.zeros_like(x))
            for name, x in inputs.items()
        }
        projected = {n: x.expand(len(ids), -1, -1) for n, x in projected.items()}
        outputs = fusion.outputs(linear, projected)
        if fusion.kind != "mix":
            return core.head_scores(model, private, cohort, outputs[0])
        share = learned(private, cohort, outputs, self.router == "item")
        if isinstance(core, LinearBackbone):  # a linear head commutes with the mixture
            by_expert = [
                share[..., k] * core.head_scores(model, private, cohort, out)
                for k, out in enumerate(outputs)
            ]
            return torch.stack(by_expert).sum(0)
        return core.head_scores(model, private, cohort, mix(outputs, share))


def _project(tape: Tape, name: str, table: Tensor, used: bool) -> Tensor:
    """A modality's projection; zeros go in where it is ablated."""
    layer = f"project.{name}"
    if layer in tape.local.frozen:
        return tape.frozen(layer)
    raw = table[tape.batch.item]
    return tape.linear(layer, raw if used else torch.zeros_like(raw))


def _with_penalty(grads: Grads, extra: Mapping[str, Tensor]) -> Grads:
    """Add a regularizer's dense gradient to the rows it concerns."""
    if not extra:
        return grads
    rows = dict(grads.rows)
    for name, value in extra.items():
        row = rows[name]
        dense = row.coef if row.basis is None else torch.bmm(row.coef, row.basis)
        rows[name] = RowGrad(dense + value)
    return Grads(rows, grads.layers, grads.vectors)
