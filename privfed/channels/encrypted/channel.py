"""Homomorphic-encrypted aggregation on TenSEAL: the server adds ciphertexts.

BFV: Fan and Vercauteren, ePrint 2012/144. CKKS: Cheon et al., ASIACRYPT 2017. A client
multiplies by its weight, checks every number against its bound, writes them as integers
into one vector and encrypts that; the server adds; the key holder decrypts the sum.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from privfed.accounting.guarantee import Guarantee, not_private
from privfed.channels.encrypted.parameters import SECURITY, Scheme, cheapest
from privfed.channels.encrypted.terms import Terms
from privfed.channels.layout import Bounds
from privfed.checks import at_least, not_negative, positive
from privfed.interfaces import Channel, Delivered, Opening, Plan
from privfed.messages import Uploads
from privfed.views import RoundView, TotalView

_UNREADY = "this channel needs keys: open what ready(plan) gives"
_TRUST = {
    "clients": "every client holds the secret key and the server does not: clients "
    "are trusted not to collude with the server; every client sees the sum",
    "authority": "a key authority apart from the server decrypts sums: it is trusted "
    "not to collude with the server and to refuse sums of too few; it sees the sum",
}


@dataclass(frozen=True)
class Encrypted(Channel):
    """Homomorphic encryption: the server adds uploads that it cannot read.

    ``scheme="bfv"`` is exact on the integers that uploads are cut to; ``ckks`` has
    noise in its last digits, which differs from run to run. With
    ``key_holder="clients"`` all clients share a secret key, which halves an upload;
    with ``authority`` devices have a public key and one party decrypts. ``bound`` is
    the largest number that an upload may hold, as a gradient: before its learning rate
    and its weight; ``largest_weight`` is the largest weight, 0 for as many as there
    are items. ``resolution`` is the coarsest step that such a number of the largest
    weight may be cut to. Sums of fewer than ``min_cohort`` uploads are not
    decrypted. ``sample=N`` encrypts N clients of each cohort only, for long
    simulations: no secure run.
    """

    scheme: Scheme = "bfv"
    key_holder: Literal["clients", "authority"] = "clients"
    bound: float = 256.0
    largest_weight: float = 0.0
    resolution: float = 2e-6
    min_cohort: int = 10
    workers: int = 2
    sample: int = 0  # 0: everybody

    hides = "every upload, its item ids, values and weight, from the server"
    does_not_hide = (
        "who takes part; the sum from the key holder; in a table of users, each "
        "user's own row from the key holder, for nobody else adds to it"
    )
    unit = "none: it hides single uploads, which is no differential privacy"
    trust = "the key holder not to collude with the server; all to follow the protocol"
    cost = "whole tables leave the device, twice or four times as long; processor time"
    paper = "Fan and Vercauteren, 2012; Cheon et al., ASIACRYPT 2017"
    shows = (RoundView, TotalView)

    def __post_init__(self) -> None:
        positive(self, "bound", "resolution")
        not_negative(self, "largest_weight")
        at_least(self, 1, "workers")
        at_least(self, 2, "min_cohort")
        at_least(self, 0, "sample")

    @property
    def seeded(self) -> bool:
        """Whether a seed stands for half of a ciphertext, as only a key allows."""
        return self.key_holder == "clients"

    def sends_every_row(self) -> bool:
        return True

    @contextmanager
    def ready(self, plan: Plan) -> Iterator[Channel]:
        """With fresh keys, and processes that end with the run.

        Raises SettingsError where cohorts are too large for the numbers' precision, or
        too small to decrypt their sum.
        """
        from privfed.channels.encrypted.keys import KeyHolder
        from privfed.channels.encrypted.pool import Pool
        from privfed.channels.encrypted.ready import Ready

        most, terms = plan.largest_cohort, self._terms()
        terms.refuse_few(most)
        steps = self.bound / self.resolution
        parameters = cheapest(self.scheme, self.seeded, most, steps)
        least = min(self.min_cohort, self.sample or self.min_cohort)
        holder = KeyHolder(parameters, self.seeded, least)
        with Pool(holder.credentials, self.workers) as pool:
            yield Ready(terms, holder.notice, holder, pool, self.guarantee())

    def _terms(self) -> Terms:
        bounds = Bounds(self.bound, self.largest_weight)
        return Terms(bounds, self.min_cohort, self.sample, self.seeded)

    def open(self, opening: Opening) -> Any:
        raise RuntimeError(_UNREADY)

    def send(self, opened: Any, uploads: Uploads) -> tuple[Any, RoundView]:
        raise RuntimeError(_UNREADY)

    def close(self, opened: Any) -> Delivered:
        raise RuntimeError(_UNREADY)

    def guarantee(self) -> Guarantee:
        caveats = [
            f"sums of fewer than {self.min_cohort} uploads are not decrypted",
            "the sum itself is not noised and still tells of those in it; in a table "
            "of users it holds each one's row as it was sent",
            "the server could change a sum unnoticed: honest but curious is assumed",
        ]
        if self.scheme == "ckks":
            caveats.append(
                "who holds ciphertexts must not be shown their exact CKKS decryption, "
                "which tells of the key (Li and Micciancio, EUROCRYPT 2021)"
            )
        if self.sample:
            caveats.insert(0, _sampled(self.sample))
        kind = "secret-key" if self.seeded else "public-key"
        return not_private(
            trust=_TRUST[self.key_holder],
            covers=f"what the server can read: uploads reach it encrypted "
            f"({self.scheme.upper()}, {kind}, {SECURITY}-bit security)",
            caveats=tuple(caveats),
        )


def _sampled(count: int) -> str:
    return (
        f"sampled: {count} clients of each round's are encrypted, the cost of the rest "
        "is extrapolated, not measured; NOT a secure run"
    )
