"""The command line: one group, its commands loaded when they are called."""

import sys
from collections.abc import Sequence

import click

from privfed import __version__
from privfed.cli.errors import EXIT_CODES, guarded
from privfed.cli.lazy import LazyGroup

_EPILOG = """\b
Examples:
  privfed run                                  a small world, no defense
  privfed run --method fedmr --defense dp      what does DP cost, and what leaks?
  privfed list dp                              the settings of a part
  privfed data get ml-100k                     fetch a data set

\b
Results go to stdout, progress and messages to stderr.

"""


@click.group(
    cls=LazyGroup,
    commands_at={
        "run": "privfed.cli.run:run",
        "list": "privfed.cli.list:list_parts",
        "data": "privfed.cli.data:data",
    },
    epilog=_EPILOG + EXIT_CODES,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="privfed")
def privfed() -> None:
    """Train federated recommenders with defenses, attack them, and see side by
    side what they are worth, what they leak and what they cost.
    """


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    words = sys.argv[1:] if args is None else [*args]
    return guarded(lambda: privfed.main(words, "privfed", standalone_mode=False))
