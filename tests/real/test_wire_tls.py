"""A wire over TLS, with real sockets."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from contextlib import closing, suppress
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.ssl import KeyPair
from twisted.internet.task import Clock, deferLater
from twisted.protocols.tls import TLSMemoryBIOFactory

from gameproxy.wire import Wire
from tests.real.relay_peers import CLOSE, GAME, limited, reaches


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Twisted's of OpenSSL's
@limited
async def test_tls() -> None:
    """Over TLS, too, the last words arrive, what was taken is measured, and a peer that does not close is let go."""
    clock = Clock()
    made: Deferred[Wire] = Deferred()
    key = KeyPair.generate(size=2048)
    certificate = key.selfSignedCert(1, CN="localhost")
    factory = TLSMemoryBIOFactory(
        certificate.options(), False, Factory.forProtocol(lambda: Wire(clock, made.callback))
    )
    port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
    context = ssl.create_default_context(cadata=certificate.dumpPEM().decode())
    # Strict, as Python 3.13 is unless told otherwise, refuses Twisted's own certificates.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    client = context.wrap_bio(
        incoming := ssl.MemoryBIO(), outgoing := ssl.MemoryBIO(), False, "localhost"
    )
    raw = socket.create_connection(("127.0.0.1", port.getHost().port))
    raw.setblocking(False)

    async def until(step: Callable[[], Any]) -> Any:
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                if outgoing.pending:
                    raw.send(outgoing.read())
                await deferLater(reactor, 0.005)
                with suppress(BlockingIOError):
                    incoming.write(raw.recv(65536))

    with closing(raw):
        await until(client.do_handshake)
        raw.send(outgoing.read())
        wire = await made
        assert wire.secure
        taken = wire.acknowledged()
        wire.write(GAME)
        wire.end(CLOSE, stall_timeout=30.0)
        received = b""
        while len(received) < len(GAME + CLOSE):
            received += await until(lambda: client.read(65536))
        assert received == GAME + CLOSE
        await reaches(wire.acknowledged, taken + len(received))
        while not wire.gone.called and clock.seconds() < 6.0:
            clock.advance(0.25)
            await deferLater(reactor, 0.01)
        assert wire.gone.called
    await port.stopListening()
