"""Leave some of the touched rows out of an upload, at random."""

from dataclasses import dataclass, replace

from privfed.accounting.guarantee import Guarantee, not_private
from privfed.interfaces import Defense, Turn
from privfed.messages import Rows, Uploads


@dataclass(frozen=True)
class RowDropout(Defense):
    """Drop each touched row with chance ``share``, drawn anew each round.

    The tables of an upload lose the same items. What is sent is sent as it is: a row
    in the upload is a row that was trained on. Over rounds each row comes up.
    """

    share: float = 0.5

    hides = "which rows were trained on, by omission alone: some are missing"
    does_not_hide = "any row that is sent, its item id and value; all rows over rounds"
    trust = "nobody, and nothing is promised: the server sees the rows left"
    cost = "slower learning; fewer bytes"
    paper = "Konecny et al. (random masks of updates), 2016; here by item row"

    def __post_init__(self) -> None:
        if not 0 <= self.share < 1:
            raise ValueError(f"share must lie in [0, 1), got {self.share}")

    def on_upload(self, uploads: Uploads, turn: Turn) -> Uploads:
        if self.share == 0:
            return uploads

        def kept(rows: Rows) -> Rows:
            chance = turn.stream.uniform(uploads.clients[rows.sender], rows.item)
            left = chance >= self.share
            return Rows(rows.sender[left], rows.item[left], rows.value[left])

        return replace(uploads, rows={n: kept(r) for n, r in uploads.rows.items()})

    def guarantee(self) -> Guarantee:
        return not_private(
            trust="the server sees every row that is left",
            covers=f"the rows sent, of which a random {self.share:.0%} is left out",
            caveats=(
                "not DP: a row that is sent was trained on, and shows its exact value",
                "rounds draw anew, so over rounds each row is sent",
                "tensors other than item rows are sent whole",
            ),
        )
