"""One round's way from the devices to the server."""

from dataclasses import dataclass
from typing import Any

from privfed.data.cohort import Cohort
from privfed.interfaces import Channel, Delivered, Opening
from privfed.messages import Uploads
from privfed.seeds import Seeds
from privfed.views import View


@dataclass
class Road:
    """A channel while it carries a round; what is on the way changes in place."""

    channel: Channel
    opened: Any

    @classmethod
    def open(
        cls, channel: Channel, number: int, cohort: Cohort, seeds: Seeds
    ) -> "Road":
        """Begin a round; ``cohort`` is everybody whose upload will come."""
        stream = seeds("channel", number)
        opening = Opening(number, cohort.shape, cohort.clients, stream)
        return cls(channel, channel.open(opening))

    def send(self, uploads: Uploads) -> View:
        """Deliver some clients' uploads; return what the server saw of them."""
        self.opened, view = self.channel.send(self.opened, uploads)
        return view

    def close(self) -> Delivered:
        """End the round."""
        return self.channel.close(self.opened)
