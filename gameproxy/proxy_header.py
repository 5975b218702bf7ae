"""The header of the PROXY protocol, by which who passes a connection on tells where it comes from.

Version 2 is written for game servers; versions 1 and 2 are read from balancers in front of the proxy.

Source: HAProxy's "The PROXY protocol", sections 2.1 (text) and 2.2 (binary).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address, ip_address
from struct import Struct, pack
from typing import Final

from twisted.internet.interfaces import IAddress
from zope.interface import implementer

from gameproxy.interfaces import Peer

V1_MAX: Final = 107
"""Bytes of the longest header of version 1, with its CRLF."""
V2_MAX: Final = 4096
"""Bytes of the longest header of version 2 that is read. The specification has them fit into 536; with client
certificates among their TLVs some are longer."""
_SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
_FIXED: Final = 16
"""Bytes of a header of version 2 before its addresses: signature, version and command, family, length."""
_LOCAL: Final = 0x20
_PROXY: Final = 0x21
_FAMILIES: Final = {4: 0x11, 6: 0x21}
"""TCP over IPv4 and over IPv6."""
_UNKNOWN_FAMILY: Final = 0x00
_ADDRESSES: Final = {1: Struct("!4s4sHH"), 2: Struct("!16s16sHH")}
"""What stands behind the fixed bytes, by the family in the upper half of its byte: IPv4 and IPv6."""
_NO_ADDRESSES: Final = (0, 3)
"""The other families that there are: of unknown addresses, and of UNIX sockets, which have none of ours."""
_TRANSPORTS: Final = (1, 2)
"""Streams and datagrams: a player may come to a balancer by QUIC. 0 is unknown."""
_UNIQUE_ID: Final = 0x05
"""``PP2_TYPE_UNIQUE_ID``: at most 128 bytes that tell connections apart."""
_SSL: Final = 0x20
"""``PP2_TYPE_SSL``: how the client's connection is encrypted."""
_SSL_VERSION: Final = 0x21
"""``PP2_SUBTYPE_SSL_VERSION``, within it."""
_CLIENT_SSL: Final = 0x01
"""``PP2_CLIENT_SSL``: the client came by TLS."""
_NOT_VERIFIED: Final = 1
"""Nothing is said of a certificate of the client's."""
_V1: Final = re.compile(rb"PROXY (TCP[46]) (\S+) (\S+) (0|[1-9]\d{0,4}) (0|[1-9]\d{0,4})")
_V1_UNKNOWN: Final = re.compile(rb"PROXY UNKNOWN(?: .*)?", re.DOTALL)
_V1_BEGINS: Final = b"PROXY "


class BadHeader(Exception):
    """What came is no header of the PROXY protocol. The text says what is wrong, and holds nothing of what came."""


@implementer(IAddress)
@dataclass(frozen=True, slots=True)
class Passed:
    """Where a connection comes from that somebody passes on, as the header says.

    :param host: the client's IP; ``::ffff:a.b.c.d`` already written as ``a.b.c.d``.
    :param port: its port.
    :param local_host: the IP that it connected to.
    :param local_port: the port that it connected to.
    """

    host: str
    port: int
    local_host: str
    local_port: int


@dataclass(frozen=True, slots=True)
class Header:
    """A whole header.

    :param passed: where the connection comes from; ``None``: from whoever sent the header (LOCAL, UNKNOWN, or a family
        without an IP).
    :param rest: what came behind it.
    """

    passed: Passed | None
    rest: bytes


class HeaderReader:
    """Finds the header at the beginning of a stream, however it is cut. It keeps less than :data:`V2_MAX` bytes."""

    def __init__(self) -> None:
        self._data = b""

    def feed(self, data: bytes) -> Header | None:
        """Take what comes next.

        :return: the header, once all of it is there.
        :raises BadHeader: as soon as what came cannot become one.
        """
        self._data += data
        return read_header(self._data)


def read_header(data: bytes) -> Header | None:
    """The header at the beginning of a stream.

    :param data: all that has come so far.
    :return: ``None`` while a part of it is missing.
    :raises BadHeader: whatever comes, this does not become a header.
    """
    if data[: len(_SIGNATURE)] == _SIGNATURE[: len(data)]:
        return _read_v2(data)
    if data[: len(_V1_BEGINS)] == _V1_BEGINS[: len(data)]:
        return _read_v1(data)
    raise BadHeader("it does not begin as one")


