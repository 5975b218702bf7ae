"""What a game server does at its time, and what takes its time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from math import isfinite
from typing import Any

from gameproxy.loops import Loop, Timer


async def outcome(call: Callable[..., object], *arguments: object) -> Any:
    """Call something that may be asynchronous, and wait for what comes of it."""
    result = call(*arguments)
    return await result if isinstance(result, Awaitable) else result


class Journal:
    """The log of a game server: Twisted's on Twisted, that of :mod:`logging` on asyncio."""

    def __init__(self, loop: Loop) -> None:
        self._txaio = loop.txaio
        log = loop.make_logger()
        self.info, self.warn, self.error = log.info, log.warn, log.error

    def failure(self, what: str) -> None:
        """Log the exception that is being handled."""
        trace = self._txaio.failure_format_traceback(self._txaio.create_failure())
        self.error("{what}\n{trace}", what=what, trace=trace)


class Timetable:
    """Calls to come, and calls under way. What fails is logged, and nothing else comes of it."""

    def __init__(self, loop: Loop, journal: Journal) -> None:
        self.loop = loop
        self.journal = journal
        self._to_come: dict[Appointment, None] = {}
        self._under_way: list[Any] = []

    def start(self, call: Callable[[], object]) -> None:
        """Call something, which may be asynchronous."""

        async def errand() -> None:
            try:
                await outcome(call)
            except Exception:
                self.journal.failure("What the game server did has failed.")

        txaio = self.loop.txaio
        running = txaio.as_future(errand)
        if not txaio.is_called(running):
            self._under_way.append(running)  # asyncio itself does not keep it
            txaio.add_callbacks(running, lambda _: self._under_way.remove(running), None)

    def call_later(self, seconds: float, call: Callable[[], object]) -> Appointment:
        """Call something once."""
        if not (isfinite(seconds) and seconds >= 0):
            raise ValueError("seconds must be 0 or more")
        return self._add(Appointment(self, seconds, call, repeats=False))

    def every(self, seconds: float, call: Callable[[], object]) -> Appointment:
        """Call something again and again."""
        if not (isfinite(seconds) and seconds > 0):
            raise ValueError("seconds must be more than 0")
        return self._add(Appointment(self, seconds, call, repeats=True))

    def clear(self) -> None:
        """Nothing of what is to come comes any more; what is under way goes on."""
        for appointment in list(self._to_come):
            appointment.cancel()

    def forget(self, appointment: Appointment) -> None:
        """It does not come, or not again."""
        self._to_come.pop(appointment, None)

    def _add(self, appointment: Appointment) -> Appointment:
        self._to_come[appointment] = None
        return appointment


class Appointment:
    """A call that is to come, once or again and again.

    Those that repeat never overlap. One that is late is made up for at once, more of them are left out.
    """

    def __init__(
        self, timetable: Timetable, seconds: float, call: Callable[[], object], *, repeats: bool
    ) -> None:
        self._timetable = timetable
        self._seconds = seconds
        self._call = call
        self._repeats = repeats
        self._has_failed = False
        self._cancelled = False
        self._due = timetable.loop.seconds() + seconds
        self._timer: Timer | None = timetable.loop.call_later(seconds, self._come)

    def cancel(self) -> None:
        """It is not to come any more. Doing it twice changes nothing."""
        self._cancelled = True
        self._timetable.forget(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _come(self) -> None:
        self._timer = None
        if not self._repeats:
            self._timetable.forget(self)
        self._timetable.start(self._work)

    async def _work(self) -> None:
        try:
            await outcome(self._call)
        except Exception:
            # One line tells it; a thousand more, from each turn that fails, tell nothing else.
            if not self._has_failed:
                self._timetable.journal.failure("A call of the game's has failed.")
            self._has_failed = True
        else:
            self._has_failed = False
        if self._repeats and not self._cancelled:
            self._again()

    def _again(self) -> None:
        loop = self._timetable.loop
        now = loop.seconds()
        # The clock may have been set meanwhile, forwards or backwards.
        self._due = min(max(self._due + self._seconds, now), now + self._seconds)
        self._timer = loop.call_later(self._due - now, self._come)
