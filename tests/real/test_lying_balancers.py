"""A balancer that is trusted and lies: what it says of others is believed, which is what trust means, and it gets no
further by it than that.

Every test has another session relay at the same time, and sees in the end that nothing is left (tests/real/rig.py).
"""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

import pytest
import pytest_twisted
from twisted.logger import formatEvent

from tests.real.rig import Rig
from tests.real.streams import auth, frame, pause, until
from tests.real.test_proxy_protocol import PLAIN, PROXIED, V4, proxied, silence, v1, v2

LOCAL = v2(0x20, 0x00, b"")
IMPOSSIBLE = ("0.0.0.0", "255.255.255.255", "224.0.0.1", "239.255.255.255", "::", "ff02::1")


def limited(folder: Path, limits: str, **settings: float) -> Rig:
    """A rig with a port for balancers, and limits."""
    rig = proxied(folder, **settings)  # type: ignore[arg-type]  # its other arguments are not of numbers
    rig.more += limits
    return rig


def ban(rig: Rig, subject: str) -> None:
    """Ban an address."""
    rig.query(
        "INSERT INTO bans (kind, subject, reason, actor, created_at) VALUES ('address', ?, '', '', 0)",
        subject,
    )


def from_address(address: str) -> bytes:
    """A header of version 2."""
    ip = ip_address(address)
    rest = ip.packed * 2 + b"\xc3\x50\x1e\x61"
    return v2(0x21, 0x11 if ip.version == 4 else 0x21, rest)


@pytest_twisted.ensureDeferred
async def test_impossible_addresses(tmp_path: Path) -> None:
    """Who can be nobody is let in as nobody: such a header is a bad one, however it is written; and it is a line."""
    async with proxied(tmp_path) as rig, rig.canary(lines=1):
        for address in (*IMPOSSIBLE, "::ffff:0.0.0.0", "::ffff:224.0.0.1"):
            target = "2001:db8::2" if ":" in address else "198.51.100.2"
            for header in (v1(address, target), from_address(address)):
                client = await rig.connect(door=PROXIED)
                client.send_raw(header + frame(auth(game="echo")))
                await silence(client)
        assert rig.records == []
        assert rig.proxy.headers.bad == 2 * (len(IMPOSSIBLE) + 2)
        assert "an address that nobody has" in (formatEvent(rig.lines[-1]) or "")


@pytest_twisted.ensureDeferred
async def test_the_same_address_in_other_words(tmp_path: Path) -> None:
    """A ban of an address holds however a header writes it."""
    async with proxied(tmp_path) as rig, rig.canary(lines=9):
        ban(rig, "203.0.113.7")
        ban(rig, "2001:db8::7")
        for header in (
            v1("203.0.113.7"),
            v1("::ffff:203.0.113.7", "2001:db8::2"),
            v1("::FFFF:CB00:7107", "2001:db8::2"),
            from_address("203.0.113.7"),
            from_address("::ffff:203.0.113.7"),
            v1("2001:DB8:0:0::0007", "2001:db8::2"),
            from_address("2001:db8::7"),
        ):
            client = await rig.connect(door=PROXIED)
            client.send_raw(header)
            await rig.refused(client, "banned")


