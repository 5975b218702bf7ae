"""Clients that come by TLS: what they are shown, what they must show, and what becomes of those who do it wrong.

Every test has another session relay at the same time, and sees in the end that nothing is left (tests/real/rig.py).
"""

from __future__ import annotations

from base64 import b64encode
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from twisted.internet.ssl import TLSVersion

from gameproxy.service import ConfigurationError
from tests.authority import DAY, Authority
from tests.real.rig import Rig
from tests.real.streams import (
    CLOSE,
    GameServer,
    Stream,
    auth,
    frame,
    message,
    pause,
    promptly,
    until,
)
from tests.real.tls_streams import Dripping, TlsStream, client_options, connect_tls

CLEAR, TLS, PROXIED = 0, 1, 2
"""The ports."""
FROM_BALANCER = b"PROXY TCP4 203.0.113.7 198.51.100.2 50000 7777\r\n"


class Party:
    """A rig with ports for TLS, and what is needed to connect there."""

    def __init__(self, folder: Path, more: str = "", **rig: Any) -> None:
        self.folder = folder
        self.authority = Authority()
        self.authority.write(folder, "ca")
        self.shown = self.authority.issue("play.example", purpose="server").write(folder, "shown")
        self.rig = Rig(
            folder,
            more=f"""
                [tls]
                listen = ["tcp:0:interface=127.0.0.1"]
                certificate = "shown.pem"
                key = "shown.key"
                {more}
                [proxy_protocol]
                listen = ["tcp:0:interface=127.0.0.1"]
                trusted = ["127.0.0.1"]
                tls = true
            """,
            **rig,
        )

    def port(self, door: int = TLS) -> int:
        """One of the proxy's ports."""
        number: int = self.rig.proxy.ports[door].getHost().port
        return number

    async def connect(self, before: bytes = b"", door: int = TLS, **options: Any) -> TlsStream:
        """A client that begins a handshake."""
        chosen = client_options(self.authority, **options)
        return await connect_tls(self.port(door), chosen, before)

    async def lost(self, detail: str) -> None:
        """See that the next session that is over ended in the handshake, and why."""
        record = await self.rig.over("client_lost")
        assert (record.detail, record.player) == (detail, None)


@pytest_twisted.ensureDeferred
async def test_a_session(tmp_path: Path) -> None:
    """Over TLS a session is as any other, however large its frames; both ends close in good order."""
    party = Party(tmp_path)
    async with party.rig as rig, rig.canary(lines=3):
        for size in (1, 16_385, 400_000):
            client = await party.connect()
            await rig.enter(client)
            await client.echo(b"\x10" + bytes(size))
            await client.echo(b"\x10" + bytes(size))
            assert client.serial == party.shown.serial
            assert client.tls.get_protocol_version_name() == "TLSv1.3"
            client.send(message(CLOSE, code="left", message="bye"))
            assert await client.rest() == []
            record = await rig.over("left")
            assert record.peer.secure and record.peer.address == "127.0.0.1"
            assert record.traffic.client_frames == 2


@pytest_twisted.ensureDeferred
async def test_passwords_need_it(tmp_path: Path) -> None:
    """A password is taken over TLS, straight or behind a balancer, and nowhere else."""
    salt = bytes(16)
    key = Scrypt(salt=salt, length=32, n=1 << 4, r=8, p=1).derive(b"sesame")
    (tmp_path / "passwords").write_text(f"ana:{scrypt_line(salt, key)}\n")
    party = Party(tmp_path, auth='password_file = "passwords"')
    who = {"mechanism": "password", "name": None, "username": "ana", "password": "sesame"}
    async with party.rig as rig, rig.canary(lines=4):
        rig.game_servers["good"].addresses.append("203.0.113.7")
        client = await rig.connect()
        client.send(auth(game="echo", **who))
        await rig.refused(client, "auth_failed")
        for door, before in ((TLS, b""), (PROXIED, FROM_BALANCER)):
            client = await party.connect(before, door)
            await rig.enter(client, **who)
            await rig.leave(client)
            assert rig.records[-1].player == "ana"
            assert rig.records[-1].peer.secure


