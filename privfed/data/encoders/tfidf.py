"""TF-IDF of words, reduced by a truncated singular value decomposition.

The reduction is latent semantic analysis (Deerwester, Dumais, Furnas, Landauer,
Harshman, JASIS 1990).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import Tensor

from privfed.data.encoders import TextEncoder
from privfed.data.interactions import DataError

# Keeps "sci-fi", "children's" and one-letter words whole; scikit-learn's own pattern
# splits the first two and drops the last.
WORD = r"[^\W_]+(?:['\u2019-][^\W_]+)*"


@dataclass(frozen=True)
class Tfidf(TextEncoder):
    """Words weighted by how rare they are, in at most ``width`` columns.

    Where the vocabulary has at most ``width`` words each word is a column (a
    multi-hot row, weighted and of length 1); else inner products of rows are the
    best approximation of that rank to the cosines of the TF-IDF vectors.
    """

    width: int = 128

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ValueError(f"width must be at least 1, got {self.width}")

    @property
    def version(self) -> str:
        return f"scikit-learn {version('scikit-learn')}"

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Return (texts, width or less); raises DataError where no text has a word."""
        weights = _weights(texts)  # sparse, (texts, words)
        if weights.shape[1] <= self.width:
            return torch.from_numpy(weights.toarray().astype(np.float32))
        return _reduced(weights, min(self.width, weights.shape[0]))


def _weights(texts: Sequence[str]) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    try:
        return TfidfVectorizer(token_pattern=WORD).fit_transform(texts)
    except ValueError as error:
        mend = "leave this column out"
        raise DataError(f"tfidf finds no word in any text; {mend}") from error


def _reduced(weights: Any, width: int) -> Tensor:
    from sklearn.decomposition import TruncatedSVD

    # ARPACK is exact where the randomised solver is not (titles have a flat
    # spectrum), but finds fewer components than there are texts.
    algorithm = "arpack" if width < weights.shape[0] else "randomized"
    svd = TruncatedSVD(width, algorithm=algorithm, random_state=0)
    return torch.from_numpy(svd.fit_transform(weights).astype(np.float32))
