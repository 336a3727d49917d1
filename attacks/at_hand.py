"""The data that scripts take where none are named."""

import click

from privfed.data.load import DEMO, locate
from privfed.errors import DataMissing


def at_hand() -> str:
    """MovieLens-100K where it is; the demo world, said aloud, where it is not."""
    try:
        locate("ml-100k")
    except DataMissing as missing:
        click.echo(f"{missing}; taking the demo world", err=True)
        return DEMO
    return "ml-100k"
