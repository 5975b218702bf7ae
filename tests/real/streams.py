"""Clients and game servers that a test moves by hand, frame by frame.

Everything here is written from the protocol's description alone and shares no code with the proxy: frames, JSON, keys
and MACs are made anew.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer

LONGEST_WAIT = 30.0
"""Seconds after which a test that still waits for an event has failed."""
PROMPT = 10.0
"""Seconds within which happens, also on a machine that has much else to do, what is to happen at once."""
SECRET = bytes(range(32))
AUTH, WELCOME, SETTINGS, STATUS, ERROR, CLOSE = range(0x01, 0x07)
CHALLENGE, ADMIT, ADMITTED, REFUSED, KICK = range(0x07, 0x0C)
ADMIT_KEYS = {"session", "player", "address", "game", "server", "nonce", "proxy_nonce"}


class StreamEnded(Exception):
    """The other side ended the stream, or the connection broke."""


def server_key(server: str) -> bytes:
    """HKDF-SHA256 (RFC 5869) of the secret: no salt, 32 bytes, one round."""
    extracted = hmac.digest(bytes(32), SECRET, hashlib.sha256)
    return hmac.digest(
        extracted, b"gameproxy/1 server " + server.encode() + b"\x01", hashlib.sha256
    )


def mac(key: bytes, label: str, text: bytes) -> bytes:
    """The MAC of ADMIT (label ``admit``) or ADMITTED (``admitted``)."""
    return hmac.digest(key, b"gameproxy/1 " + label.encode() + b"\0" + text, hashlib.sha256)


def message(type_: int, **fields: object) -> bytes:
    """The body of a frame of the proxy's own."""
    return bytes([type_]) + json.dumps(fields).encode()


def auth(**fields: object) -> bytes:
    """The body of AUTH, of a guest unless the fields say otherwise; ``None`` takes a field away."""
    fields = {"protocol": 1, "mechanism": "guest", "name": "mallory", **fields}
    return message(AUTH, **{name: value for name, value in fields.items() if value is not None})


# Frame formats, written anew. Each gives (encode, decode); decode gives (size of the header, of the body) or None.

Decoder = Callable[[bytearray], tuple[int, int] | None]
Encoder = Callable[[bytes], bytes]


def _int32(data: bytearray) -> tuple[int, int] | None:
    return (4, struct.unpack(">I", data[:4])[0]) if len(data) >= 4 else None


def _inclusive(data: bytearray) -> tuple[int, int] | None:
    return (2, struct.unpack("<H", data[:2])[0] - 2) if len(data) >= 2 else None


def _offset(data: bytearray) -> tuple[int, int] | None:
    return (4, struct.unpack(">xxH", data[:4])[0]) if len(data) >= 4 else None


def _varint(data: bytearray) -> tuple[int, int] | None:
    value = 0
    for index, byte in enumerate(data[:3]):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return index + 1, value
    return None


def _encode_varint(body: bytes) -> bytes:
    size, groups = len(body), b""
    while size > 0x7F:
        groups += bytes([size & 0x7F | 0x80])
        size >>= 7
    return groups + bytes([size]) + body


FORMATS: Mapping[str, tuple[Encoder, Decoder]] = {
    "int32": (lambda body: struct.pack(">I", len(body)) + body, _int32),
    "varint": (_encode_varint, _varint),
    "vim-arcade": (lambda body: struct.pack(">HH", 0, len(body)) + body, _offset),
    "int16-le-inclusive": (lambda body: struct.pack("<H", len(body) + 2) + body, _inclusive),
}


def frame(body: bytes) -> bytes:
    """A frame in the default format."""
    return FORMATS["int32"][0](body)


