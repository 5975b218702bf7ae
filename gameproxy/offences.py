"""Who breaks limits again and again, and for how long he is banned then."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from twisted.internet.interfaces import IReactorTime

from gameproxy.config import LimitsConfig
from gameproxy.steady_time import SteadyTime

TABLE_SIZE: Final = 4096
"""Most offenders that are remembered; beyond it the one whose last offence was longest ago is forgotten."""


@dataclass(frozen=True, slots=True)
class Sentence:
    """A ban that is due.

    :param kind: ``player`` or ``address``.
    :param seconds: for how long.
    """

    kind: str
    subject: str
    seconds: float


@dataclass(slots=True)
class _Offender:
    seconds: float  # of the next ban
    offences: int = 0  # since the last one
    remembered_until: float = 0.0


class Offences:
    """Counts sessions that were ended because their client broke a limit.

    :param section: ``ban_after`` of them ban for ``ban_for`` seconds, then for ``ban_factor`` times as long each time,
        up to ``ban_most``. Who does nothing for ``ban_most`` seconds, after the ban, begins anew.
    """

    def __init__(self, section: LimitsConfig, clock: IReactorTime) -> None:
        self._section = section
        self._time = SteadyTime(clock)
        self._offenders: dict[tuple[str, str], _Offender] = {}

    def reconfigure(self, section: LimitsConfig) -> None:
        """Go on with other sentences; what was committed before counts still."""
        self._section = section

    def __len__(self) -> int:
        return len(self._offenders)

    def committed(self, player: str, address: str) -> Sentence | None:
        """A session was ended for it.

        :param address: banned in place of a guest, whose name others may have.
        """
        section = self._section
        key = ("address", address) if player.startswith("guest:") else ("player", player)
        if not section.ban_after or not key[1]:
            return None
        now = self._time.seconds()
        offender = self._offenders.pop(key, None)
        if offender is None or offender.remembered_until < now:
            offender = _Offender(section.ban_for)
        while len(self._offenders) >= TABLE_SIZE:
            del self._offenders[next(iter(self._offenders))]
        self._offenders[key] = offender
        offender.offences += 1
        offender.remembered_until = now + section.ban_most
        if offender.offences < section.ban_after:
            return None
        seconds = min(offender.seconds, section.ban_most)
        offender.offences = 0
        offender.remembered_until += seconds
        offender.seconds = min(seconds * section.ban_factor, section.ban_most)
        return Sentence(*key, seconds)
