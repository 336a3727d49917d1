"""What is known of users beside their interactions, as classes.

Ages fall into the seven groups of MovieLens-1M (Harper and Konstan, TiiS 2015), whose
codes are their lower ends; gender has two values, for that is what data sets record.
"""

from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

UNKNOWN = -1
_GENDERS = ("F", "M")
_BORDERS = (18, 25, 35, 45, 50, 56)
_AGES = ("under 18", "18-24", "25-34", "35-44", "45-49", "50-55", "56 and over")
_OLDEST = 120


@dataclass(frozen=True, eq=False)
class Labels:
    """One attribute of every user, as classes."""

    names: tuple[str, ...]  # by class
    label: Tensor  # (clients,) class, -1 where it is not known

    def to(self, device: torch.device) -> "Labels":
        """The same labels on a device."""
        return Labels(self.names, self.label.to(device))

    def beyond(self, users: int) -> "Labels":
        """The same labels, and so many more users of whom none is known."""
        more = self.label.new_full((users,), UNKNOWN)
        return Labels(self.names, torch.cat([self.label, more]))


def classes(facts: Mapping[str, tuple[str, ...]]) -> dict[str, Labels]:
    """Gender, age and occupation, as far as a source tells them.

    ``facts`` are its words, by attribute and user. A word that says nothing, such as
    the empty one, is unknown; an attribute of fewer than two classes is left out.
    """
    found = {name: read(facts[name]) for name, read in _READ.items() if name in facts}
    return {name: one for name, one in found.items() if _told(one) > 1}


def _told(labels: Labels) -> int:
    """How many classes occur."""
    return len(torch.unique(labels.label[labels.label != UNKNOWN]))


def _gender(words: tuple[str, ...]) -> Labels:
    first = [word.strip()[:1].upper() for word in words]
    known = {name: at for at, name in enumerate(_GENDERS)}
    return Labels(_GENDERS, _labels([known.get(one, UNKNOWN) for one in first]))


def _age(words: tuple[str, ...]) -> Labels:
    return Labels(_AGES, _labels([_age_group(word) for word in words]))


def _age_group(word: str) -> int:
    if not word.strip().isdecimal() or not 0 < int(word) <= _OLDEST:
        return UNKNOWN
    return bisect_right(_BORDERS, int(word))


def _occupation(words: tuple[str, ...]) -> Labels:
    told = {word.strip() for word in words} - {""}
    names = tuple(sorted(told, key=lambda word: (len(word) * word.isdecimal(), word)))
    known = {name: at for at, name in enumerate(names)}
    return Labels(names, _labels([known.get(w.strip(), UNKNOWN) for w in words]))


def _labels(found: list[int]) -> Tensor:
    return torch.tensor(found, dtype=torch.int64)


_READ: Mapping[str, Callable[[tuple[str, ...]], Labels]] = {
    "gender": _gender,
    "age": _age,
    "occupation": _occupation,
}
