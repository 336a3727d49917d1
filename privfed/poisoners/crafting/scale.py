"""Ratings as somebody could give them."""

from torch import Tensor

from privfed.data.world import Shape


def on_scale(ratings: Tensor, shape: Shape) -> Tensor:
    """The nearest ratings that the scale has."""
    low, high = ends(shape)
    ratings = ratings.clamp(low, high)
    if not shape.step:
        return ratings
    grain = ((ratings - low) / shape.step).round()
    return (low + grain * shape.step).clamp(low, high)


def ends(shape: Shape) -> tuple[float, float]:
    """The lowest and the highest rating."""
    assert shape.scale is not None, "a rating task has a scale"
    return shape.scale
