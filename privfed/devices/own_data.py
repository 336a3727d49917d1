"""Local training that reads nobody else's data."""

from dataclasses import replace
from typing import Any, TypeVar

M = TypeVar("M")


def by_own_data(method: M) -> M:
    """The method, with negatives from the whole catalog.

    A pool of the items that occur in anybody's training data lets one user move what
    all others upload, and no bound on a single upload would hold.
    """
    if getattr(method, "negatives_pool", "all_items") == "all_items":
        return method
    own: Any = method
    return replace(own, negatives_pool="all_items")  # type: ignore[no-any-return]