class Stream(Protocol):
    """One end of a connection: what came is kept, and can be waited for.

    :ivar received: what came and was not yet taken.
    :ivar over: whether nothing comes any more.
    :ivar lost: whether the connection exists no more.
    """

    transport: Any

    def __init__(self, format: str = "int32") -> None:
        self._encode, self._decode = FORMATS[format]
        self.received = bytearray()
        self.over = False
        self.lost = False
        self._changed: list[Deferred[None]] = []

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self._tell()

    def connectionLost(self, reason: Failure | None = None) -> None:
        self.over = self.lost = True
        self._tell()

    def _tell(self) -> None:
        waiting, self._changed = self._changed, []
        for one in waiting:
            one.callback(None)

    async def change(self) -> None:
        """Until something comes or ends."""
        waiting: Deferred[None] = Deferred()
        self._changed.append(waiting)
        await waiting.addTimeout(LONGEST_WAIT, reactor)

    async def body(self) -> bytes:
        """The next frame's body."""
        while True:
            header = self._decode(self.received)
            if header is not None and len(self.received) >= sum(header):
                start, size = header
                found = bytes(self.received[start : start + size])
                del self.received[: start + size]
                return found
            if self.over:
                raise StreamEnded
            await self.change()

    async def message(self, type_: int) -> dict[str, Any]:
        """The JSON of the next frame, which must be of this type."""
        body = await self.body()
        assert body[0] == type_, body
        return dict(json.loads(body[1:]))

    async def rest(self) -> list[bytes]:
        """The bodies of all frames until the end of the stream; what is no whole frame stays in ``received``."""
        found = []
        try:
            while True:
                found.append(await self.body())
        except StreamEnded:
            return found

    async def until_close(self) -> list[bytes]:
        """As :meth:`rest`, for a game server as it should be: it ends the connection when CLOSE has come."""
        found = []
        try:
            while True:
                found.append(await self.body())
                if found[-1][:1] == bytes([CLOSE]):
                    self.close()
        except StreamEnded:
            return found

    def send(self, body: bytes) -> None:
        """Send a frame."""
        self.transport.write(self._encode(body))

    def send_raw(self, data: bytes) -> None:
        """Send bytes."""
        self.transport.write(data)

    def close(self) -> None:
        """End the connection in order."""
        self.transport.loseConnection()

    def reset(self) -> None:
        """Break the connection."""
        self.transport.abortConnection()

    async def broken(self) -> None:
        """Until the other side has broken the connection: for who does not read and so would not notice.

        (``tcpi_state`` of Linux's ``struct tcp_info``, linux/tcp.h; 7 is TCP_CLOSE.)
        """
        handle = self.transport.getHandle()
        await until(
            lambda: (
                []
                if handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) == b"\x07"
                else ["not broken"]
            )
        )
        self.reset()

    def stop_reading(self) -> None:
        """Take nothing any more."""
        self.transport.pauseProducing()

    async def echo(self, body: bytes) -> None:
        """Send a frame to a game server that echoes it, and see it come back."""
        self.send(body)
        assert await self.body() == body


@implementer(IHalfCloseableProtocol)
class StubbornStream(Stream):
    """One that does not close its own side when the other does."""

    def readConnectionLost(self) -> None:
        self.over = True
        self._tell()

    def writeConnectionLost(self) -> None:
        pass


