"""Balancers in front of the proxy: whose PROXY headers are believed, and what becomes of others.

Every test has another session relay at the same time, and sees in the end that nothing is left (tests/real/rig.py).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.logger import formatEvent

from tests.real.rig import Rig
from tests.real.streams import (
    GameServer,
    Script,
    Stream,
    auth,
    frame,
    pause,
    promptly,
    until,
)

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
PLAIN, PROXIED = 0, 1
"""The ports."""


def v1(source: str, target: str = "198.51.100.2", port: object = 50000) -> bytes:
    """A header of version 1."""
    family = "TCP6" if ":" in source else "TCP4"
    return f"PROXY {family} {source} {target} {port} 7777\r\n".encode()


def v2(command: int, family: int, rest: bytes) -> bytes:
    """A header of version 2."""
    return SIGNATURE + struct.pack(">BBH", command, family, len(rest)) + rest


V4 = bytes([203, 0, 113, 7, 198, 51, 100, 2]) + struct.pack(">HH", 50000, 7777)
V6 = bytes.fromhex("20010db8000000000000000000000007" * 2) + struct.pack(">HH", 50000, 7777)


def proxied(
    folder: Path,
    trusted: str = '"127.0.0.0/8"',
    timeout: float = 2.0,
    servers: Sequence[tuple[str, str, Script]] = (),
) -> Rig:
    """A rig with a second port, for balancers."""
    return Rig(
        folder,
        servers=list(servers),
        more=f"""
            [proxy_protocol]
            listen = ["tcp:0:interface=127.0.0.1"]
            trusted = [{trusted}]
            timeout = {timeout}
        """,
    )


@pytest.mark.parametrize(
    ("header", "address"),
    [
        (v1("203.0.113.7"), "203.0.113.7"),
        (v1("2001:DB8::7", "2001:db8::2"), "2001:db8::7"),
        (v1("::ffff:203.0.113.7", "2001:db8::2"), "203.0.113.7"),
        (v2(0x21, 0x11, V4), "203.0.113.7"),
        (v2(0x21, 0x12, V4), "203.0.113.7"),
        (v2(0x21, 0x21, V6), "2001:db8::7"),
        (v2(0x21, 0x11, V4 + b"\x04\x0f\x00" + bytes(0xF00)), "203.0.113.7"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_the_client_is_who_the_header_names(
    tmp_path: Path, header: bytes, address: str
) -> None:
    """Game server, log and record have the address of the header, in whatever segments it comes."""
    async with proxied(tmp_path) as rig, rig.canary(lines=4):
        game_server = rig.game_servers["good"]
        game_server.addresses = [address]
        for pieces in ([header], [bytes([byte]) for byte in header], [header[:-1], header[-1:]]):
            client = await rig.connect(door=PROXIED)
            for piece in pieces:
                client.send_raw(piece)
                await pause(0)
            await rig.enter(client)
            await client.echo(b"\x10hello")
            client.send_raw(frame(b"\x06" + b'{"code": "left", "message": ""}'))
            assert await client.rest() == []
            record = await rig.over("left")
            assert (record.peer.address, record.peer.port) == (address, 50000)
            assert record.peer.local_port == 7777
            assert game_server.admits[-1]["address"] == address
            assert f"from {address} ended: left" in (formatEvent(rig.lines[-1]) or "")
        game_server.addresses = ["127.0.0.1"]
        assert rig.proxy.headers.passed == 3


@pytest_twisted.ensureDeferred
async def test_header_and_auth_in_one_segment(tmp_path: Path) -> None:
    """What follows the header is the client's; it is relayed as if it had come straight."""
    async with proxied(tmp_path) as rig, rig.canary():
        rig.game_servers["good"].addresses.append("203.0.113.7")
        client = await rig.connect(door=PROXIED)
        client.send_raw(v1("203.0.113.7") + frame(auth(game="echo")) + frame(b"\x10early"))
        assert (await client.body())[0] == 0x02
        assert await client.body() == b"\x10early"
        canary, session = rig.proxy.sessions
        assert canary.relay is not None and session.relay is not None
        assert session.relay.plane == canary.relay.plane
        await rig.leave(client)


@pytest_twisted.ensureDeferred
async def test_bans_are_of_the_address_behind_the_balancer(tmp_path: Path) -> None:
    """A ban meets the client that the header names, and nobody else who comes by the same balancer."""
    async with proxied(tmp_path) as rig, rig.canary(lines=2):
        rig.query(
            "INSERT INTO bans (kind, subject, reason, actor, created_at) VALUES (?, ?, '', '', 0)",
            "address",
            "203.0.113.0/24",
        )
        client = await rig.connect(door=PROXIED)
        client.send_raw(v1("203.0.113.7"))
        await rig.refused(client, "banned")
        rig.game_servers["good"].addresses.append("192.0.2.8")
        client = await rig.connect(door=PROXIED)
        client.send_raw(v1("192.0.2.8"))
        await rig.enter(client)
        await rig.leave(client)


