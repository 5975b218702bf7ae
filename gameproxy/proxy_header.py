"""The header of the PROXY protocol, version 2, by which a game server learns where a client comes from.

Source: HAProxy's "The PROXY protocol", section 2.2 (binary header).
"""

from __future__ import annotations

from ipaddress import ip_address
from struct import pack
from typing import Final

from gameproxy.interfaces import Peer

_SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
_VERSION_2_PROXY: Final = 0x21
_FAMILIES: Final = {4: 0x11, 6: 0x21}
"""TCP over IPv4 and over IPv6."""
_UNKNOWN_FAMILY: Final = 0x00
_UNIQUE_ID: Final = 0x05
"""``PP2_TYPE_UNIQUE_ID``: at most 128 bytes that tell connections apart."""


def encode_v2(peer: Peer, session: str) -> bytes:
    """The header for one connection.

    :param peer: the client: source and destination are where it comes from and what it connected to.
    :param session: sent as ``PP2_TYPE_UNIQUE_ID``.
    """
    family, addresses = _addresses(peer)
    unique_id = session.encode("ascii")
    tlv = pack("!BH", _UNIQUE_ID, len(unique_id)) + unique_id
    length = pack("!H", len(addresses) + len(tlv))
    return _SIGNATURE + bytes([_VERSION_2_PROXY, family]) + length + addresses + tlv


def _addresses(peer: Peer) -> tuple[int, bytes]:
    try:
        source, target = ip_address(peer.address), ip_address(peer.local_address)
    except ValueError:  # no TCP: the header then says nothing of addresses
        return _UNKNOWN_FAMILY, b""
    if source.version != target.version:
        return _UNKNOWN_FAMILY, b""
    ports = pack("!HH", peer.port, peer.local_port)
    return _FAMILIES[source.version], source.packed + target.packed + ports
