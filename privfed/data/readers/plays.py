"""Shakespeare's plays, ``play@offset<tab>SPEAKER<tab>words`` a line.

As in LEAF (Caldas et al., 2018) a speaking role of one play is a client. For a
recommender its items are words: one interaction for each word that the role
speaks, dated by the offset in the play where it first does. For a method that
predicts choices, ``predict=letters`` makes records of the next letter instead.
"""

from pathlib import Path

import pandas as pd

from privfed.data.interactions import DataError, Interactions
from privfed.data.readers.files import text
from privfed.data.readers.letters import next_letters
from privfed.data.readers.rows import Reading, assemble, stack
from privfed.errors import SettingsError

_LINE = r"^(?P<play>[^@\t]+)@(?P<offset>\d{1,9})\t(?P<speaker>[^\t]*)(?P<rest>\t.*)?$"
_WORD = r"[a-z]+(?:'[a-z]+)*"
_READING = Reading(users="appearance", items="appearance", repeats="drop")


def read(
    path: Path, predict: str = "words", length: str = "80", every: str = "10"
) -> Interactions:
    """Roles and the words they speak; what no role speaks is left out.

    ``predict=letters`` reads records of ``length`` letters and the next one instead,
    one beginning ``every`` so many letters (LEAF: 1).
    """
    file = path / "shakespeare.txt" if path.is_dir() else path
    if predict not in ("words", "letters"):
        raise SettingsError(
            f"format plays: predict is '{predict}'; choose words or letters"
        )
    spoken = _speeches(file)
    if predict == "letters":
        sizes = (_whole(length, "length"), _whole(every, "every"))
        return next_letters(file, spoken, *sizes)
    words = spoken["rest"].str.lower().str.findall(_WORD)
    frame = pd.DataFrame(
        {
            "user": spoken["play"] + "/" + spoken["role"],
            "item": words,
            "time": spoken["offset"].astype(float),
            "line": spoken.index + 1,
        }
    )
    frame = frame.explode("item", ignore_index=True).dropna(subset="item")
    if frame.empty:
        raise DataError(f"{file}: nobody speaks; check the path")
    return assemble(file.stem, stack([(file, frame)]), _READING)


def _whole(option: str, name: str) -> int:
    if not option.isdigit() or int(option) < 1:
        raise SettingsError(
            f"format plays: {name} is '{option}', not a whole number of 1 or more"
        )
    return int(option)


def _speeches(file: Path) -> pd.DataFrame:
    """Lines that a role speaks: a speech runs from its speaker to a blank line."""
    lines = text(file).rstrip("\r\n").split("\n")
    cells = pd.Series(lines).str.rstrip("\r").str.extract(_LINE)
    wrong = cells["play"].isna()
    if wrong.any():
        raise DataError(
            f"{file}, line {int(wrong.argmax()) + 1}: not 'play@offset', speaker and "
            "words with tabs between; correct the line"
        )
    cells["rest"] = cells["rest"].fillna("").str.strip()
    blank = (cells["speaker"] == "") & (cells["rest"] == "")
    role = cells["speaker"].str.strip().mask(lambda name: name == "")
    cells["role"] = role.groupby([cells["play"], blank.cumsum()]).ffill()
    return cells[cells["role"].notna() & ~blank]
