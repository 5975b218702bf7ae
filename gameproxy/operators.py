"""What operators may ask of a running proxy, and what it answers (docs/farm, "The control socket"; docs/operating)."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, NoReturn, Protocol, TypeVar, cast

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from gameproxy import subjects
from gameproxy.admission import Admission
from gameproxy.config import ConfigError
from gameproxy.config_changes import Change
from gameproxy.draining import Drain
from gameproxy.farm import GameFarm, StoreError, StoreUnavailable, orders, reports
from gameproxy.metrics import by_relay, by_state
from gameproxy.reasons import CloseReason, Refusal
from gameproxy.subjects import Subject

T = TypeVar("T")
Document = dict[str, object]
TOLD_MAX: Final = 50
"""Most changes or problems of a reload that one answer tells; the log tells all."""
PROBLEM_MAX: Final = 300
"""Most characters of each of their parts."""


class Life(Protocol):
    """A running proxy, as its operators see it.

    :ivar file: what it reads its configuration from, if that is a file.
    :ivar hindrance: why it serves no new clients, in a word or two; empty when it does.
    :ivar drain: set while it is being stopped.
    """

    file: Path | None
    hindrance: str
    drain: Drain | None

    def reload(self) -> Deferred[list[Change]]:
        """Go on with what its file says now; fails with ConfigError."""


class Operators:
    """Answers them. What a method returns fires with a document; it fails with Refusal when that cannot be done, with
    :class:`~gameproxy.farm.orders.OrderFailed` when what was ordered makes no sense.

    :param sessions: those of this proxy.
    :param relay: what it says of its relays.
    :param life: the proxy.
    """

    def __init__(
        self,
        sessions: Admission,
        farm: GameFarm,
        relay: Callable[[], Mapping[str, str]],
        clock: IReactorTime,
        life: Life,
    ) -> None:
        self._sessions = sessions
        self._farm = farm
        self._relay = relay
        self._clock = clock
        self._life = life

    def answer(self, request: Mapping[str, object]) -> Deferred[Document]:
        """Answer ``{"ask": "status"}``, ``{"ask": "start", "game"}``, ``{"ask": "stop", "server"}`` or ``{"ask":
        "reload", "file"}``.

        :return: fires with the answer; fails with Refusal.
        :raises Refusal: it is none of these.
        """
        match request:
            case {"ask": "status"}:
                return succeed(self.own_status())
            case {"ask": "start", "game": str(game)}:
                return self.start(game)
            case {"ask": "stop", "server": str(server)}:
                stopped = self._farm.stop_server(server)
                return stopped.addCallbacks(lambda done: {"stopped": done}, _unavailable)
            case {"ask": "reload", "file": str(file)}:
                return self._reload_of(Path(file))
        raise Refusal(CloseReason.PROTOCOL_ERROR, "This proxy does not know such a request.")

    def own_status(self) -> Document:
        """What this proxy knows of itself."""
        return {
            "proxy": self._farm.proxy,
            "pid": os.getpid(),
            "state": self._life.hindrance or "serving",
            "drain": self._drain(),
            "sessions": {
                "total": len(self._sessions),
                "by_state": by_state(self._sessions),
                "by_relay": by_relay(self._sessions),
            },
            "relay": self._relay(),
            "limits": self._sessions.limits(),
        }

    def status(self) -> Deferred[Document]:
        """That, and how the farm stands."""
        farm = self._asked(self._farm.read(reports.farm_status))
        return farm.addCallback(lambda found: self.own_status() | found.document())

    def reload(self) -> Deferred[Document]:
        """Have the proxy go on with what its configuration file says now.

        :return: fires with ``reloaded``, whether it does; ``changes``, what is different; and ``problems``, why not.
        """
        return self._life.reload().addCallbacks(_reloaded, _not_reloaded)

    def _reload_of(self, file: Path) -> Deferred[Document]:
        own = self._life.file
        if own is None or not own.exists() or not file.exists() or not own.samefile(file):
            return succeed({"reloaded": None, "file": None if own is None else str(own)})
        return self.reload()

    def _drain(self) -> Document | None:
        drain = self._life.drain
        if drain is None:
            return None
        return {"since": drain.since, "ends_at": drain.ends_at, "sessions": len(self._sessions)}

    def servers(self, limit: int, offset: int) -> Deferred[Document]:
        """Game servers that are not closed, so many after the first ``offset``, and the farm's sums."""
        return self._asked(
            self._farm.read(
                lambda cursor: {
                    "servers": reports.server_rows(cursor, limit, offset),
                    "farm": reports.farm_stats(cursor),
                }
            )
        )

    def start(self, game: str) -> Deferred[Document]:
        """Start a game server."""
        return self._farm.start_server(game).addCallback(lambda server: {"server": server})

    def drain(self, server: str) -> Deferred[Document]:
        """Let nobody else onto a game server."""
        done = self._farm.write(lambda cursor: orders.order_drain(cursor, server))
        return self._asked(done).addCallback(lambda _: {"server": server, "state": "draining"})

    def stop(self, server: str) -> Deferred[Document]:
        """Ask a started game server to end, and make it after its grace."""
        return Deferred.fromCoroutine(self._stop(server))

    async def _stop(self, server: str) -> Document:
        await self._asked(self._farm.read(lambda cursor: orders.look_up_to_stop(cursor, server)))
        if not await self._asked(self._farm.stop_server(server)):
            raise orders.OrderFailed(f"{server}: has ended already", missing=True)
        return {"server": server, "state": "draining"}

    def bans(self, limit: int, offset: int) -> Deferred[Document]:
        """Bans that are not over, so many after the first ``offset``."""
        now = self._clock.seconds()
        found = self._farm.read(lambda cursor: reports.ban_rows(cursor, now, limit, offset))
        return self._asked(found).addCallback(lambda bans: {"bans": bans})

    def ban(
        self, subject: Subject, seconds: float | None, reason: str, actor: str
    ) -> Deferred[Document]:
        """Ban, for so long; ``None`` for ever."""
        now = self._clock.seconds()
        return self._asked(
            self._farm.write(
                lambda cursor: subjects.ban(cursor, subject, seconds, reason, actor, now)
            )
        )

    def unban(self, subject: Subject) -> Deferred[Document]:
        """Lift a ban."""
        lifted = self._asked(self._farm.write(lambda cursor: subjects.unban(cursor, subject)))
        return lifted.addCallback(_done, subject, "is not banned")

    def kick(self, subject: Subject) -> Deferred[Document]:
        """End all their sessions, at all proxies, within a second."""
        sessions = self._asked(self._farm.write(lambda cursor: subjects.kick(cursor, subject)))
        return sessions.addCallback(_done, subject, "has no session", "sessions")

    def _asked(self, result: Deferred[T]) -> Deferred[T]:
        return result.addErrback(_unavailable)


