"""The life of a proxy, as operators see it, made of what a test says."""

from __future__ import annotations

from pathlib import Path

from twisted.internet.defer import Deferred, fail, succeed

from gameproxy.config import ConfigError
from gameproxy.config_changes import Change
from gameproxy.draining import Drain


class FakeLife:
    """Implements :class:`gameproxy.operators.Life`.

    :ivar outcome: of the next reload: what has changed, or why it could not be.
    :ivar reloads: how many there were.
    """

    def __init__(self) -> None:
        self.file: Path | None = None
        self.hindrance = ""
        self.drain: Drain | None = None
        self.outcome: list[Change] | ConfigError = []
        self.reloads = 0

    def reload(self) -> Deferred[list[Change]]:
        """As :attr:`outcome` says."""
        self.reloads += 1
        if isinstance(self.outcome, ConfigError):
            return fail(self.outcome)
        return succeed(self.outcome)