def _read_v1(data: bytes) -> Header | None:
    line, end, rest = data[:V1_MAX].partition(b"\r\n")
    if not end:
        if len(data) >= V1_MAX:
            raise BadHeader(f"its line does not end within {V1_MAX} bytes")
        return None
    rest += data[V1_MAX:]
    if _V1_UNKNOWN.fullmatch(line):
        return Header(None, rest)
    match = _V1.fullmatch(line)
    if match is None:
        raise BadHeader("its line is not made as version 1 has it")
    family, *hosts, port, local_port = (
        group.decode("ascii", "replace") for group in match.groups()
    )
    kind = IPv4Address if family == "TCP4" else IPv6Address
    if "%" in hosts[0] + hosts[1]:  # which Python would take for a scope
        raise BadHeader("an address in it is none of its family")
    try:
        source, target = kind(hosts[0]), kind(hosts[1])
    except AddressValueError as error:
        raise BadHeader("an address in it is none of its family") from error
    if max(int(port), int(local_port)) > 65535:
        raise BadHeader("a port in it is above 65535")
    return Header(Passed(_text(source), int(port), _text(target), int(local_port)), rest)


def _read_v2(data: bytes) -> Header | None:
    if len(data) > 12 and data[12] not in (_LOCAL, _PROXY):
        raise BadHeader("its version or command is unknown")
    if len(data) < _FIXED:
        return None
    end = _FIXED + int.from_bytes(data[14:16], "big")
    if end > V2_MAX:
        raise BadHeader(f"it is longer than {V2_MAX} bytes")
    passed = None
    if data[12] == _PROXY:
        family, transport = data[13] >> 4, data[13] & 0x0F
        if family not in _ADDRESSES and family not in _NO_ADDRESSES:
            raise BadHeader("its family is unknown")
        if transport not in (0, *_TRANSPORTS):
            raise BadHeader("its transport is unknown")
        if family in _ADDRESSES and transport in _TRANSPORTS:
            form = _ADDRESSES[family]
            if end < _FIXED + form.size:
                raise BadHeader("it has no room for its addresses")
            if len(data) >= end:
                source, target, port, local_port = form.unpack_from(data, _FIXED)
                ends = _text(ip_address(source)), port, _text(ip_address(target)), local_port
                passed = Passed(*ends)
    return Header(passed, data[end:]) if len(data) >= end else None


def _text(ip: IPv4Address | IPv6Address) -> str:
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return str(ip)


def encode_v2(peer: Peer, session: str, tls: str = "") -> bytes:
    """The header for one connection.

    :param peer: the client: source and destination are where it comes from and what it connected to.
    :param session: sent as ``PP2_TYPE_UNIQUE_ID``.
    :param tls: the version of TLS by which the client came, as ``TLSv1.3``: sent as ``PP2_TYPE_SSL``. Empty: without.
    """
    family, addresses = _addresses(peer)
    tlvs = _tlv(_UNIQUE_ID, session.encode("ascii"))
    if tls:
        version = _tlv(_SSL_VERSION, tls.encode("ascii"))
        tlvs += _tlv(_SSL, pack("!BI", _CLIENT_SSL, _NOT_VERIFIED) + version)
    length = pack("!H", len(addresses) + len(tlvs))
    return _SIGNATURE + bytes([_PROXY, family]) + length + addresses + tlvs


def _tlv(type: int, value: bytes) -> bytes:
    return pack("!BH", type, len(value)) + value


def _addresses(peer: Peer) -> tuple[int, bytes]:
    try:
        source, target = ip_address(peer.address), ip_address(peer.local_address)
    except ValueError:  # no TCP: the header then says nothing of addresses
        return _UNKNOWN_FAMILY, b""
    if source.version != target.version:
        return _UNKNOWN_FAMILY, b""
    ports = pack("!HH", peer.port, peer.local_port)
    return _FAMILIES[source.version], source.packed + target.packed + ports
