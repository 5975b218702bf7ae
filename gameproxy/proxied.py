"""Connections that balancers pass on: who may do so, and the header with which each must begin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any, Final
from typing import Protocol as Interface

from twisted.internet.interfaces import IAddress, IDelayedCall, IProtocolFactory, IReactorTime
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.logger import Logger
from twisted.python.failure import Failure

from gameproxy.proxy_header import BadHeader, Header, HeaderReader, Passed
from gameproxy.rare_lines import RareLines

_TOLD_INTERVAL: Final = 60.0
"""Seconds between two lines in the log about the same kind of fault."""
_BROADCAST: Final = "255.255.255.255"


@dataclass
class HeaderCounts:
    """What has come to ports that believe PROXY headers.

    :ivar passed: connections with a header that says where they come from.
    :ivar own: those with one that says they come from its sender, and on which something was said.
    :ivar unused: those of that kind on which nothing was said: balancers that see whether the port is open.
    :ivar untrusted: those of others than may send headers.
    :ivar bad: those that did not begin with a header.
    :ivar late: those whose header was not there in time.
    :ivar unfinished: those that ended before their header did.
    """

    passed: int = 0
    own: int = 0
    unused: int = 0
    untrusted: int = 0
    bad: int = 0
    late: int = 0
    unfinished: int = 0


class Expected(Interface):
    """Bounds the connections that are no sessions yet."""

    def expect(self) -> bool:
        """Whether there is room for one more; if so, it is taken."""
        ...

    def expect_no_more(self) -> None:
        """One of them became a session, or is gone."""
        ...


class ProxiedFactory(ServerFactory):
    """Accepts connections of which each begins with a PROXY header, and only from those who may send one.

    Whatever is wrong closes the connection without a word. The other factory is asked for a protocol when the header is
    there, with the :class:`~gameproxy.proxy_header.Passed` of it or, if that says none, with the connection's own
    address; the protocol then has the connection to itself.

    :param trusted: the networks of who may send headers.
    :param timeout: seconds from the connection to the end of its header; if that passes nobody on, to the first byte
        behind it.
    """

    noisy = False
    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        trusted: Sequence[IPv4Network | IPv6Network],
        timeout: float,
        room: Expected,
        counts: HeaderCounts,
        wrapped: IProtocolFactory,
    ) -> None:
        self.clock = clock
        self.timeout = timeout
        self.counts = counts
        self.wrapped = wrapped
        self._trusted = trusted
        self._room = room
        self._rare = RareLines(clock, _TOLD_INTERVAL)
        self._waiting: dict[_Expecting, None] = {}

    def reconfigure(
        self,
        trusted: Sequence[IPv4Network | IPv6Network],
        timeout: float,
        wrapped: IProtocolFactory,
    ) -> None:
        """Go on with others; connections whose header is awaited have the factory that is there when it comes."""
        self._trusted = trusted
        self.timeout = timeout
        self.wrapped = wrapped

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        host = getattr(addr, "host", "")
        if not self._trusts(host):
            self.counts.untrusted += 1
            self.complain("untrusted", "it is not in proxy_protocol.trusted", host)
            return None
        if not self._room.expect():
            return None
        expecting = _Expecting(self, host)
        self._waiting[expecting] = None
        return expecting

    def stopFactory(self) -> None:
        """Nobody listens any more: close what is no session yet."""
        for expecting in list(self._waiting):
            expecting.close()

    def complain(self, kind: str, why: str, host: str) -> None:
        """Log what somebody did wrong, seldom."""
        unsaid = self._rare.due(kind)
        if unsaid is not None:
            self.log.warn(
                "Closed a connection from {host!r} to a port of PROXY headers: {why} ({unsaid} like it before).",
                host=host,
                why=why,
                unsaid=unsaid,
            )

    def forget(self, expecting: _Expecting) -> None:
        """It waits for a header no more."""
        if expecting in self._waiting:
            del self._waiting[expecting]
            self._room.expect_no_more()

    def _trusts(self, host: str) -> bool:
        try:
            address = _address(host)
        except ValueError:  # a UNIX socket
            return False
        return any(address in network for network in self._trusted)


def _address(host: str) -> IPv4Address | IPv6Address:
    """The address of a host as the system writes it.

    :raises ValueError: it is none.
    """
    address = ip_address(host.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _is_nobody(host: str) -> bool:
    """Whether nobody can come from an address: then neither bans nor limits would be of anybody."""
    address = ip_address(host)
    return address.is_unspecified or address.is_multicast or host == _BROADCAST


class _Expecting(Protocol):
    """A connection whose header is not there yet."""

    def __init__(self, accepting: ProxiedFactory, host: str) -> None:
        self._accepting = accepting
        self._host = host
        self._reader = HeaderReader()
        self._own: Header | None = None
        """The header, if it passes nobody on: who sends it may say nothing at all."""
        self._deadline: IDelayedCall | None = None

    def connectionMade(self) -> None:
        self._deadline = self._accepting.clock.callLater(self._accepting.timeout, self._late)

    def dataReceived(self, data: bytes) -> None:
        if self._deadline is None:
            return  # closed
        counts = self._accepting.counts
        if self._own is not None:
            counts.own += 1
            self._hand_over(self._own, data)
            return
        try:
            header = self._reader.feed(data)
        except BadHeader as error:
            counts.bad += 1
            self._refuse("bad", f"no PROXY header: {error}")
            return
        if header is None:
            return
        if header.passed is not None and not self._names_sender(header.passed):
            if _is_nobody(header.passed.host):
                counts.bad += 1
                self._refuse("bad", "its PROXY header names an address that nobody has")
                return
            counts.passed += 1
            self._hand_over(header, header.rest)
            return
        self._own = header
        if header.rest:
            self.dataReceived(header.rest)

    def connectionLost(self, reason: Failure | None = None) -> None:
        if self._deadline is not None:  # else it was we who closed it
            if self._own is not None:
                self._accepting.counts.unused += 1
            else:
                self._accepting.counts.unfinished += 1
        self._over()

    def close(self) -> None:
        """End the connection at once, without a word."""
        self._over()
        self.transport.abortConnection()  # type: ignore[union-attr]  # TCP transports have it

    def _hand_over(self, header: Header, rest: bytes) -> None:
        transport = self.transport
        assert transport is not None
        self._over()  # first: its room is the session's
        protocol = self._accepting.wrapped.buildProtocol(header.passed or transport.getPeer())
        if protocol is None:
            self.close()
            return
        transport.protocol = protocol  # type: ignore[attr-defined]  # as Twisted's startTLS does
        protocol.makeConnection(transport)
        if rest:
            protocol.dataReceived(rest)

    def _names_sender(self, passed: Passed) -> bool:
        """Whether a header is about the very connection on which it comes: so a balancer's checks are in version 1."""
        assert self.transport is not None
        own: Any = self.transport.getPeer()
        return (passed.host, passed.port) == (str(_address(self._host)), own.port)

    def _late(self) -> None:
        if self._own is not None:
            self._accepting.counts.unused += 1
            self.close()
            return
        self._accepting.counts.late += 1
        self._refuse("late", f"no PROXY header within {self._accepting.timeout} s")

    def _refuse(self, kind: str, why: str) -> None:
        self._accepting.complain(kind, why, self._host)
        self.close()

    def _over(self) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._deadline = None
        self._accepting.forget(self)
