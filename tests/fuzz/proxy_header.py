"""The beginning of a connection from a balancer: the header is the same in whatever pieces it comes, and who waits for
it keeps its accounts."""

from __future__ import annotations

import re
from ipaddress import IPv6Address, ip_address, ip_network

from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock

from gameproxy.interfaces import Peer
from gameproxy.proxied import HeaderCounts, ProxiedFactory
from gameproxy.proxy_header import (
    V2_MAX,
    BadHeader,
    Header,
    HeaderReader,
    Passed,
    encode_v2,
    read_header,
)
from tests.fake_transport import FakeTransport
from tests.fuzz.choices import Choices, pieces

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
BALANCER = IPv4Address("TCP", "10.0.0.1", 40000)
TIMEOUT = 5.0


class Room:
    """Room for connections: how much is taken."""

    taken = 0

    def expect(self) -> bool:
        self.taken += 1
        return True

    def expect_no_more(self) -> None:
        self.taken -= 1


class Client(Protocol):
    """What is behind a header."""

    def __init__(self) -> None:
        self.received = b""

    def dataReceived(self, data: bytes) -> None:
        self.received += data


class Transport(FakeTransport):
    """One whose protocol can be changed, as those of Twisted."""

    @property
    def protocol(self) -> object:
        return self._protocol

    @protocol.setter
    def protocol(self, protocol: Client) -> None:
        self._protocol = protocol


def target(data: bytes) -> None:
    """Pieces, how it begins, and then the stream."""
    choices = Choices(data)
    start = choices.one_of(
        (b"", SIGNATURE, SIGNATURE + b"\x21\x11", b"PROXY TCP4 ", b"PROXY TCP6 ")
    )
    sizes = choices.sizes()
    stream = start + choices.rest()
    whole = _read(stream)
    _in_pieces(stream, sizes, whole)
    if isinstance(whole, Header):
        assert stream.endswith(whole.rest)
        begin = stream[: len(stream) - len(whole.rest)]
        assert len(begin) <= V2_MAX
        assert _read(begin) == Header(whole.passed, b"")
        assert _read(begin[:-1]) is None, "a byte less was enough"
        if whole.passed is not None:
            _is_sound(whole.passed)
    _at_a_port(stream, sizes, whole)


def _read(data: bytes) -> Header | str | None:
    try:
        return read_header(data)
    except BadHeader as error:
        assert str(error).isascii() and str(error).isprintable()
        return "bad"


def _in_pieces(stream: bytes, sizes: list[int], whole: Header | str | None) -> None:
    """The reader ends as soon as it can, and as with all at once."""
    reader, fed = HeaderReader(), 0
    for piece in pieces(stream, sizes):
        fed += len(piece)
        try:
            header = reader.feed(piece)
        except BadHeader:
            assert whole == "bad"
            return
        if header is not None:
            assert isinstance(whole, Header)
            assert header.passed == whole.passed
            assert header.rest + stream[fed:] == whole.rest
            return
        assert fed < V2_MAX, "more is kept than may be"
    assert whole is None


def _is_sound(passed: Passed) -> None:
    """Addresses are written in the one way that bans and limits know them in; ports are ports."""
    for host, port in ((passed.host, passed.port), (passed.local_host, passed.local_port)):
        ip = ip_address(host)
        assert str(ip) == host and 0 <= port <= 65535
        assert not isinstance(ip, IPv6Address) or (ip.ipv4_mapped is None and not ip.scope_id)
    peer = Peer(passed.host, passed.port, False, passed.local_host, passed.local_port)
    again = read_header(encode_v2(peer, "0" * 32, "TLSv1.3"))
    assert again is not None and again.rest == b""
    same_family = ip_address(passed.host).version == ip_address(passed.local_host).version
    assert again.passed == (passed if same_family else None)


def _at_a_port(stream: bytes, sizes: list[int], whole: Header | str | None) -> None:
    """At a port of headers a connection is counted once, and its client has exactly what is behind the header."""
    clients: list[tuple[IAddress | None, Client]] = []

    class Clients(Factory):
        def buildProtocol(self, addr: IAddress | None) -> Client:
            clients.append((addr, Client()))
            return clients[-1][1]

    clock, room, counts = Clock(), Room(), HeaderCounts()
    trusted = [ip_network("10.0.0.0/8")]
    factory = ProxiedFactory(clock, trusted, TIMEOUT, room, counts, Clients())
    factory.log = _Silent()  # type: ignore[assignment]  # hundreds of thousands of lines are of no use
    transport = Transport(peer=BALANCER)
    transport.connect(factory.buildProtocol(BALANCER))
    for piece in pieces(stream, sizes):
        transport.deliver(piece)
    header = whole if isinstance(whole, Header) else None
    is_own = header is not None and (
        header.passed is None or (header.passed.host, header.passed.port) == ("10.0.0.1", 40000)
    )
    is_nobody = header is not None and header.passed is not None and _nobody(header.passed.host)
    if whole == "bad" or is_nobody:
        assert (counts, transport.how) == (HeaderCounts(bad=1), "aborted")
    elif header is None:
        assert (counts, transport.how) == (HeaderCounts(), None)
    elif not is_own:
        assert counts == HeaderCounts(passed=1)
    elif header.rest:
        assert counts == HeaderCounts(own=1)
    else:
        assert counts == HeaderCounts()
    if header is not None and not is_nobody and (header.rest or not is_own):
        ((address, client),) = clients
        assert client.received == header.rest
        assert address == (header.passed or BALANCER)
    else:
        assert clients == []
    clock.advance(TIMEOUT)
    assert transport.how == (None if clients else "aborted")
    assert sum(vars(counts).values()) == 1
    assert room.taken == 0 and not clock.getDelayedCalls()


def _nobody(host: str) -> bool:
    return host in ("::", "0.0.0.0", "255.255.255.255") or bool(
        re.match(r"(22[4-9]|23\d)\.|ff[0-9a-f]{2}:", host)
    )


class _Silent:
    def warn(self, *_: object, **__: object) -> None: ...
