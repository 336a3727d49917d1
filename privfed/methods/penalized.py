"""What penalties on local training read of a method's parts."""

from collections.abc import Mapping, Sequence

from privfed.devices.batches import Samples
from privfed.devices.penalty import Penalty, Terms
from privfed.interfaces import State
from privfed.methods.parts import Part


def terms_of(
    penalties: Sequence[Penalty], parts: Sequence[Part], model: State, samples: Samples
) -> Terms | None:
    """The penalties, on the item tables that are shared; None where there are none."""
    if not penalties:
        return None
    names = [part.name for part in parts if part.kind == "rows" and not part.private]
    received = {name: model[name][samples.item] for name in names}
    count = samples.full().weight
    return Terms(penalties, received, samples.item, count, readers(parts))


def readers(parts: Sequence[Part]) -> Mapping[str, str]:
    """What scores the very rows of a shared table: a private vector or score head.

    Where shared layers stand between rows and scores, only a vector made for a table
    (its name says so) is compared with its rows.
    """
    private = {part.name: part for part in parts if part.private}
    layers = [part for part in parts if part.kind == "layer"]
    found = {}
    for part in parts:
        if part.kind != "rows" or part.private:
            continue
        own = private.get(part.name.replace("items", "user", 1))
        if own is not None and own.size == part.size:
            found[part.name] = own.name
        elif len(layers) == 1 and layers[0].private and layers[0].size[1] == 1:
            found[part.name] = layers[0].name
    return found
