"""A client on Twisted, for tests of proxies: it does nothing by itself, and what happens to it can be waited for."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from gameproxy.client import Client, NotWelcomed, Refused, Session
from gameproxy.loops.on_twisted import TwistedLoop
from gameproxy.messages import Auth, Welcome


class Visitor:
    """A client that connects at once.

    :ivar in_game: fires when it is in.
    :ivar over: fires with the code of its end.
    :ivar happened: in order: ``"welcome"``, each frame that came, and the code of its end.
    """

    session: Session

    def __init__(self, reactor: Any, host: str, port: int, auth: Auth) -> None:
        self.in_game: Deferred[Welcome] = Deferred()
        self.over: Deferred[str] = Deferred()
        self.happened: list[Any] = []
        self._expected: Deferred[bytes] | None = None
        Deferred.fromCoroutine(self._live(Client(TwistedLoop(reactor), host, port, auth)))

    async def _live(self, client: Client) -> None:
        try:
            session = self.session = await client.connect()
        except Refused as refusal:
            self._end(refusal.code)
        except NotWelcomed:
            self._end("server_lost")
        else:
            self.happened.append("welcome")
            session.on_frame = self._received
            self.in_game.callback(session.welcome)
            self._end((await session.ended).code)

    def send(self, body: bytes) -> None:
        """Send a frame."""
        self.session.send(body)

    def leave(self) -> None:
        """Leave in good order."""
        self.session.leave()

    def exchange(self, body: bytes) -> Deferred[bytes]:
        """Send a frame; fires with the next that comes."""
        self._expected = Deferred()
        self.send(body)
        return self._expected

    def _received(self, body: bytes) -> None:
        self.happened.append(body)
        expected, self._expected = self._expected, None
        if expected is not None:
            expected.callback(body)

    def _end(self, code: str) -> None:
        self.happened.append(code)
        self.over.callback(code)
