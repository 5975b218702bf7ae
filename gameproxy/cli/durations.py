"""Times as people type them."""

from __future__ import annotations

import argparse
import math
from typing import Final

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds(text: str) -> float:
    """``90``, ``90s``, ``15m``, ``2h`` or ``1d``, in seconds: an option's type.

    :raises argparse.ArgumentTypeError: it is not such a time, or not more than 0.
    """
    number, unit = (text[:-1], text[-1]) if text[-1:] in _UNITS else (text, "s")
    try:
        found = float(number) * _UNITS[unit]
    except ValueError:
        found = 0.0
    if not (math.isfinite(found) and found > 0):
        raise argparse.ArgumentTypeError(
            "must be a number of seconds, or one with a unit (30m, 12h, 7d), and more than 0"
        )
    return found
