"""The next letter of what a role says, as LEAF's Shakespeare asks (Caldas, 2018).

A record is ``length`` letters as codes of an alphabet of 80, and the letter after
them. LEAF begins a record at every letter; ``every`` leaves a gap between beginnings.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from privfed.data.interactions import DataError, Interactions
from privfed.data.world import spans

ALPHABET = (
    "\n !\"&'(),-.0123456789:;>?ABCDEFGHIJKLMNOPQRSTUVWXYZ[]abcdefghijklmnopqrstuvwxyz}"
)
FEWEST = 20  # records of a role (FedMeta, Appendix A)
MOST = 2 * 1024**3  # bytes of contexts


def next_letters(
    file: Path, spoken: pd.DataFrame, length: int, every: int
) -> Interactions:
    """Records of every role with at least 20, in the order of its speeches.

    ``spoken`` has the columns play, role, rest. Letters outside the alphabet are
    read as spaces. Raises DataError where no role says enough.
    """
    text = _texts(spoken)
    sizes = torch.tensor([len(one) for one in text])
    counts = (sizes - length + every - 1).clamp(min=0) // every
    kept = counts >= FEWEST
    if not bool(kept.any()):
        raise DataError(
            f"{file}: no role speaks {FEWEST} records of {length} letters; take fewer "
            "letters (length) or a smaller gap (every)"
        )
    _check_size(file, int(counts[kept].sum()), length)
    codes = _codes("".join(text))
    begin = (sizes.cumsum(0) - sizes)[kept]
    role, place = spans(torch.zeros_like(begin), counts[kept])
    start = begin[role] + place * every
    return Interactions(
        name=file.stem,
        users=int(kept.sum()),
        items=len(ALPHABET),
        user=role,
        item=codes[start + length],
        time=place * every,
        user_ids=tuple(text.index[kept.numpy()]),
        item_ids=tuple(ALPHABET),
        choices=codes.float()[start[:, None] + torch.arange(length)],
    )


def _texts(spoken: pd.DataFrame) -> "pd.Series[str]":
    """All that each role says, by "play/role" in order of appearance."""
    role = spoken["play"] + "/" + spoken["role"]
    text = spoken["rest"].groupby(role, sort=False).agg(" ".join)
    return text.str.replace(r"\s+", " ", regex=True)


def _codes(text: str) -> torch.Tensor:
    """Each letter's place in the alphabet, (letters,)."""
    points = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    table = np.full(int(points.max()) + 1, ALPHABET.index(" "), dtype=np.int64)
    letters = np.array([ord(one) for one in ALPHABET])
    known = letters < len(table)
    table[letters[known]] = np.flatnonzero(known)
    return torch.from_numpy(table[points])


def _check_size(file: Path, records: int, length: int) -> None:
    if records * length * 4 > MOST:
        raise DataError(
            f"{file}: {records:,} records of {length} letters are over 2 GiB; make the "
            "gap (every) larger"
        )
