"""A denoising client between devices and server, for FedRec++.

Liang et al., AAAI 2021. What a device marks for the denoiser goes to one client of the
population and not to the server, which is handed the sum over the round.
"""

from dataclasses import dataclass, replace

from privfed.channels.plain import Plain, Running, seen
from privfed.devices.virtual import TO_DENOISER
from privfed.errors import SettingsError
from privfed.interfaces import Channel, Delivered, Opening
from privfed.messages import Uploads
from privfed.views import TotalView, UploadsView


@dataclass(frozen=True)
class Denoiser(Channel):
    """Uploads in the clear, but for what goes to a denoising client.

    The server sees single uploads without the tables marked for the denoiser, and the
    sum of those. The denoiser sees every client's marked tables; it is trusted to sum
    them rightly and to tell nobody. The paper spreads this work over several clients,
    of which each sees a share and the server each one's sum; here it is one.
    """

    hides = "virtual ratings' gradients from the server"
    does_not_hide = "any other upload"
    trust = "the denoising client, with who has which virtual items; the server"
    cost = "virtual ratings' gradients are sent twice"
    paper = "Liang et al., AAAI 2021"
    shows = (UploadsView, TotalView)

    def open(self, opening: Opening) -> Running:
        return Plain().open(opening)

    def send(self, opened: Running, uploads: Uploads) -> tuple[Running, UploadsView]:
        marked = [name for name in uploads.rows if name.startswith(TO_DENOISER)]
        if not marked:
            raise SettingsError(
                "denoiser: this method sends nothing to a denoising client; take "
                "--method fedrec_pp, or leave the defense out"
            )
        opened, _ = Plain().send(opened, uploads)
        kept = {n: rows for n, rows in uploads.rows.items() if n not in marked}
        return opened, seen(replace(uploads, rows=kept), opened.opening)

    def close(self, opened: Running) -> Delivered:
        return Plain().close(opened)
