"""Amazon ratings, ``user,item,rating,timestamp`` without a header, as PFedRec has it.

Zhang et al., Dual Personalization on Federated Recommendation, IJCAI 2023.
"""

from pathlib import Path

from privfed.data.interactions import Interactions
from privfed.data.readers.columns import Column, Layout, delimited
from privfed.data.readers.rows import Reading, Repeats, assemble, stack
from privfed.data.readers.scales import WHOLE_STARS

_RATINGS = Layout(
    separator=",",
    columns=(
        Column("user", "text", position=0),
        Column("item", "text", position=1),
        Column("rating", "number", position=2),
        Column("time", "integer", position=3),
    ),
    header=False,
)


def read(path: Path, repeats: Repeats = "refuse") -> Interactions:
    """The ratings of a file, or of ``ratings.dat`` in a folder."""
    file = path / "ratings.dat" if path.is_dir() else path
    rows = stack([(file, delimited(file, _RATINGS))])
    name = path.name if path.is_dir() else path.stem
    return assemble(name, rows, Reading(scale=WHOLE_STARS, repeats=repeats))
