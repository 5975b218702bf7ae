"""The header of the PROXY protocol, version 2, as Twisted's own parser and a reading of the specification see it."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import address
from twisted.protocols.haproxy._v2parser import V2Parser
from twisted.trial.unittest import SynchronousTestCase

from gameproxy.interfaces import Peer
from gameproxy.proxy_header import encode_v2

SESSION = "00112233445566778899aabbccddeeff"
PORTS = st.integers(0, 65535)
ADDRESSES = st.tuples(st.ip_addresses(v=4), st.ip_addresses(v=4)) | st.tuples(
    st.ip_addresses(v=6), st.ip_addresses(v=6)
)


class ProxyHeaderTests(SynchronousTestCase):
    """What game servers get to see."""

    @given(ADDRESSES, PORTS, PORTS)
    def test_addresses(
        self, ips: tuple[IPv4Address | IPv6Address, ...], port: int, local_port: int
    ) -> None:
        """A parser of others reads the client's address and port, and those that it connected to."""
        source, target = ips
        header = encode_v2(Peer(str(source), port, False, str(target), local_port), SESSION)
        info, rest = V2Parser().feed(header + b"hello")
        assert info is not None
        self.assertEqual(rest, b"hello")
        for seen, ip, number in (
            (info.source, source, port),
            (info.destination, target, local_port),
        ):
            kind = address.IPv4Address if ip.version == 4 else address.IPv6Address
            assert isinstance(seen, kind)
            self.assertEqual((ip_address(_text(seen.host)), seen.port), (ip, number))

    def test_unique_id(self) -> None:
        """The session stands in a TLV of type 5 behind the addresses, and the length counts it."""
        for ours, theirs, family, size in (
            ("203.0.113.7", "198.51.100.2", 0x11, 12),
            ("2001:db8::7", "2001:db8::2", 0x21, 36),
        ):
            header = encode_v2(Peer(ours, 1, False, theirs, 2), SESSION)
            self.assertEqual(header[:13], b"\r\n\r\n\0\r\nQUIT\n\x21")
            self.assertEqual(header[13], family)
            self.assertEqual(int.from_bytes(header[14:16], "big"), len(header) - 16)
            self.assertEqual(header[16 + size :], b"\x05\x00\x20" + SESSION.encode())

    def test_no_addresses(self) -> None:
        """Without addresses, or with two of different families, it tells the session alone."""
        for peer in (
            Peer("", 0, False),
            Peer("203.0.113.7", 1, False),
            Peer("203.0.113.7", 1, False, "2001:db8::2", 2),
        ):
            header = encode_v2(peer, SESSION)
            wanted = b"\r\n\r\n\0\r\nQUIT\n\x21\x00\x00\x23\x05\x00\x20" + SESSION.encode()
            self.assertEqual(header, wanted)


def _text(host: str | bytes) -> str:
    return host.decode("ascii") if isinstance(host, bytes) else host
