"""Secure aggregation as a channel: uploads as integers, masked, added up, opened."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

from privfed.accounting.guarantee import Guarantee, not_private
from privfed.channels.layout import Bounds, layout_of
from privfed.channels.masked.graph import usual_degree, usual_threshold
from privfed.channels.masked.round import Parties, Round
from privfed.channels.masked.wire import Rules
from privfed.checks import at_least, not_negative, positive
from privfed.errors import PrivfedError, SettingsError
from privfed.interfaces import Channel, Delivered, Opening, Plan
from privfed.messages import Spent, Total, Uploads
from privfed.views import ItemsAndTotalView, ItemsView, RoundView, TotalView, View


@dataclass
class Opened:
    """A round; its layout is known with its first upload."""

    opening: Opening
    parties: Parties
    begun: Round | None = None

    @property
    def round(self) -> Round:
        if self.begun is None:
            raise PrivfedError(
                "secagg: a round was closed that nobody sent anything in"
            )
        return self.begun


@dataclass(frozen=True)
class Masked(Channel):
    """Secure aggregation: the server learns the sum of uploads, and no upload.

    A client multiplies its upload by its weight, cuts it to integers and masks it;
    the masks of two clients cancel, and what clients that drop out leave behind is
    taken off with shares that their neighbors hold. Sums are exact modulo 2^``bits``
    and cannot wrap: numbers over ``bound`` (as gradients, before weighting) and weights
    over ``largest_weight`` (0: as many as there are items) are refused, and cohorts
    that leave a number fewer bits than ``precision``.

    Each client has ``neighbors`` (0: four times the binary logarithm of the cohort, in
    20 to 64, and all where that is fewer); ``threshold`` of them rebuild a secret (0:
    more than half, the least allowed). ``dropout`` is the share of the cohort that
    falls silent after handing out shares. No sum over fewer than ``min_cohort`` clients
    is opened. ``rows=touched`` sends ids of touched rows in the clear and masks a row
    only with those neighbors that send it too; where they are fewer than
    ``min_senders`` - 1 the row stays on the device.
    """

    rows: Literal["all", "touched"] = "all"
    neighbors: int = 0
    threshold: int = 0
    dropout: float = 0.0
    min_cohort: int = 10
    min_senders: int = 1
    bits: int = 40
    precision: int = 16
    bound: float = 256.0
    largest_weight: float = 0.0

    hides = "single uploads and their weights; with rows=all item ids too"
    does_not_hide = (
        "the sum, who took part and who dropped out; a server's own table of users, "
        "whose rows are one client's each; with rows=touched item ids, and rows that "
        "no neighbor of their sender sent"
    )
    unit = "none: it hides single uploads, which is no differential privacy"
    trust = (
        "the server, to hand on keys unchanged; at least half of each client's "
        "neighbors, to tell it nothing"
    )
    cost = "whole tables, 5 bytes a number; keys and shares; a second on the server"
    paper = "Bonawitz et al., CCS 2017; graph of Bell et al., CCS 2020"

    def __post_init__(self) -> None:
        at_least(self, 0, "neighbors", "threshold")
        at_least(self, 1, "min_senders", "precision")
        at_least(self, 2, "min_cohort")
        positive(self, "bound")
        not_negative(self, "largest_weight")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")
        if not 8 <= self.bits <= 64:
            raise ValueError(f"bits must be from 8 to 64, got {self.bits}")
        if self.neighbors % 2:
            raise ValueError(f"neighbors must be even, got {self.neighbors}")
        if self.min_senders > 1 and self.rows == "all":
            raise ValueError("min_senders needs rows=touched; with all, no row is bare")

    @property
    def shows(self) -> Sequence[type[View]]:
        if self.rows == "touched":
            return (ItemsView, ItemsAndTotalView)
        return (RoundView, TotalView)

    def ready(self, plan: Plan) -> AbstractContextManager[Channel]:
        self._expect_many(plan.clients)
        return nullcontext(self)

    def open(self, opening: Opening) -> Opened:
        clients = len(opening.clients)
        self._expect_many(clients)
        self._expect_fine(clients)
        degree = min(self.neighbors or usual_degree(clients), clients - 1)
        threshold = self.threshold or usual_threshold(degree)
        if not usual_threshold(degree) <= threshold <= degree:
            raise SettingsError(
                f"secagg: with {degree} neighbors threshold must be from "
                f"{usual_threshold(degree)} to {degree}, got {threshold}; change one"
            )
        rules = Rules(threshold, self.min_cohort, self.bits)
        return Opened(opening, Parties.of(opening, degree, rules, self.dropout))

    def send(self, opened: Opened, uploads: Uploads) -> tuple[Opened, RoundView]:
        if opened.begun is None:
            opened.begun = self._begin(opened, uploads)
        round, number = opened.begun, opened.opening.number
        if self.rows == "all":
            round.send(uploads)
            sizes = round.bytes_up(uploads)
            return opened, RoundView(
                round=number, clients=uploads.clients, bytes_up=sizes
            )
        round.tell(uploads)
        return opened, ItemsView(
            round=number,
            clients=uploads.clients,
            bytes_up=round.bytes_told(uploads),
            items={n: (r.sender, r.item) for n, r in uploads.rows.items()},
        )

    def _begin(self, opened: Opened, uploads: Uploads) -> Round:
        bounds = Bounds(self.bound, self.largest_weight)
        layout = layout_of(uploads, opened.opening, bounds, self._most)
        return Round.begin(opened.parties, layout, self.rows == "touched")

    def close(self, opened: Opened) -> Delivered:
        round = opened.round
        if self.rows == "touched":
            round.send_waiting(self.min_senders)
        self._expect_left(round)
        total = round.total()
        return Delivered(total, [self._view(opened, total)], self._spent(round))

    def guarantee(self) -> Guarantee:
        return not_private(
            trust=(
                f"the server sees sums over {self.min_cohort} clients or more and must "
                "hand on keys unchanged; at least half of each client's neighbors must "
                "not collude with it"
            ),
            covers="what the server sees, by secure aggregation",
            caveats=self._caveats(),
        )

    def _caveats(self) -> tuple[str, ...]:
        told = (
            "the sum itself is released as it is",
            "rows of a table of users that the server keeps are one client's each",
        )
        if self.rows == "all":
            return told
        bare = (
            "of a row the server can tell the sums over groups of neighbors that sent "
            "it; a row that no neighbor of a client sent is bare (cost.bare_rows)"
        )
        if self.min_senders > 1:
            bare += (
                f", though before dropouts no group is smaller than {self.min_senders}"
            )
        return (*told, "item ids are in the clear", bare)

    def _expect_many(self, clients: int) -> None:
        if clients < self.min_cohort:
            raise SettingsError(
                f"secagg: a cohort of {clients} is below min_cohort={self.min_cohort}, "
                "and the sum over few clients tells much about each; take more clients "
                "or lower min_cohort"
            )

    def _expect_fine(self, clients: int) -> None:
        if clients << (self.precision + 1) > self._most:
            raise SettingsError(
                f"secagg: sums of {self.bits} bits leave {clients} clients fewer than "
                f"precision={self.precision} bits each; give bits="
                f"{(clients << (self.precision + 1)).bit_length() + 1} or more"
            )

    @property
    def _most(self) -> int:
        """The largest absolute value of a sum."""
        return (1 << (self.bits - 1)) - 1

    def _expect_left(self, round: Round) -> None:
        left, cohort = int(round.delivered.sum()), len(round.delivered)
        if left < self.min_cohort:
            raise PrivfedError(
                f"secagg: {cohort - left} of {cohort} clients dropped out, and a sum "
                f"over the {left} that are left is below min_cohort={self.min_cohort}; "
                "lower dropout or min_cohort, or take more clients"
            )

    def _view(self, opened: Opened, total: Total) -> TotalView:
        number, round = opened.opening.number, opened.round
        if self.rows == "all":
            return TotalView(round=number, clients=total.clients, total=total)
        return ItemsAndTotalView(
            round=number,
            clients=total.clients,
            total=total,
            senders=round.survivors,
            items=round.items(),
        )

    def _spent(self, round: Round) -> Spent:
        costs = round.protocol.costs.values()
        other = {"dropped": float((~round.delivered).sum())} if self.dropout else {}
        if self.rows == "touched":
            other["bare_rows"] = float(round.bare)
        return Spent(
            sum(cost.bytes_up for cost in costs),
            sum(cost.bytes_down for cost in costs),
            sum(cost.client_seconds for cost in costs),
            sum(cost.server_seconds for cost in costs),
            other,
        )
