"""What tests of broken proxies leave."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def garbage_collected() -> Iterator[None]:
    """What fails unheard in a broken world is told now, and not in the world of another test, which would hear it."""
    yield
    gc.collect()
