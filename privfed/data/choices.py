"""Records of choices, made from a log of who took what and when.

FedMeta (Chen et al., 2018) learns which service a phone's user opens next. A record
is what the device knew before a choice, and the choice as a number of the client's
own: the first thing that a client ever chose is 0, the next new one is 1. The layout
is ours, chosen to reach the 103 features that the paper counts:

    40  which choice was the last one
    40  how often each was made before, where older ones count less
    12  the slot of two hours, 7  the day of the week, both UTC
     4  the level of the battery, or nothing
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from privfed.data.interactions import DataError, Interactions

CLASSES = 40
SLOTS, DAYS, LEVELS = 12, 7, 4
WIDTH = 2 * CLASSES + SLOTS + DAYS + LEVELS
FEWEST = 20  # records of a client; below, LEAF's threshold for Shakespeare
_FADE = 0.95  # what a choice still counts after one more
_REPEATS = 0.2  # share of rows that makes a log one of repeat consumption
_DAY = 86_400
_MILLI = 10**11  # seconds since 1970 reach it in the year 5138


@dataclass(frozen=True, eq=False)
class Labels:
    """What each kept row of a log means to its own client."""

    row: Tensor  # (records,) place in the log, ascending
    owner: Tensor  # (records,) client, numbered anew, ascending
    label: Tensor  # (records,) in [0, CLASSES)
    clients: Tensor  # (clients,) the log's number of each


def choice_records(
    log: Interactions, levels: Tensor | None = None, fewest: int = FEWEST
) -> tuple[Interactions, tuple[str, ...]]:
    """A log as records of choices, and what was left out of it.

    A choice is the item where clients come back to items, else the item's first
    genre. A client of more than 40 keeps the 40 that it chose most often; one of
    fewer than ``fewest`` records is left out. ``levels`` (rows, 4) is known of each
    row besides. What has contexts already stays as it is. Raises DataError, with
    the mend, where no choice can be made of the log.
    """
    if log.choices is not None:
        return log, ()
    if log.time is None:
        raise DataError(
            f"{log.name}: nothing is dated, so no choice comes after another; give "
            "the log a column of time stamps"
        )
    things, kind = chosen_things(log)
    labels = local_labels(log.user, things, fewest)
    if not len(labels.clients):
        raise DataError(
            f"{log.name}: no client has {fewest} choices; take a longer log"
        )
    told = _left_out(log, things, labels, kind, fewest)
    return _records(log, labels, levels), told


def chosen_things(log: Interactions) -> tuple[Tensor, str]:
    """What each row chose, (rows,), -1 where that is unknown, and what it is called.

    Items where a fifth of the rows repeat one of the client's, else first genres.
    """
    key = pd.Series((log.user * log.items + log.item).numpy())
    if float(key.duplicated().mean()) >= _REPEATS:
        return log.item, "items"
    genres = log.texts.get("genre")
    if not genres:
        raise DataError(
            f"{log.name}: clients hardly ever come back to an item, and items have no "
            "genre to choose instead; take a log of repeated use (privfed data get "
            "complete-journey), or plays with --format plays:predict=letters"
        )
    first = pd.Series(genres).str.split(r"[ |,]", n=1, regex=True).str[0]
    codes, _ = pd.factorize(first.mask(first == ""))
    return torch.from_numpy(codes.astype(np.int64))[log.item], "genres"


def local_labels(user: Tensor, thing: Tensor, fewest: int = FEWEST) -> Labels:
    """Number each client's things by first appearance, the 40 most frequent alone.

    ``user`` ascends; a thing of -1 is no choice.
    """
    frame = pd.DataFrame({"user": user.numpy(), "thing": thing.numpy()})
    frame = frame[frame["thing"] >= 0]
    pairs = frame.groupby(["user", "thing"], sort=False)
    sizes = pairs.size().rename("size").reset_index()  # by first appearance
    order = sizes.sort_values("size", ascending=False, kind="stable")
    sizes["kept"] = order.groupby("user").cumcount() < CLASSES
    sizes = sizes[sizes["kept"]]
    sizes["label"] = sizes.groupby("user").cumcount()
    found = frame.reset_index().merge(sizes, on=["user", "thing"]).sort_values("index")
    found = found[found.groupby("user")["label"].transform("size") >= fewest]
    owner, clients = pd.factorize(found["user"])
    return Labels(
        torch.tensor(found["index"].to_numpy()),
        torch.tensor(owner),
        torch.tensor(found["label"].to_numpy()),
        torch.tensor(np.asarray(clients)),
    )


def contexts(
    owner: Tensor, label: Tensor, time: Tensor, levels: Tensor | None = None
) -> Tensor:
    """What was known before each choice, (records, 103).

    ``owner`` ascends; a time of -1 is unknown.
    """
    within = places(owner)
    chosen = one_hot(label, CLASSES).float()
    last = _before(chosen, within, 1)
    counts = _before(_faded(chosen, within), within, 1) * (1 - _FADE)
    seconds = torch.where(time >= _MILLI, time // 1000, time).clamp(min=0)
    known = (time >= 0)[:, None]
    slot = one_hot(seconds % _DAY * SLOTS // _DAY, SLOTS) * known
    day = one_hot((seconds // _DAY + 3) % DAYS, DAYS) * known  # 1970 began on day 3
    level = torch.zeros(len(owner), LEVELS) if levels is None else levels
    return torch.cat([last, counts, slot.float(), day.float(), level], dim=1)


def places(owner: Tensor) -> Tensor:
    """Each record's place among its client's, from 0; ``owner`` ascends."""
    counts = torch.bincount(owner)
    return torch.arange(len(owner)) - (counts.cumsum(0) - counts)[owner]


def _faded(chosen: Tensor, within: Tensor) -> Tensor:
    """Running sums in which each step fades what came before, by doubling."""
    total, step = chosen, 1
    while step <= int(within.max()) and _FADE**step > 1e-7:
        total = total + _FADE**step * _before(total, within, step)
        step *= 2
    return total


def _before(value: Tensor, within: Tensor, steps: int) -> Tensor:
    """Each record's value of so many records before, 0 where its client had none."""
    moved = torch.zeros_like(value)
    moved[steps:] = value[:-steps]
    return moved * (within >= steps)[:, None]