@pytest_twisted.ensureDeferred
async def test_headers_twice(tmp_path: Path) -> None:
    """Of two headers the first holds, whatever versions they have; the second is what its client said, and no AUTH. One
    behind a LOCAL makes nobody of the balancer either."""
    forged = (v1("203.0.113.99"), from_address("203.0.113.99"), LOCAL)
    async with proxied(tmp_path) as rig, rig.canary(lines=9):
        for first, address in (
            (v1("192.0.2.8"), "192.0.2.8"),
            (from_address("192.0.2.8"), "192.0.2.8"),
            (LOCAL, "127.0.0.1"),
            (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
        ):
            for second in forged:
                for apart in (False, True):
                    client = await rig.connect(door=PROXIED)
                    client.send_raw(first if apart else first + second)
                    if apart:
                        await pause(0.02)
                        client.send_raw(second)
                    await rig.refused(client, "protocol_error")
                    assert rig.records[-1].peer.address == address


@pytest_twisted.ensureDeferred
async def test_tlvs_beyond_their_header(tmp_path: Path) -> None:
    """A TLV that says it is longer than its header, or is cut off by its end, takes nothing of what the client sent."""
    async with proxied(tmp_path) as rig, rig.canary(lines=9):
        rig.game_servers["good"].addresses.append("203.0.113.7")
        for tlvs in (
            b"\x04\xff\xff",
            b"\x04",
            b"\x04\x00",
            b"\x20\x00\x05\x01",
            b"\x05\x00\x80" * 9,
        ):
            client = await rig.connect(door=PROXIED)
            client.send_raw(v2(0x21, 0x11, V4 + tlvs) + frame(auth(game="echo")))
            assert (await client.body())[0] == 0x02
            await client.echo(b"\x10all there")
            await rig.leave(client)
            assert rig.records[-1].peer.address == "203.0.113.7"


@pytest.mark.parametrize("header", [LOCAL, b"PROXY UNKNOWN\r\n", "own"])
@pytest_twisted.ensureDeferred
async def test_what_is_its_own_counts_as_its_own(tmp_path: Path, header: bytes | str) -> None:
    """By LOCAL, UNKNOWN or its own address a balancer gets around no ban of itself, and no limit: it is one address."""
    limits = '[limits.sessions_per_address]\nmode = "enforce"\nrate = 3'

    async def connect() -> bytes:
        client = await rig.connect(door=PROXIED)
        client.send_raw(
            header
            if isinstance(header, bytes)
            else v1("127.0.0.1", port=client.transport.getHost().port)
        )
        client.send(auth(game="echo", name="liar"))
        return await client.body()

    async with limited(tmp_path, limits) as rig:
        clients = [await rig.connect(door=PLAIN)]
        await rig.enter(clients[0])
        for _ in range(2):
            assert (await connect())[0] == 0x02
        assert b'"limit_exceeded"' in await connect()
        await rig.over("limit_exceeded")
        # Others behind it have limits of their own.
        rig.game_servers["good"].addresses.append("203.0.113.7")
        other = await rig.connect(door=PROXIED)
        other.send_raw(v1("203.0.113.7"))
        await rig.enter(other)
        ban(rig, "127.0.0.1")
        await until(lambda: [] if len(rig.records) == 4 else [f"{len(rig.records)} are over"], 10.0)
        assert b'"banned"' in await connect()
        await other.echo(b"\x10still here")
        ended = [record.reason.value for record in rig.records]
        assert ended[:4] == ["limit_exceeded", "banned", "banned", "banned"]
        other.reset()


@pytest_twisted.ensureDeferred
async def test_addresses_without_number(tmp_path: Path) -> None:
    """Who claims another address each time has the limits of each; but there are no more sessions without AUTH than
    there may be, and who relays does not notice."""
    limits = '[limits.connections_per_second]\nmode = "enforce"\nrate = 0.01\nburst = 1'
    rig = limited(tmp_path, limits)
    rig.proxy_settings = "max_unauthenticated = 20"
    async with rig, rig.canary(lines=30):
        clients = []
        for number in range(30):
            client = await rig.connect(door=PROXIED)
            client.send_raw(from_address(f"203.0.{number}.7"))
            clients.append(client)
        told = [await client.message(0x05) for client in clients[20:]]
        assert {error["code"] for error in told} == {"proxy_full"}
        assert rig.proxy.sessions.limits()["unauthenticated"] == 20
        for client in clients[:20]:
            client.reset()
        for _ in clients:
            await rig.end()
        # The same addresses are not let in so soon again: to claim one is to be it.
        client = await rig.connect(door=PROXIED)
        client.send_raw(from_address("203.0.5.9"))
        await rig.refused(client, "throttled")


@pytest_twisted.ensureDeferred
async def test_half_headers_for_ever(tmp_path: Path) -> None:
    """Headers that never end take the room of sessions without AUTH, and no longer than the timeout: then all who
    come are let in again. Who relays does not notice."""
    rig = proxied(tmp_path, timeout=1.5)
    rig.proxy_settings = "max_unauthenticated = 20"
    async with rig, rig.canary(lines=4):
        halves = []
        for number in range(20):
            half = await rig.connect(door=PROXIED)
            half.send_raw((b"PROXY TCP4 203.0.113.7 ", v2(0x21, 0x11, V4)[:-1])[number % 2])
            halves.append(half)
        full = await rig.connect(door=PLAIN)
        await rig.refused(full, "proxy_full")
        for half in halves:
            while not half.over:
                half.send_raw(b"")
                await half.change()
            assert half.received == b""
        client = await rig.join()
        await rig.leave(client)
        assert rig.proxy.headers.late == 20
