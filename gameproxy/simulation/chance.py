"""Streams of chance: each thing that draws has its own, so that taking one away does not change what others draw."""

from __future__ import annotations

from hashlib import blake2b
from random import Random

from gameproxy.interfaces import Entropy


def stream(seed: int, *name: object) -> Random:
    """A stream of chance with a name.

    :param seed: of the run.
    :param name: integers and strings that name who draws.
    :return: draw from it with integers only (``getrandbits``, ``randrange``): these are the same on all Pythons.
    """
    text = "\0".join(str(part) for part in (seed, *name))
    return Random(int.from_bytes(blake2b(text.encode(), digest_size=16).digest(), "big"))  # noqa: S311 - not for secrets


def entropy(seed: int, *name: object) -> Entropy:
    """A stream of random bytes with a name."""
    return stream(seed, *name).randbytes


def normal(chance: Random, mean: float, deviation: float) -> int:
    """A whole number, 0 or more, distributed normally: the sum of twelve even draws, which is the same everywhere."""
    total = sum(chance.getrandbits(32) for _ in range(12)) - 6 * 2**32
    return max(0, round(mean + deviation * total / 2**32))