def _records(log: Interactions, labels: Labels, levels: Tensor | None) -> Interactions:
    assert log.time is not None
    row, clients = labels.row, labels.clients.tolist()
    time = log.time[row]
    known = levels[row] if levels is not None else None
    return Interactions(
        name=log.name,
        users=len(clients),
        items=CLASSES,
        user=labels.owner,
        item=labels.label,
        time=time,
        user_ids=tuple(log.user_ids[c] for c in clients) if log.user_ids else (),
        attributes=_of(log.attributes, clients),
        choices=contexts(labels.owner, labels.label, time, known),
    )


def _of(
    attributes: Mapping[str, tuple[str, ...]], clients: list[int]
) -> dict[str, tuple[str, ...]]:
    return {
        name: tuple(values[c] for c in clients) for name, values in attributes.items()
    }


def _left_out(
    log: Interactions, things: Tensor, labels: Labels, kind: str, fewest: int
) -> tuple[str, ...]:
    """Honest remarks about what the records are."""
    told = [f"{log.name}: choices are {kind}, numbered by each client on its own"]
    before = int((torch.bincount(log.user, minlength=log.users) > 0).sum())
    gone = before - len(labels.clients)
    if gone:
        told.append(
            f"{log.name}: {gone:,} of {before:,} clients have fewer than {fewest} "
            "choices and are left out"
        )
    stay = torch.isin(log.user, labels.clients)
    unknown = int((stay & (things < 0)).sum())
    rare = int(stay.sum()) - unknown - len(labels.row)
    if unknown:
        told.append(f"{log.name}: {unknown:,} choices of no known genre are left out")
    if rare:
        told.append(
            f"{log.name}: {rare:,} choices beside a client's {CLASSES} most frequent "
            "are left out"
        )
    return tuple(told)
