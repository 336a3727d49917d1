"""Settings that all tests share."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

settings.register_profile("privfed", deadline=None, max_examples=30)
settings.load_profile("privfed")


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