# The complaint: PROXY headers believed from anyone


@pytest_twisted.ensureDeferred
async def test_proxy_headers_believed_from_anyone(tmp_path: Path) -> None:
    """They are not: not at a port for clients, not from whom is not trusted, and not from behind a balancer."""
    forged = v1("203.0.113.99")
    async with proxied(tmp_path) as rig, rig.canary(lines=4):
        client = await rig.connect(door=PLAIN)
        client.send_raw(forged + frame(auth(game="echo")))
        await rig.refused(client, "protocol_error")
        assert rig.records[-1].peer.address == "127.0.0.1"
        client = await rig.connect(door=PLAIN)
        client.send_raw(v2(0x21, 0x11, V4) + frame(auth(game="echo")))
        await rig.refused(client, "protocol_error")
        assert rig.records[-1].peer.address == "127.0.0.1"
        for second in (forged, v2(0x21, 0x11, V4)):
            client = await rig.connect(door=PROXIED)
            client.send_raw(v1("192.0.2.8") + second + frame(auth(game="echo")))
            await rig.refused(client, "protocol_error")
            assert rig.records[-1].peer.address == "192.0.2.8"
    async with proxied(tmp_path, trusted='"192.0.2.0/24", "::1"') as rig, rig.canary(lines=1):
        for _ in range(5):
            client = await rig.connect(door=PROXIED)
            client.send_raw(forged + frame(auth(game="echo")))
            await silence(client)
        assert rig.records == []
        assert rig.proxy.headers.untrusted == 5
        assert "'127.0.0.1'" in (formatEvent(rig.lines[-1]) or "")


async def silence(client: Stream) -> None:
    """See that a connection is closed in time, without a word."""
    with promptly():
        while not client.over:
            await client.change()
    assert client.received == b""


# Balancers, and who takes himself for one


BAD = [
    b"\0",
    b"P\0",
    b"GET / HTTP/1.1\r\n\r\n",
    frame(auth(game="echo")),
    b"PROXY TCP4 203.0.113.7 198.51.100.2 50000 7777\n\r\n",
    b"PROXY TCP4 203.0.113.7 198.51.100.2 50000\r\n",
    b"PROXY TCP4 203.0.113.7 198.51.100.2 50000 7777 1\r\n",
    b"PROXY TCP4  203.0.113.7 198.51.100.2 50000 7777\r\n",
    b"PROXY TCP4 203.0.113.7 198.51.100.2 050000 7777\r\n",
    b"PROXY TCP4 203.0.113.7 198.51.100.2 65536 7777\r\n",
    b"PROXY TCP4 203.0.113.7 198.51.100.2 -1 7777\r\n",
    b"PROXY TCP4 203.0.113.007 198.51.100.2 50000 7777\r\n",
    b"PROXY TCP4 203.0.113 198.51.100.2 50000 7777\r\n",
    b"PROXY TCP4 2001:db8::7 2001:db8::2 50000 7777\r\n",
    b"PROXY TCP6 203.0.113.7 198.51.100.2 50000 7777\r\n",
    b"PROXY TCP6 fe80::7%eth0 fe80::2 50000 7777\r\n",
    b"PROXY TCP6 2001:db8::7 2001:db8::\xff 50000 7777\r\n",
    b"PROXY TCP5 203.0.113.7 198.51.100.2 50000 7777\r\n",
    b"PROXY UDP4 203.0.113.7 198.51.100.2 50000 7777\r\n",
    b"PROXY UNKNOWNS\r\n",
    b"proxy TCP4 203.0.113.7 198.51.100.2 50000 7777\r\n",
    b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n",
    b"PROXY TCP4 " + b"1" * 1000,
    SIGNATURE + b"\x11",
    SIGNATURE + b"\x31",
    SIGNATURE + b"\x22",
    SIGNATURE[:11] + b"\r",
    v2(0x21, 0x41, V4),
    v2(0x21, 0x13, V4),
    v2(0x21, 0x11, V4[:-1]),
    v2(0x21, 0x21, V4),
    SIGNATURE + b"\x21\x11\xff\xff",
    SIGNATURE + b"\x20\x00" + struct.pack(">H", 4081),
]


@pytest_twisted.ensureDeferred
async def test_bad_headers(tmp_path: Path) -> None:
    """What is no header is closed as soon as that is clear, without a word, a session, or more than one line."""
    async with proxied(tmp_path, timeout=30.0) as rig, rig.canary(lines=1):
        for bad in BAD:
            client = await rig.connect(door=PROXIED)
            client.send_raw(bad)
            await silence(client)
        assert rig.records == []
        assert rig.proxy.headers.bad == len(BAD)


