"""What the log says of sessions: a line for the end of each that has relayed, and few of those that came no further."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from gameproxy.escaping import printable
from gameproxy.interfaces import SessionRecord
from gameproxy.sparing_log import SparingLog


class SessionLog:
    """Logs the ends of sessions.

    Whoever has played has a line, whatever else happens. Who never got so far, as a port scanner, may come ten thousand
    times a second: of these there is a line a second for each close reason, with how many were left out.
    """

    log = Logger()

    def __init__(self, clock: IReactorTime) -> None:
        self._sparing = SparingLog(self.log, clock)

    def ended(self, record: SessionRecord) -> None:
        """A session is over."""
        traffic = record.traffic
        values: dict[str, object] = {
            "event": "session_end",
            "session": record.session,
            "player": record.player,
            "game": record.game,
            "server": record.server,
            "address": record.peer.address,
            "reason": record.reason.value,
            "detail": printable(record.detail),
            "duration": round(record.ended_at - record.started_at, 3),
            "client_frames": traffic.client_frames,
            "client_bytes": traffic.client_bytes,
            "server_frames": traffic.server_frames,
            "server_bytes": traffic.server_bytes,
            "why": f" {record.detail!r}" if record.detail else "",
        }
        format = (
            "Session {session} from {address} ended: {reason}"
            " (player {player!r}, game server {server!r}, {duration:.3f} s){why}"
        )
        if record.relayed_at is not None:
            self.log.info(format, **values)
        else:
            self._sparing.emit(f"ended {record.reason}", LogLevel.info, format, **values)

    def turned_away(self) -> None:
        """A connection was closed without a word."""
        self._sparing.emit(
            "turned away",
            LogLevel.warn,
            "A connection was closed unheard: there is room neither for sessions nor to say so.",
            event="turned_away",
        )

    def tell(self, program: Callable[[SessionRecord], None], record: SessionRecord) -> None:
        """Tell a program's own function, too; what it raises is logged, and changes nothing."""
        try:
            program(record)
        except Exception:
            self._sparing.emit(
                "on_session_end",
                LogLevel.critical,
                "on_session_end raised for session {session}",
                event="on_session_end",
                session=record.session,
                log_failure=Failure(),
            )

    def flush(self) -> None:
        """Log what is kept back."""
        self._sparing.flush()