@dataclass
class GameServer:
    """A game server that follows a script.

    :ivar streams: its connections from the proxy, also those that are over.
    :ivar admits: the JSON of every ADMIT it got.
    :ivar kind: what its connections are.
    :ivar got: for scripts: the frames that came after its own.
    :ivar addresses: those that clients may come from.
    """

    id: str
    script: Script
    format: str = "int32"
    streams: list[Stream] = field(default_factory=list)
    admits: list[dict[str, Any]] = field(default_factory=list)
    faults: list[Failure] = field(default_factory=list)
    port: Any = None
    kind: type[Stream] = Stream
    got: list[bytes] = field(default_factory=list)
    addresses: list[str] = field(default_factory=lambda: ["127.0.0.1"])

    @property
    def key(self) -> bytes:
        return server_key(self.id)

    async def listen(self, tls: Any = None) -> None:
        """Accept connections.

        :param tls: what TLS they are to have: options of :mod:`twisted.internet.ssl`.
        """
        factory = Factory.forProtocol(Stream)
        factory.noisy = False
        factory.buildProtocol = self._accept  # type: ignore[method-assign]  # all that a factory does here
        if tls is not None:
            factory = TLSMemoryBIOFactory(tls, False, factory)
        self.port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)

    def _accept(self, address: object) -> Stream:
        game_server = self

        class Accepted(self.kind):  # type: ignore[name-defined]  # a class is made of it
            def connectionMade(self) -> None:
                super().connectionMade()
                done = Deferred.fromCoroutine(game_server.script(game_server, self))
                done.addErrback(lambda failure: failure.trap(StreamEnded) and None)
                done.addErrback(game_server.faults.append)

        stream = Accepted(self.format)
        self.streams.append(stream)
        return stream

    def challenge(self, **changes: object) -> bytes:
        """The body of CHALLENGE."""
        fields = {"protocol": 1, "server": self.id, "nonce": "0123456789abcdef" * 2, **changes}
        return message(
            CHALLENGE, **{name: value for name, value in fields.items() if value is not None}
        )

    async def take_admit(self, stream: Stream) -> dict[str, Any]:
        """Send CHALLENGE, and take an ADMIT whose MAC is right."""
        stream.send(self.challenge())
        body = await stream.body()
        assert body[0] == ADMIT
        assert hmac.compare_digest(body[1:33], mac(self.key, "admit", body[33:]))
        admit = dict(json.loads(body[33:]))
        assert admit["nonce"] == "0123456789abcdef" * 2
        assert admit["server"] == self.id
        assert set(admit) == ADMIT_KEYS | {"properties"}
        assert re.fullmatch("[0-9a-f]{32}", admit["proxy_nonce"])
        assert admit["proxy_nonce"] not in [before["proxy_nonce"] for before in self.admits]
        assert admit["address"] in self.addresses
        self.admits.append(admit)
        return admit

    def admitted(
        self, admit: Mapping[str, Any], key: bytes | None = None, **changes: object
    ) -> bytes:
        """The body of ADMITTED for an ADMIT."""
        fields = {"session": admit["session"], "proxy_nonce": admit["proxy_nonce"], **changes}
        text = json.dumps(fields).encode()
        return bytes([ADMITTED]) + mac(key or self.key, "admitted", text) + text

    async def admit(self, stream: Stream) -> dict[str, Any]:
        """The whole handshake as it should be."""
        admit = await self.take_admit(stream)
        stream.send(self.admitted(admit))
        return admit


Script = Callable[[GameServer, Stream], Awaitable[None]]


async def echo(server: GameServer, stream: Stream) -> None:
    """A game server as it should be: what comes goes back; after CLOSE it ends."""
    await server.admit(stream)
    while True:
        body = await stream.body()
        if body[:1] == bytes([CLOSE]):
            stream.close()
            return
        stream.send(body)


async def until(what: Callable[[], list[str]], within: float = PROMPT) -> None:
    """Until nothing is left of a list of complaints."""
    give_up = reactor.seconds() + within
    while complaints := what():
        assert reactor.seconds() < give_up, complaints
        await pause(0.005)


async def pause(seconds: float) -> None:
    """Let the proxy go on for so long. Only for what is itself a matter of time, such as bytes sent slowly."""
    passed: Deferred[None] = Deferred()
    reactor.callLater(seconds, passed.callback, None)
    await passed


@contextmanager
def promptly(least: float = 0.0) -> Iterator[None]:
    """See that what is done takes no less than so many seconds, and no more than is put down to a machine that has
    much else to do."""
    before = reactor.seconds()
    yield
    assert least <= reactor.seconds() - before < PROMPT