def _done(count: int, subject: Subject, trouble: str, name: str = "") -> Document:
    if not count:
        raise orders.OrderFailed(f"{subject.kind} {subject.name}: {trouble}", missing=True)
    done: Document = {"kind": subject.kind, "subject": subject.name}
    return done | {name: count} if name else done


def _reloaded(changes: list[Change]) -> Document:
    """As much of it as an answer has room for."""
    told = [{"place": one.place, "from": one.before, "to": one.after} for one in changes[:TOLD_MAX]]
    return {"reloaded": True, "changes": told, "problems": [], "left_out": len(changes[TOLD_MAX:])}


def _not_reloaded(failure: Failure) -> Document:
    failure.trap(ConfigError)
    problems = cast(ConfigError, failure.value).problems
    told = [
        {"place": place[:PROBLEM_MAX], "problem": problem[:PROBLEM_MAX]}
        for place, problem in problems[:TOLD_MAX]
    ]
    return {
        "reloaded": False,
        "changes": [],
        "problems": told,
        "left_out": len(problems[TOLD_MAX:]),
    }


def _unavailable(failure: Failure) -> NoReturn:
    failure.trap(StoreError, StoreUnavailable)
    raise Refusal(CloseReason.INTERNAL, f"The farm's database cannot be used: {failure.value}")
