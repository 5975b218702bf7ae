"""Reading headers of the PROXY protocol: ours, Twisted's, and what is none."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from struct import pack

from hypothesis import given
from hypothesis import strategies as st
from twisted.protocols.haproxy._exceptions import InvalidProxyHeader
from twisted.protocols.haproxy._v1parser import V1Parser
from twisted.protocols.haproxy._v2parser import V2Parser
from twisted.trial.unittest import SynchronousTestCase

from gameproxy.interfaces import Peer
from gameproxy.proxy_header import (
    V1_MAX,
    V2_MAX,
    BadHeader,
    Header,
    HeaderReader,
    Passed,
    encode_v2,
    read_header,
)

SESSION = "00112233445566778899aabbccddeeff"
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
PORTS = st.integers(0, 65535)
Ip = IPv4Address | IPv6Address
PAIRS = st.tuples(st.ip_addresses(v=4), st.ip_addresses(v=4)) | st.tuples(
    st.ip_addresses(v=6), st.ip_addresses(v=6)
)
TLS = st.sampled_from(["", "TLSv1.2", "TLSv1.3"])
FIXED = st.builds(
    lambda version, family, size, rest: SIGNATURE + pack("!BBH", version, family, size) + rest,
    st.sampled_from([0x20, 0x21]) | st.integers(0, 255),
    st.sampled_from([0x00, 0x11, 0x12, 0x21, 0x22, 0x31]) | st.integers(0, 255),
    st.integers(0, 300) | st.integers(0, 65535),
    st.binary(max_size=320),
)
WORDS = st.sampled_from(
    [b"PROXY", b"TCP4", b"TCP6", b"UNKNOWN", b"192.0.2.1", b"::1", b"2001:db8::7", b"1", b"65536"]
)
LINES = st.lists(WORDS | st.binary(max_size=8), max_size=8).map(
    lambda words: b" ".join([b"PROXY", *words]) + b"\r\n"
)
ANYTHING = st.binary(max_size=200) | FIXED | LINES


def plain(ip: Ip) -> str:
    """As the proxy writes it: mapped addresses as IPv4."""
    mapped = ip.ipv4_mapped if isinstance(ip, IPv6Address) else None
    return str(mapped or ip)


def answer(data: bytes) -> Header | str | None:
    """What comes of all these bytes at once; ``"bad"``: nothing does."""
    try:
        return read_header(data)
    except BadHeader:
        return "bad"


class ReadingTests(SynchronousTestCase):
    """What is understood, and what is refused."""

    def assert_as_twisted(self, data: bytes, header: Header) -> None:
        """Twisted's own parser finds the same in it."""
        assert header.passed is not None
        parser = V2Parser() if data.startswith(SIGNATURE) else V1Parser()
        try:
            info, rest = parser.feed(data)
        except InvalidProxyHeader:
            self.fail("Twisted refuses it")
        assert info is not None and info.source is not None and info.destination is not None
        self.assertEqual(rest, header.rest)
        ends = [(info.source, header.passed.host, header.passed.port)]
        ends += [(info.destination, header.passed.local_host, header.passed.local_port)]
        for theirs, host, port in ends:
            text = theirs.host if isinstance(theirs.host, str) else theirs.host.decode()
            self.assertEqual((plain(ip_address(text)), theirs.port), (host, port))

    @given(PAIRS, PORTS, PORTS, TLS, st.binary(max_size=50), st.data())
    def test_version_2_round_trip(
        self,
        ips: tuple[Ip, Ip],
        port: int,
        local_port: int,
        tls: str,
        rest: bytes,
        data: st.DataObject,
    ) -> None:
        """What the encoder writes is read as it was meant, however it is cut, with what follows left over."""
        source, target = ips
        header = encode_v2(
            Peer(str(source), port, bool(tls), str(target), local_port), SESSION, tls
        )
        passed = Passed(plain(source), port, plain(target), local_port)
        cut = data.draw(st.integers(0, len(header) - 1))
        reader = HeaderReader()
        self.assertIsNone(reader.feed(header[:cut]))
        self.assertEqual(reader.feed(header[cut:] + rest), Header(passed, rest))
        self.assertLessEqual(len(header), 536)
        self.assert_as_twisted(header + rest, Header(passed, rest))

    @given(PAIRS, PORTS, PORTS, st.binary(max_size=50), st.data())
    def test_version_1_round_trip(
        self, ips: tuple[Ip, Ip], port: int, local_port: int, rest: bytes, data: st.DataObject
    ) -> None:
        """So is a line as the specification has it, be an IPv6 address short or long."""
        source, target = ips
        text = data.draw(st.sampled_from([str(source), source.exploded, str(source).upper()]))
        header = f"PROXY TCP{source.version} {text} {target} {port} {local_port}\r\n".encode()
        cut = data.draw(st.integers(0, len(header) - 1))
        reader = HeaderReader()
        self.assertIsNone(reader.feed(header[:cut]))
        passed = Passed(plain(source), port, plain(target), local_port)
        self.assertEqual(reader.feed(header[cut:] + rest), Header(passed, rest))
        self.assert_as_twisted(header + rest, Header(passed, rest))

    @given(ANYTHING)
    def test_pieces_change_nothing(self, data: bytes) -> None:
        """Byte by byte the same is understood as at once, and no more is kept than a header may have."""
        reader, found = HeaderReader(), None
        try:
            for index in range(len(data)):
                found = reader.feed(data[index : index + 1])
                if found is not None:
                    found = Header(found.passed, found.rest + data[index + 1 :])
                    break
                self.assertLess(index + 1, V2_MAX)
        except BadHeader:
            self.assertEqual(answer(data), "bad")
        else:
            self.assertEqual(answer(data), found)

    @given(ANYTHING)
    def test_as_twisted_does(self, data: bytes) -> None:
        """Whatever passes a client on, Twisted's parsers understand the same way."""
        try:
            header = read_header(data)
        except BadHeader:
            return
        if header is None or header.passed is None:
            return
        self.assert_as_twisted(data, header)

    def test_refused_at_once(self) -> None:
        """What cannot become a header is refused with the byte that shows it, and not waited for."""
        for good, bad in (
            (b"", b"\0"),
            (b"P", b"p"),
            (b"PROXY", b"_"),
            (SIGNATURE[:-1], b"\r"),
            (SIGNATURE, b"\x11"),
            (SIGNATURE, b"\x22"),
            (SIGNATURE + b"\x21\x11\0", b"\x0b"),
            (SIGNATURE + b"\x21\x41\0", b"\x0c"),
            (SIGNATURE + b"\x21\x13\0", b"\x0c"),
            (SIGNATURE + b"\x20\0" + pack("!H", V2_MAX - 15)[:1], pack("!H", V2_MAX - 15)[1:]),
            (b"PROXY UNKNOWN" + b" " * (V1_MAX - 14), b" "),
        ):
            self.assertIsNone(answer(good), good)
            self.assertEqual(answer(good + bad), "bad", good + bad)

    def test_the_longest(self) -> None:
        """As much as may be long is read."""
        line = b"PROXY UNKNOWN".ljust(V1_MAX - 2, b"x").replace(b"Nx", b"N ") + b"\r\n"
        self.assertEqual(answer(line + b"y"), Header(None, b"y"))
        size = V2_MAX - 16
        self.assertEqual(
            answer(SIGNATURE + b"\x20\0" + pack("!H", size) + bytes(size) + b"y"),
            Header(None, b"y"),
        )

    def test_nobody_is_passed_on(self) -> None:
        """LOCAL, UNKNOWN, and families without an IP say nothing of where a connection comes from."""
        for header in (
            b"PROXY UNKNOWN\r\n",
            b"PROXY UNKNOWN 192.0.2.1 192.0.2.2 1 2\r\n",
            SIGNATURE + b"\x20\x11\0\x0c" + bytes(12),
            SIGNATURE + b"\x20\xff\0\0",
            SIGNATURE + b"\x21\0\0\0",
            SIGNATURE + b"\x21\x01\0\0",
            SIGNATURE + b"\x21\x10\0\x0c" + bytes(12),
            SIGNATURE + b"\x21\x31\0\xd8" + bytes(216),
        ):
            self.assertEqual(answer(header + b"x"), Header(None, b"x"), header)

    def test_nothing_of_it_is_told(self) -> None:
        """What is wrong with a header is told without a byte of it: it goes into the log."""
        for bad in (b"\x1b[2J", b"PROXY \x1b[2J\r\n", SIGNATURE + b"\x1b"):
            with self.assertRaises(BadHeader) as caught:
                read_header(bad)
            self.assertNotIn("\x1b", str(caught.exception))


class TlsTests(SynchronousTestCase):
    """What a header says of TLS (section 2.2.6 of the specification)."""

    def test_tls(self) -> None:
        """A client that came by TLS is told with its version: SSL, no certificate verified, and the version."""
        peer = Peer("203.0.113.7", 1, True, "198.51.100.2", 2)
        header = encode_v2(peer, SESSION, "TLSv1.3")
        self.assertEqual(int.from_bytes(header[14:16], "big"), len(header) - 16)
        tlv = b"\x20\x00\x0f" + b"\x01\x00\x00\x00\x01" + b"\x21\x00\x07TLSv1.3"
        self.assertTrue(header.endswith(b"\x05\x00\x20" + SESSION.encode() + tlv))

    def test_without(self) -> None:
        """Of one that did not, nothing is said."""
        peer = Peer("203.0.113.7", 1, False, "198.51.100.2", 2)
        self.assertTrue(encode_v2(peer, SESSION).endswith(b"\x05\x00\x20" + SESSION.encode()))
