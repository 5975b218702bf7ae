"""How many of the demo's bots are to play: they come, and ebb and flow, so that game servers start and end."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from gameproxy.arena.bots import Crowd

PERIOD: Final = 60.0
"""Seconds from one high tide to the next."""
LOWEST: Final = 0.25
"""The part of the bots that plays at low tide."""
CREST: Final = 1.2
"""How high it would go, if there were so many: for a while around high tide all are there."""
STEPS: Final = 10
"""In so many steps all of them can come or go."""


def ebb_and_flow(seconds: float) -> float:
    """The part of the bots that is to play.

    :param seconds: since high tide.
    """
    level = (1 + math.cos(2 * math.pi * seconds / PERIOD)) / 2
    return min(LOWEST + (CREST - LOWEST) * level, 1.0)


class Tide:
    """Lets bots come and go.

    :param most: how many there are at high tide.
    :param part: gives the part of them that is to play so many seconds after the start.
    """

    def __init__(
        self, crowd: Crowd, most: int, part: Callable[[float], float] = ebb_and_flow
    ) -> None:
        self.most = most
        self._crowd = crowd
        self._part = part

    def move(self, seconds: float) -> None:
        """Let some come or go, if there should be more or fewer of them.

        :param seconds: since the start.
        """
        missing = round(self.most * self._part(seconds)) - len(self._crowd)
        step = math.ceil(max(self.most, len(self._crowd)) / STEPS)
        if missing > 0:
            self._crowd.add(min(missing, step))
        elif missing < 0:
            self._crowd.remove(min(-missing, step))
