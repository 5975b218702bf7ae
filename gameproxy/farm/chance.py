"""Chance for the database's thread."""

from __future__ import annotations

from hashlib import shake_256
from itertools import count

from gameproxy.interfaces import Entropy


def stream_of(seed: bytes) -> Entropy:
    """Bytes that follow from a seed alone, in the order in which they are drawn.

    The reactor's thread and the database's draw at the same time: each from what is its own, so that with a seeded
    source of chance both draw the same in every run.

    :param seed: as unpredictable as the bytes are to be.
    """
    draws = count()

    def draw(size: int) -> bytes:
        return shake_256(seed + next(draws).to_bytes(8, "big")).digest(size)

    return draw
