"""The picture of tradeoff.py: a panel for each figure, epsilon along the bottom."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from privfed.errors import MissingExtra
from privfed.result import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NOISELESS = "inf"
_BELOW = -0.06  # where a marker stands for what has no value


@dataclass(frozen=True)
class Series:
    """One line, by epsilon; ``hollow`` where what it shows is a trusted party's."""

    name: str
    color: str
    hollow: bool
    points: Mapping[str, Figure]


@dataclass(frozen=True)
class Panel:
    """One figure. ``absent`` are names and colors of what has no value here."""

    name: str
    series: Sequence[Series]
    plain: float | None  # without a defense
    floor: float | None  # of popularity
    absent: Sequence[tuple[str, str]] = ()


def refuse_without_matplotlib() -> None:
    """Raise MissingExtra where nothing can be drawn."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingExtra("matplotlib", "report", "drawing") from error


def draw(
    panels: Sequence[Panel], epsilons: Sequence[str], title: str, out: Path
) -> None:
    """Draw panels side by side, as PNG and as SVG."""
    from matplotlib.figure import Figure as Picture

    picture = Picture(figsize=(11, 5.4), layout="constrained")
    every = picture.subplots(1, len(panels), squeeze=False)[0]
    for axes, panel in zip(every, panels, strict=True):
        _draw(axes, panel, epsilons)
    handles, labels = every[-1].get_legend_handles_labels()
    picture.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8)
    picture.suptitle(title, fontsize=10)
    out.parent.mkdir(parents=True, exist_ok=True)
    for suffix in (".png", ".svg"):
        picture.savefig(out.with_suffix(suffix), dpi=160)


def _draw(axes: "Axes", panel: Panel, epsilons: Sequence[str]) -> None:
    for k, series in enumerate(panel.series):
        _line(axes, series, epsilons, 0.06 * (k - 1))
    if panel.plain is not None:
        axes.axhline(panel.plain, color="black", lw=1, label="no defense")
    if panel.floor is not None:
        axes.axhline(panel.floor, color="gray", ls=":", label="popularity alone")
    at = range(len(epsilons))
    for name, color in panel.absent:
        axes.plot(at, [_BELOW for _ in at], ls="", marker="x", color=color, label=name)
    axes.set_xticks(at, [_tick(epsilon) for epsilon in epsilons])
    axes.set_xlabel("epsilon, over all rounds (delta 1e-5)")
    axes.set_ylabel(panel.name)
    axes.set_ylim(bottom=2 * _BELOW if panel.absent else 0)


def _line(axes: "Axes", series: Series, epsilons: Sequence[str], aside: float) -> None:
    """Points with their intervals, and a line through those with noise."""
    points, color = series.points, series.color
    at = {e: n + aside for n, e in enumerate(epsilons) if e in points}
    found = [points[epsilon] for epsilon in at]
    axes.errorbar(
        [*at.values()],
        [figure.value for figure in found],
        _reaches(found),
        color=color,
        marker="o",
        markerfacecolor="white" if series.hollow else color,
        ls="",
        capsize=2,
        label=series.name,
    )
    noised = [epsilon for epsilon in at if epsilon != NOISELESS]
    axes.plot(
        [at[epsilon] for epsilon in noised],
        [points[epsilon].value for epsilon in noised],
        color=color,
        ls="--" if series.hollow else "-",
        zorder=1,
    )


def _reaches(figures: Sequence[Figure]) -> list[list[float]]:
    """How far intervals reach below and above their values."""
    low = [f.value - (f.value if f.low is None else f.low) for f in figures]
    high = [(f.value if f.high is None else f.high) - f.value for f in figures]
    return [low, high]


def _tick(epsilon: str) -> str:
    return "no noise,\nclip only" if epsilon == NOISELESS else epsilon
