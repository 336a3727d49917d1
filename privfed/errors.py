"""Failures that a user can mend, each with its exit code."""


class PrivfedError(Exception):
    """A failure told in one line, with its mend."""

    exit_code = 1


class SettingsError(PrivfedError):
    """A setting is missing, unknown, of the wrong type or impossible here."""

    exit_code = 2


class MissingExtra(PrivfedError):
    """An optional library is not installed."""

    exit_code = 3

    def __init__(self, library: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs {library}, which is not installed; "
            f"run: pip install 'privfed[{extra}]'"
        )


class DataMissing(PrivfedError):
    """Data is not where it should be, or not what it should be."""

    exit_code = 4
