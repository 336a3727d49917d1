"""What settings must be; each raises ValueError with the setting's name and value."""

from math import inf


def at_least(settings: object, least: int, *names: str) -> None:
    """Numbers of ``least`` or more."""
    for name in names:
        value = getattr(settings, name)
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")


def positive(settings: object, *names: str) -> None:
    """Finite numbers above 0."""
    for name in names:
        value = getattr(settings, name)
        if not 0 < value < inf:
            raise ValueError(f"{name} must be positive, got {value}")


def not_negative(settings: object, *names: str) -> None:
    """Finite numbers of 0 or more."""
    for name in names:
        value = getattr(settings, name)
        if not 0 <= value < inf:
            raise ValueError(f"{name} must be 0 or more, got {value}")


def fours(settings: object, *names: str) -> None:
    """Widths that keep what a client computes the same in any shard."""
    for name in names:
        value = getattr(settings, name)
        if value % 4:
            raise ValueError(f"{name} must be a multiple of 4, got {value}")