def scrypt_line(salt: bytes, key: bytes) -> str:
    """A hash as the password file has it."""
    text, hashed = (b64encode(part).decode().rstrip("=") for part in (salt, key))
    return f"$scrypt$ln=4,r=8,p=1${text}${hashed}"


@pytest_twisted.ensureDeferred
async def test_behind_a_balancer(tmp_path: Path) -> None:
    """PROXY comes before TLS: the address is that of the header, and TLS before a header is none."""
    party = Party(tmp_path)
    async with party.rig as rig, rig.canary(lines=3):
        rig.game_servers["good"].addresses.append("203.0.113.7")
        client = await party.connect(FROM_BALANCER, PROXIED)
        await rig.enter(client)
        await client.echo(b"\x10hello")
        assert rig.game_servers["good"].admits[-1]["address"] == "203.0.113.7"
        await rig.leave(client)
        peer = rig.records[-1].peer
        assert (peer.address, peer.port, peer.secure) == ("203.0.113.7", 50000, True)
        client = await party.connect(b"", PROXIED)
        with promptly():
            assert await client.rest() == []
        assert rig.proxy.headers.bad == 1
        client = await rig.connect(door=PROXIED)
        client.send_raw(FROM_BALANCER + b"\0\0\0\x04\x01{} ")
        assert await client.rest() == []
        await party.lost("TLS: it does not speak TLS")


@pytest_twisted.ensureDeferred
async def test_game_servers_are_told(tmp_path: Path) -> None:
    """The header that announces a session says by which TLS its client came, and nothing of one who came without."""
    heard: list[bytes] = []

    async def keep(server: GameServer, stream: Stream) -> None:
        while b"\x10hello" not in stream.received:
            await stream.change()
        heard.append(bytes(stream.received).partition(frame(b"\x10hello"))[0])
        while not stream.over:
            await stream.change()

    servers = [("kept", "kept", keep)]
    party = Party(tmp_path, servers=servers, admission="proxy-v2", good=False)
    told = b"\x20\0\x0f\x01\0\0\0\x01\x21\0\x07"
    async with party.rig as rig:
        for connect, ending in (
            (rig.connect, b""),
            (party.connect, told + b"TLSv1.3"),
            (lambda: party.connect(lowerMaximumSecurityTo=TLSVersion.TLSv1_2), told + b"TLSv1.2"),
        ):
            client = await connect()
            await rig.enter(client, game="kept")
            session = next(iter(rig.proxy.sessions)).id
            client.send(b"\x10hello")
            await until(lambda: [] if heard else ["nothing came"])
            assert heard.pop().endswith(b"\x05\0\x20" + session.encode() + ending)
            await rig.leave(client)


@pytest.mark.parametrize("before", [b"", FROM_BALANCER])
@pytest_twisted.ensureDeferred
async def test_a_byte_a_segment(tmp_path: Path, before: bytes) -> None:
    """However a handshake is cut into segments, it is one."""
    party = Party(tmp_path)
    async with party.rig as rig, rig.canary():
        rig.game_servers["good"].addresses.append("203.0.113.7")
        async with Dripping(party.port(PROXIED if before else TLS)) as port:
            client = await connect_tls(port, client_options(party.authority), before)
            await rig.enter(client)
            await client.echo(b"\x10hello")
            await rig.leave(client)


# Who does it wrong


