"""What anybody can tell of an upload from the algorithm and the model received."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf

from torch import Tensor

from privfed.attacks.reading.cleaned import Part, upstream, without
from privfed.data.world import Shape
from privfed.interfaces import Method, State
from privfed.messages import Rows
from privfed.surfaces import AlongUser, Known, Reads, ReadsItems, Regularized

_MODEL = "model."


@dataclass(frozen=True)
class Facts:
    """The public facts of a method that attacks on item rows use.

    The tensors of a model that they name are kept in an attack's memory.
    """

    known: Mapping[str, Sequence[Known]] = field(default_factory=dict)  # by table
    longest: float = inf  # a row is cut to this length
    layers: Sequence[Reads] = ()
    along: Sequence[str] = ()  # tables whose rows move along what scores them

    @classmethod
    def of(cls, method: Method, shape: Shape) -> "Facts":
        layers = method.item_layers(shape) if isinstance(method, ReadsItems) else ()
        along = ("items",) if isinstance(method, AlongUser) else ()
        if isinstance(method, Regularized):
            return cls(method.known_parts(), method.longest_row(), layers, along)
        return cls(layers=layers, along=along)

    def received(self, memory: State, model: Mapping[str, Tensor]) -> State:
        """The memory with what the facts name of a received model."""
        names = {*self.along}
        names |= {known.of for parts in self.known.values() for known in parts}
        for read in self.layers:
            names |= {*read.tables, f"{read.layer}.weight"}
        told = {f"{_MODEL}{name}": model[name] for name in names if name in model}
        return {**memory, **told}

    def plain(
        self, name: str, rows: Rows, clients: int, memory: State, power: int
    ) -> Rows:
        """A table's rows less what is known, in as few numbers as they have."""
        parts, weight = self._parts(memory, name), self._reader(memory, name)
        if weight is not None and weight.shape[0] < weight.shape[1]:
            back = upstream(weight)
            rows = replace(rows, value=rows.value @ back)
            parts = [replace(part, row=part.row @ back) for part in parts]
        if parts:
            rows = without(rows, parts, self.longest, clients, power)
        return rows

    def scored_along(self, memory: State, table: str) -> Tensor | None:
        """The received table where a client's axis scores its rows, (items, width)."""
        return of_model(memory, table) if table in self.along else None

    def _parts(self, memory: State, table: str) -> list[Part]:
        found = []
        for known in self.known.get(table, ()):
            row = of_model(memory, known.of)
            if row is not None:
                found.append(Part(row.sign() if known.signs else row, known.factor))
        return found

    def _reader(self, memory: State, table: str) -> Tensor | None:
        """The weight through which alone a table's rows are read, (out, width)."""
        row = of_model(memory, table)
        for read in self.layers:
            weight = of_model(memory, f"{read.layer}.weight")
            if table in read.tables and weight is not None and row is not None:
                return weight[:, read.first : read.first + row.shape[1]]
        return None


def of_model(memory: State, name: str) -> Tensor | None:
    """A tensor of the model that was received last; None before."""
    return memory.get(f"{_MODEL}{name}")
