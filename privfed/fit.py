"""Which parts cannot work together, refused by name and with the reason."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from privfed.catalog import name_of
from privfed.errors import SettingsError
from privfed.interfaces import Channel, Defense, FromUploads, Method, Penalized
from privfed.views import UploadsView


def check(
    method: Method,
    chain: Sequence[Defense],
    ready: Sequence[Defense],
    channel: Channel,
) -> None:
    """Raise SettingsError where two parts of a run exclude each other.

    ``chain`` holds the defenses as they were asked for, ``ready`` as they will run.
    """
    parts = [_Named(name_of(d), r) for d, r in zip(chain, ready, strict=True)]
    for reason in _reasons(method, parts, channel):
        raise SettingsError(f"{reason}; leave one of them out")
    for reason in _order(parts):
        raise SettingsError(reason)


@dataclass(frozen=True)
class _Named:
    """A defense of the chain, ready to run, and its name."""

    name: str
    part: Defense

    def has(self, step: Callable[..., object]) -> bool:
        """Whether it does something of its own in a step."""
        return getattr(type(self.part), step.__name__) is not step


def _reasons(
    method: Method, chain: Sequence[_Named], channel: Channel
) -> Iterator[str]:
    yield from _training(method, chain)
    if not channel.sums:
        yield from _not_a_sum(method, chain, channel)
    if isinstance(method, FromUploads):
        yield from _single_uploads(method, chain, channel)


def _training(method: Method, chain: Sequence[_Named]) -> Iterator[str]:
    """DP-SGD bounds what one interaction changes; nothing else may let it in."""
    private = [one for one in chain if one.has(Defense.in_training)]
    for second in private[1:]:
        yield f"{_pair(private[0], second)}: both make local training private"
    for one in private:
        for other in chain:
            if other.has(Defense.penalty):
                yield f"{_pair(one, other)}: DP-SGD's loss takes no further term"
            if other.has(Defense.on_data):
                yield (
                    f"{_pair(one, other)}: what is added to the data depends on every "
                    "interaction, so the guarantee would not hold"
                )
    for one in chain:
        if one.has(Defense.penalty) and not isinstance(method, Penalized):
            yield f"{_pair(one, method)}: its local training takes no further term"


def _order(chain: Sequence[_Named]) -> Iterator[str]:
    """Nothing may change an upload whose norm a guarantee rests on."""
    for k, one in enumerate(chain):
        for later in chain[k + 1 :]:
            if one.part.bounds_upload and later.has(Defense.on_upload):
                yield (
                    f"{_pair(one, later)} in this order: {later.name} would change "
                    f"uploads after {one.name} has bounded them; write {one.name} last"
                )


def _not_a_sum(
    method: Method, chain: Sequence[_Named], channel: Channel
) -> Iterator[str]:
    for one in chain:
        if one.has(Defense.on_total):
            yield f"{_pair(one, channel)}: its guarantee is about a sum of uploads"
    if isinstance(method, FromUploads):
        yield f"{_pair(method, channel)}: the method's server makes no total"


def _single_uploads(
    method: Method, chain: Sequence[_Named], channel: Channel
) -> Iterator[str]:
    if not any(issubclass(view, UploadsView) for view in channel.shows):
        yield (
            f"{_pair(method, channel)}: the method's server learns from single "
            "uploads, which the channel hides"
        )
    for one in chain:
        if one.has(Defense.on_total):
            yield (
                f"{_pair(method, one)}: the method's server learns from single "
                "uploads, and makes no total"
            )


def _pair(one: object, other: object) -> str:
    names = [x.name if isinstance(x, _Named) else name_of(x) for x in (one, other)]
    return f"{names[0]} and {names[1]} cannot go together"