@pytest_twisted.ensureDeferred
async def test_late_headers(tmp_path: Path) -> None:
    """Neither silence, nor a header that never ends, nor one that comes byte by byte is waited for longer."""
    async with proxied(tmp_path, timeout=1.0) as rig, rig.canary(lines=1):
        header = v1("203.0.113.7")
        for start in (b"", header[:-1], SIGNATURE, v2(0x21, 0x11, V4)[:-1]):
            client = await rig.connect(door=PROXIED)
            client.send_raw(start)
            with promptly(0.9):
                await silence(client)
        client = await rig.connect(door=PROXIED)
        with promptly(0.9):
            for byte in header:
                client.send_raw(bytes([byte]))
                await pause(0.05)
                if client.over:
                    break
        assert client.over and rig.proxy.headers.late == 5
        assert rig.records == []


@pytest.mark.parametrize(
    "header",
    [
        b"PROXY UNKNOWN\r\n",
        b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n",
        v2(0x20, 0x00, b""),
        v2(0x20, 0x11, V4),
        v2(0x20, 0xFF, b"\x04\x00\x01\x00"),
        v2(0x21, 0x00, b""),
        v2(0x21, 0x10, V4),
        v2(0x21, 0x31, bytes(216)),
    ],
)
@pytest_twisted.ensureDeferred
async def test_balancers_themselves(tmp_path: Path, header: bytes) -> None:
    """A header that passes nobody on is of the balancer's own: its checks leave no trace, and it may be a client."""
    async with proxied(tmp_path, timeout=1.0) as rig, rig.canary(lines=1):
        for leave in (Stream.close, Stream.reset):
            client = await rig.connect(door=PROXIED)
            client.send_raw(header)
            await pause(0.02)
            leave(client)
        client = await rig.connect(door=PROXIED)
        client.send_raw(header)
        await silence(client)
        await until(lambda: [] if rig.proxy.headers.unused == 3 else ["noticed"])
        assert (rig.records, rig.proxy.headers.own) == ([], 0)
        for together in (False, True):
            client = await rig.connect(door=PROXIED)
            client.send_raw(header)
            if not together:
                await pause(0.02)
            await rig.enter(client)
            client.reset()
            record = await rig.over("client_lost")
            assert record.peer.address == "127.0.0.1"
            rig.lines.pop()
        assert rig.proxy.headers.own == 2


@pytest_twisted.ensureDeferred
async def test_balancers_that_name_themselves(tmp_path: Path) -> None:
    """A header with the address and port that it comes from passes nobody on; one with another port is a client's."""
    async with proxied(tmp_path, timeout=1.0) as rig, rig.canary(lines=1):
        client = await rig.connect(door=PROXIED)
        client.send_raw(v1("127.0.0.1", port=client.transport.getHost().port))
        await silence(client)
        assert (rig.records, rig.proxy.headers.unused) == ([], 1)
        client = await rig.connect(door=PROXIED)
        client.send_raw(v1("127.0.0.1", port=client.transport.getHost().port ^ 1))
        await until(lambda: [] if rig.proxy.headers.passed == 1 else ["passed on"])
        client.close()
        await rig.over("client_lost")


@pytest_twisted.ensureDeferred
async def test_who_never_sends_a_header(tmp_path: Path) -> None:
    """Who leaves before his header is whole was no session, and no line."""
    async with proxied(tmp_path) as rig, rig.canary(lines=0):
        for start in (b"", b"PROXY TCP4", SIGNATURE):
            client = await rig.connect(door=PROXIED)
            client.send_raw(start)
            await pause(0.02)
            client.close()
        await until(lambda: [] if rig.proxy.headers.unfinished == 3 else ["noticed"])
        assert rig.records == []


@pytest_twisted.ensureDeferred
async def test_a_proxy_that_stops(tmp_path: Path) -> None:
    """Connections that are no sessions yet are closed with the port."""
    async with proxied(tmp_path, timeout=30.0) as rig:
        clients = [await rig.connect(door=PROXIED) for _ in range(3)]
        clients[0].send_raw(b"PROXY ")
        clients[1].send_raw(b"PROXY UNKNOWN\r\n")
        await pause(0.05)
        stopped = rig.proxy.stopService()
        for client in clients:
            await silence(client)
        await stopped
        calls = [getattr(call.func, "__qualname__", "") for call in reactor.getDelayedCalls()]
        assert not [call for call in calls if "late" in call]


async def listen_only(server: GameServer, stream: Stream) -> None:
    """Keeps what comes."""
    await server.admit(stream)
    server.got += await stream.until_close()


@pytest_twisted.ensureDeferred
async def test_half_closed_clients(tmp_path: Path) -> None:
    """A client that ends its own side behind the header is heard to the end, as at any port."""
    servers = [("ears", "ears", listen_only)]
    async with proxied(tmp_path, servers=servers) as rig, rig.canary():
        rig.game_servers["ears"].addresses.append("203.0.113.7")
        client = await rig.connect(door=PROXIED)
        client.send_raw(v1("203.0.113.7"))
        await rig.enter(client, game="ears")
        client.send(b"\x10last words")
        client.transport.loseWriteConnection()
        await rig.over("client_lost")
        assert rig.game_servers["ears"].got[:1] == [b"\x10last words"]