@pytest.mark.parametrize(
    ("said", "detail"),
    [
        (b"\0\0\0\x04\x01{} ", "TLS: it does not speak TLS"),
        (b"GET / HTTP/1.1\r\n\r\n", "TLS: it does not speak TLS"),
        (b"\x16\x03\x01\xff\xff" + bytes(100), "TLS: it does not speak TLS"),
        (b"\xff" * 5000, "TLS: it does not speak TLS"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_no_tls(tmp_path: Path, said: bytes, detail: str) -> None:
    """What is no TLS ends the session at once, and the log says what it was."""
    party = Party(tmp_path)
    async with party.rig as rig, rig.canary():
        client = await rig.connect(door=TLS)
        client.send_raw(said)
        with promptly():
            await client.rest()
            await party.lost(detail)


@pytest_twisted.ensureDeferred
async def test_slow_handshakes(tmp_path: Path) -> None:
    """The handshake and AUTH together have auth.timeout, whether nothing comes, a part, or a byte now and then."""
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100)
    party = Party(tmp_path, timeout=1.0)
    async with party.rig as rig, rig.canary(lines=4):
        for door in (TLS, PROXIED):
            before = FROM_BALANCER if door == PROXIED else b""
            for said in (b"", hello):
                client = await rig.connect(door=door)
                client.send_raw(before + said)
                with promptly(0.9):
                    await client.rest()
                    record = await rig.over("auth_timeout")
                assert record.player is None


@pytest_twisted.ensureDeferred
async def test_a_slow_client(tmp_path: Path) -> None:
    """Who has shaken hands and says nothing is told so, as without TLS."""
    party = Party(tmp_path, timeout=1.0)
    async with party.rig as rig, rig.canary():
        await rig.refused(await party.connect(), "auth_timeout")


@pytest_twisted.ensureDeferred
async def test_a_client_that_does_not_believe_us(tmp_path: Path) -> None:
    """A client that knows the authority by another name, or not at all, leaves in the handshake, and says why."""
    party = Party(tmp_path)
    async with party.rig as rig, rig.canary():
        client = await connect_tls(party.port(), client_options(Authority("Other")))
        await client.rest()
        await party.lost("TLS: it does not know the CA of the certificate that it was shown")


@pytest_twisted.ensureDeferred
async def test_versions(tmp_path: Path) -> None:
    """Versions below the minimum are not spoken; TLS 1.2 is, unless the minimum is 1.3."""
    old = {"lowerMaximumSecurityTo": TLSVersion.TLSv1_2}
    party = Party(tmp_path)
    async with party.rig as rig, rig.canary():
        client = await party.connect(**old)
        await rig.enter(client)
        assert client.tls.get_protocol_version_name() == "TLSv1.2"
        assert (client.tls.get_cipher_name() or "").startswith("ECDHE-ECDSA-")
        await rig.leave(client)
    (tmp_path / "farm.db").unlink()
    party = Party(tmp_path, more='minimum = "1.3"')
    async with party.rig as rig, rig.canary():
        client = await party.connect(**old)
        await client.rest()
        await party.lost("TLS: it speaks no version of TLS that is allowed")


# Mutual certificates


@pytest_twisted.ensureDeferred
async def test_clients_must_show_certificates(tmp_path: Path) -> None:
    """With client_ca, who shows none, or one that is not believed, is not let in; the log says why."""
    party = Party(tmp_path, more='client_ca = "ca.pem"')
    issue = party.authority.issue
    bad = (
        (None, "TLS: it shows no certificate"),
        (Authority("Other").issue("ana"), "TLS: its certificate comes from an unknown CA"),
        (issue("ana", ends=-timedelta(hours=1)), "TLS: its certificate has expired"),
        (issue("ana", begins=DAY / 2), "TLS: its certificate is not valid yet"),
        (issue("ana", purpose="server"), "TLS: its certificate is for something else"),
    )
    good = issue("ana", purpose="client")
    async with party.rig as rig:
        canary = await party.connect(shows=good)
        await rig.enter(canary)
        told = [name.CN for name in canary.tls.get_client_ca_list()]
        assert told == ["Test authority"]  # so that a client knows which of its own to show
        for old in ({}, {"lowerMaximumSecurityTo": TLSVersion.TLSv1_2}):
            for shown, detail in bad:
                client = await party.connect(shows=shown, **old)
                client.send(auth(game="echo"))
                assert await client.rest() == []
                await party.lost(detail)
        await canary.echo(b"\x10hello")
        await rig.leave(canary)
        assert not rig.game_servers["good"].admits[1:]


@pytest_twisted.ensureDeferred
async def test_no_renegotiation(tmp_path: Path) -> None:
    """A client of TLS 1.2 that asks for another handshake, which costs the proxy more than itself, gets none."""
    party = Party(tmp_path)
    async with party.rig as rig, rig.canary():
        client = await party.connect(lowerMaximumSecurityTo=TLSVersion.TLSv1_2)
        await rig.enter(client)
        assert client.tls.renegotiate()
        client.send(b"\x10hello")
        await client.rest()
        assert client.why is not None and "no renegotiation" in str(client.why.value)
        await rig.over("client_lost")


# Certificates that change


@pytest_twisted.ensureDeferred
async def test_a_certificate_replaced(tmp_path: Path) -> None:
    """After a reload new clients are shown the new certificate, and who is there goes on; files that cannot be used
    change nothing, and are told with their places."""
    party = Party(tmp_path)
    async with party.rig as rig, rig.canary(lines=9):
        before = await party.connect()
        await rig.enter(before)
        second = party.authority.issue("play.example").write(tmp_path, "shown")
        client = await party.connect()
        await rig.enter(client)
        assert client.serial == party.shown.serial
        await rig.leave(client)
        rig.proxy.reload_certificates()
        client = await party.connect()
        await rig.enter(client)
        assert client.serial == second.serial
        await rig.leave(client)
        key = (tmp_path / "shown.key").read_text()
        party.authority.issue("play.example").write(tmp_path, "shown")
        (tmp_path / "shown.key").write_text(key)
        with pytest.raises(ConfigurationError) as caught:
            rig.proxy.reload_certificates()
        assert str(caught.value) == (
            f"tls.key: {tmp_path / 'shown.key'} is not the key of the certificate"
        )
        (tmp_path / "shown.pem").write_text("nothing")
        (tmp_path / "shown.key").unlink()
        with pytest.raises(ConfigurationError) as caught:
            rig.proxy.reload_certificates()
        assert str(caught.value).splitlines() == [
            f"tls.certificate: {tmp_path / 'shown.pem'} has no certificates in PEM in it",
            f"tls.key: {tmp_path / 'shown.key'} cannot be read: No such file or directory",
        ]
        client = await party.connect()
        await rig.enter(client)
        assert client.serial == second.serial
        await rig.leave(client)
        await before.echo(b"\x10still here")
        await rig.leave(before)


@pytest_twisted.ensureDeferred
async def test_a_chain(tmp_path: Path) -> None:
    """A client that knows the root alone believes a certificate of an authority between, if that is in the file."""
    party = Party(tmp_path)
    between = Authority("Between", party.authority)
    shown = between.issue("play.example").write(tmp_path, "shown")
    async with party.rig as rig, rig.canary():
        client = await party.connect()
        await rig.enter(client)
        assert client.serial == shown.serial
        await rig.leave(client)


@pytest_twisted.ensureDeferred
async def test_a_proxy_that_stops(tmp_path: Path) -> None:
    """Who relays over TLS is told so, and who is still in the handshake is let go."""
    party = Party(tmp_path)
    async with party.rig as rig:
        client = await party.connect()
        await rig.enter(client)
        silent = await rig.connect(door=TLS)
        stopped = rig.proxy.stopService()
        assert await rig.closed(client, "draining") == []
        assert await silent.rest() == []
        await stopped
        assert {record.reason.value for record in rig.records} == {"draining"}


@pytest_twisted.ensureDeferred
async def test_a_client_that_vanishes_in_the_handshake(tmp_path: Path) -> None:
    """Whoever breaks off in the middle of it leaves nothing."""
    party = Party(tmp_path)
    async with party.rig as rig, rig.canary(lines=2):
        for leave in (TlsStream.close, TlsStream.reset):
            client = await rig.connect(TlsStream, door=TLS)
            client.send_raw(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
            await pause(0.02)
            leave(client)
            await rig.over("client_lost")
