"""Every way to end: one line on stderr, and an exit code that means one thing."""

import os
from collections.abc import Callable

import click

from privfed.errors import PrivfedError

EXIT_CODES = """\b
Exit codes:
  0    done
  1    a run failed
  2    unusable input or settings
  3    an optional library is missing (the message has the pip command)
  4    data is missing, or its checksum is wrong
  5    the privacy budget is exhausted
  6    audit findings at or above the policy's severity
  130  interrupted
PRIVFED_DEBUG=1 shows where an error came from.
"""


def guarded(command: Callable[[], object]) -> int:
    """Run a command; tell any failure in one line and return its exit code."""
    try:
        ended = command()
    except (click.Abort, KeyboardInterrupt):
        _say("interrupted; a run goes on where it was with --resume")
        return 130
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except PrivfedError as error:
        if _debugging():
            raise
        _say(f"error: {error}")
        return error.exit_code
    except Exception as error:
        if _debugging():
            raise
        _say(
            f"error: {type(error).__name__}: {' '.join(str(error).split())} "
            "(unforeseen; PRIVFED_DEBUG=1 shows where)"
        )
        return 1
    return ended if isinstance(ended, int) else 0


def _debugging() -> bool:
    return os.environ.get("PRIVFED_DEBUG") == "1"


def _say(line: str) -> None:
    click.echo(f"privfed: {line}", err=True)
