"""A denoising client between devices and server, for FedRec++.

Liang et al., AAAI 2021. What a device marks for the denoiser goes to one client of the
population and not to the server, which is handed the sum over the round.
"""

from dataclasses import dataclass, replace

from privfed.channels.plain import Plain, Running
from privfed.data.world import Shape
from privfed.devices.virtual import TO_DENOISER
from privfed.errors import SettingsError
from privfed.interfaces import Channel
from privfed.messages import Total, Uploads
from privfed.views import TotalView, UploadsView


@dataclass(frozen=True)
class Denoiser(Channel):
    """Uploads in the clear, but for what goes to a denoising client.

    The server sees single uploads without the tables marked for the denoiser, and the
    sum of those. The denoiser sees every client's marked tables; it is trusted to sum
    them rightly and to tell nobody. The paper spreads this work over several clients,
    of which each sees a share and the server each one's sum; here it is one.
    """

    shows = (UploadsView, TotalView)

    def open(self, shape: Shape) -> Running:
        return Plain().open(shape)

    def send(
        self, opened: Running, round: int, uploads: Uploads
    ) -> tuple[Running, UploadsView]:
        marked = [name for name in uploads.rows if name.startswith(TO_DENOISER)]
        if not marked:
            raise SettingsError(
                "denoiser: this method sends nothing to a denoising client; take "
                "--method fedrec_pp, or leave the defense out"
            )
        opened, view = Plain().send(opened, round, uploads)
        kept = {n: rows for n, rows in uploads.rows.items() if n not in marked}
        seen = replace(uploads, rows=kept)
        return opened, replace(
            view,
            uploads=seen,
            items={name: view.items[name] for name in kept},
            bytes_up=seen.bytes_up(opened.shape),
        )

    def close(self, opened: Running, round: int) -> tuple[Total, TotalView]:
        return Plain().close(opened, round)
