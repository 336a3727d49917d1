"""What the parties of a run agree on before it, beside keys and parameters."""

from dataclasses import dataclass

from privfed.channels.layout import Bounds
from privfed.errors import SettingsError


@dataclass(frozen=True)
class Terms:
    """Bounds of uploads, who takes part in earnest, and who reads sums.

    ``sample`` is how many clients of a cohort are encrypted, 0 for all; ``shared``
    whether all clients hold the key.
    """

    bounds: Bounds
    min_cohort: int
    sample: int
    shared: bool

    def refuse_few(self, clients: int) -> None:
        """Raise SettingsError where a cohort's sum would not be decrypted."""
        if clients < self.min_cohort:
            raise SettingsError(
                f"he: a round of {clients} clients is smaller than min_cohort="
                f"{self.min_cohort}, and its sum would tell too much of each; take "
                "more clients a round, or give he:min_cohort=2 and accept that"
            )
