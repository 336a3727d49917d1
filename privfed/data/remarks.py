"""What a reader of the results should know about the data beneath them."""

from collections.abc import Mapping

import torch
from torch import Tensor

from privfed.data.interactions import Interactions
from privfed.data.world import Ragged, World

_WORTH_SAYING = 0.01


def remarks(
    data: Interactions, world: World, features: Mapping[str, Tensor]
) -> tuple[str, ...]:
    """Honest remarks, none where there is nothing to say."""
    found = (
        _undated(data),
        _no_validation(world),
        _cold(world),
        _own_negative(world),
        *_of_pairs(data, world),
    )
    from privfed.data.features import gaps

    said = tuple(f"{data.name}: {remark}" for remark in found if remark)
    return said + gaps(dict(features))


def _of_pairs(data: Interactions, world: World) -> tuple[str, ...]:
    """What matters where a pair is held out once, of everybody: not of choices."""
    if world.task == "choice":
        return ()
    return _repeated(data), _not_held_out(world), _leaked(world)


def _undated(data: Interactions) -> str:
    if data.time is None:
        order = "no row is dated, so order within a user is file order"
        return order if data.part is None else ""
    missing = int((data.time < 0).sum())
    if not missing:
        return ""
    return f"{missing / len(data):.0%} of rows undated, sorted before the dated ones"


def _repeated(data: Interactions) -> str:
    pairs = torch.sort(data.user * data.items + data.item).values
    repeated = int((pairs.diff() == 0).sum())
    if not repeated:
        return ""
    return f"{repeated:,} rows repeat a pair of user and item; kept as published"


def _no_validation(world: World) -> str:
    if len(world.validation.item) or not len(world.test.item):
        return ""
    return "the split has no validation part, so no round can be chosen by it"


def _not_held_out(world: World) -> str:
    without = int((world.test.counts == 0).sum())
    if not without:
        return ""
    return f"{without:,} of {world.shape.clients:,} users have no test interaction"


def _leaked(world: World) -> str:
    """Test pairs that are training pairs too."""
    trained, tested = (_pairs(part, world) for part in (world.train, world.test))
    leaked = int(torch.isin(tested, trained).sum())
    if not leaked:
        return ""
    return f"{leaked:,} of {len(tested):,} test pairs are in training too"


def _cold(world: World) -> str:
    """Items of the test part that nobody trains on."""
    unseen = (world.popularity[world.test.item] == 0).float()
    if not len(unseen) or float(unseen.mean()) < _WORTH_SAYING:
        return ""
    return (
        f"{float(unseen.mean()):.0%} of test interactions are with items that "
        "never occur in training: an attack or a ranker may profit from that alone"
    )


def _own_negative(world: World) -> str:
    """Stored negatives that are the held-out item itself (156 in NCF's ML-1M)."""
    if world.candidates is None:
        return ""
    mine = world.candidates[world.test.owner]  # (test pairs, negatives)
    hit = (mine == world.test.item[:, None]).any(dim=1)
    users = len(torch.bincount(world.test.owner[hit]).nonzero())
    if not users:
        return ""
    return f"the stored negatives of {users:,} users hold their own test item"


def _pairs(part: Ragged, world: World) -> Tensor:
    return part.owner * world.shape.items + part.item
