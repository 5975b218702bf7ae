"""How often limits were broken, or would have been."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

LIMITS: Final = (
    "connections_per_second",
    "sessions_per_address",
    "frames_per_second",
    "bytes_per_second",
    "idle_seconds",
)
"""The names of all limits."""


class LimitCounts:
    """Counts since the start, of limits that are not off, whether they are enforced or in dry_run.

    :param modes: by the names of limits, whether each is ``off``, ``dry_run`` or ``enforce``.
    :ivar modes: the same, of those that are not off.
    :ivar sessions: by name, the sessions and connections that were ended or turned away, or would have been; each once.
    :ivar units: by name, of what there was too much: connections, frames, bytes; for idle_seconds as ``sessions``.
    """

    def __init__(self, modes: Mapping[str, str] | Iterable[tuple[str, str]] = ()) -> None:
        self.modes: dict[str, str] = {}
        self.sessions: dict[str, int] = {}
        self.units: dict[str, int] = {}
        self.reconfigure(modes)

    def reconfigure(self, modes: Mapping[str, str] | Iterable[tuple[str, str]]) -> None:
        """Go on with other modes: a limit whose mode has changed is counted from 0."""
        before, self.modes = self.modes, {n: m for n, m in dict(modes).items() if m != "off"}
        for counts in (self.sessions, self.units):
            kept = {name: counts[name] for name in counts if before[name] == self.modes.get(name)}
            counts.clear()
            counts.update({name: kept.get(name, 0) for name in self.modes})

    def count(self, name: str, units: int = 1, *, is_first: bool = True) -> None:
        """There was too much of something.

        :param is_first: whether that is the first time for its session.
        """
        if name in self.modes:  # else it is a session's that began before it was turned off
            self.sessions[name] += is_first
            self.units[name] += units

    def numbers(self) -> dict[str, int]:
        """All of them, under names such as ``frames_per_second_dry_run_units``."""
        return {
            f"{name}_{mode}_{kind}": counts[name]
            for name, mode in self.modes.items()
            for kind, counts in (("sessions", self.sessions), ("units", self.units))
        }
