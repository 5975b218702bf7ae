"""Somebody on the farm's machine who is no proxy, and wants into a game server."""

from __future__ import annotations

from typing import Any

from twisted.internet.protocol import ClientFactory, Protocol

from gameproxy.framing import FORMATS, Framer
from gameproxy.handshake import MAC_BYTES, NONCE_BYTES
from gameproxy.messages import OWN_FRAME_MAX, Admit, FrameType, decode_challenge
from gameproxy.simulation.reactor import SimReactor

PATIENCE = 10.0
"""Seconds after which it goes."""


def intrude(reactor: SimReactor, host: str, port: int, game: str, session: str) -> None:
    """Connect to a game server as a proxy does, and ask it to let a player in without knowing its key.

    :param reactor: of a process of its own, which ends with the connection.
    :param session: the id of a session that there is not.
    """
    factory = ClientFactory()
    factory.noisy = False
    factory.buildProtocol = lambda addr: _Intruder(reactor, game, session)  # type: ignore[method-assign]
    factory.clientConnectionFailed = lambda connector, reason: reactor.process.end()  # type: ignore[method-assign]
    reactor.connectTCP(host, port, factory)
    reactor.callLater(PATIENCE, reactor.process.end)


class _Intruder(Protocol):
    transport: Any

    def __init__(self, reactor: SimReactor, game: str, session: str) -> None:
        self._reactor = reactor
        self._game = game
        self._session = session
        self._framer = Framer(FORMATS["int32"], OWN_FRAME_MAX)

    def dataReceived(self, data: bytes) -> None:
        self._framer.feed(data)
        for body in self._framer.frames():
            if body[0] == FrameType.CHALLENGE:
                self._ask(body[1:])

    def connectionLost(self, reason: object = None) -> None:
        self._reactor.process.end()

    def _ask(self, payload: bytes) -> None:
        challenge = decode_challenge(payload)
        admit = Admit(
            session=self._session,
            player="intruder",
            address="10.0.0.1",
            game=self._game,
            server=challenge.server,
            nonce=challenge.nonce,
            proxy_nonce=bytes(NONCE_BYTES).hex(),
            properties="{}",
        )
        body = bytes([FrameType.ADMIT]) + bytes(MAC_BYTES) + admit.to_json()
        self.transport.write(FORMATS["int32"].encode(body))
