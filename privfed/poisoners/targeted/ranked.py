"""Which item stands at a place of a row of scores, without sorting the row.

The best k items of a row lie in its k best blocks: a block outside has k items above
its own best. Blocks are strided, so that a maximum over them runs along the memory.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

BLOCKS = 96


def ranked(score: Tensor, row: Tensor, place: Tensor, size: int) -> Tensor:
    """The item at each (row, place), 0 being the best: (places,).

    ``score`` is (rows, items), items a multiple of ``BLOCKS``; places are below
    ``size``. Among equal scores any may be taken.
    """
    near = _near(score, size) if score.device.type == "cpu" else None
    if near is None:
        return score.topk(size).indices[row, place]
    value, block = near
    at = np.sort(value, axis=1)[row.numpy(), value.shape[1] - 1 - place.numpy()]
    found = (value[row.numpy()] == at[:, None]).argmax(1)
    return torch.from_numpy(found // size * BLOCKS + block[row.numpy(), found % size])


def _near(
    score: Tensor, size: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]] | None:
    """Scores (rows, stride * size) of each row's best blocks (rows, size).

    None where blocks are too few, or equal.
    """
    if size > BLOCKS:
        return None
    strided = score.view(len(score), -1, BLOCKS)
    peak = strided.amax(1).numpy()
    least = np.sort(peak, axis=1)[:, BLOCKS - size, None]
    row, found = np.nonzero(peak >= least)
    if len(row) != len(score) * size:
        return None
    block = found.reshape(-1, size)
    there = torch.from_numpy(block)[:, None].expand(-1, strided.shape[1], -1)
    return strided.gather(2, there).flatten(1).numpy(), block
