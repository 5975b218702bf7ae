"""Game servers that are dialled by TLS: who is believed, and what is told of who is not.

Every test has another session relay at the same time, and sees in the end that nothing is left (tests/real/rig.py).
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from OpenSSL import SSL
from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.protocol import Factory
from twisted.internet.ssl import TLSVersion
from zope.interface import implementer

from gameproxy.tls import NotProved, TlsEndpoint
from tests.authority import DAY, Authority
from tests.real.streams import (
    CLOSE,
    GameServer,
    Stream,
    auth,
    message,
    pause,
)
from tests.real.tls_scene import scene
from tests.real.tls_streams import server_options


@pytest.mark.parametrize(
    ("name", "server", "asked_for"),
    [
        ("127.0.0.1", "", None),
        ("game.example", 'tls_name = "game.example"', b"game.example"),
        ("*.game.example", 'tls_name = "east.game.example"', b"east.game.example"),
        ("xn--zo-ija.example", 'tls_name = "zoë.example"', b"xn--zo-ija.example"),
        ("2001:db8::7", 'tls_name = "2001:DB8::7"', None),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_session(tmp_path: Path, name: str, server: str, asked_for: bytes | None) -> None:
    """A game server whose certificate is for its address, or for the name that is wanted, is played on. It is told the
    name that it is asked for, unless that is an address (RFC 6066)."""
    authority = Authority()
    authority.write(tmp_path, "ca")
    options = server_options(authority.issue(name, purpose="server"))
    async with scene(tmp_path, options, server=server) as s, s.rig.canary():
        client = await s.plays()
        assert s.server.streams[0].transport.getHandle().get_servername() == asked_for
        client.send(message(CLOSE, code="left", message="bye"))
        assert await client.rest() == []
        record = await s.rig.over("left")
        assert not record.peer.secure


@pytest.mark.parametrize(
    ("which", "server", "detail"),
    [
        ("game.example", "", "its certificate is not for 127.0.0.1"),
        ("127.0.0.2", "", "its certificate is not for 127.0.0.1"),
        ("127.0.0.1", 'tls_name = "game.example"', "its certificate is not for game.example"),
        ("evil.example", 'tls_name = "game.example"', "its certificate is not for game.example"),
        ("", "", "its certificate is not for 127.0.0.1"),
        ("other", "", "its certificate comes from an unknown CA"),
        ("expired", "", "its certificate has expired"),
        ("early", "", "its certificate is not valid yet"),
        ("client", "", "its certificate is for something else"),
        ("broken chain", "", "its certificate comes from an unknown CA"),
        ("itself", "", "its certificate is signed by itself alone"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_certificates_that_are_not_believed(
    tmp_path: Path, which: str, server: str, detail: str
) -> None:
    """A wrong name, an unknown authority, a certificate out of its time or purpose: the game server is not reached."""
    authority = Authority()
    authority.write(tmp_path, "ca")
    ip = "127.0.0.1"
    between = Authority("Between", authority).issue(ip)
    alone = Authority("Itself")
    issued = {
        "other": lambda: Authority("Other").issue(ip),
        "expired": lambda: authority.issue(ip, ends=-timedelta(hours=1)),
        "early": lambda: authority.issue(ip, begins=DAY / 2),
        "client": lambda: authority.issue(ip, purpose="client"),
        "broken chain": lambda: type(between)(between.chain[:1], between.key),
        "itself": lambda: type(between)((alone.certificate,), alone.key),
        "": lambda: authority.issue(),
    }.get(which, lambda: authority.issue(which))()
    async with scene(tmp_path, server_options(issued), server=server) as s, s.rig.canary():
        await s.refused(f"TLS: {detail}")


@pytest_twisted.ensureDeferred
async def test_the_systems_authorities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without servers_ca those are believed that the system knows, and nobody else; with it, they are not."""
    known = Authority("Known")
    monkeypatch.setenv("SSL_CERT_FILE", str(known.write(tmp_path, "known")))
    Authority().write(tmp_path, "ca")
    unknown = "TLS: its certificate comes from an unknown CA"
    options = server_options(Authority("Unknown").issue("127.0.0.1"))
    async with scene(tmp_path, options, more="") as s, s.rig.canary():
        await s.refused(unknown)
    options = server_options(known.issue("127.0.0.1"))
    for more, is_known in (("", True), ('servers_ca = "ca.pem"', False)):
        (tmp_path / "farm.db").unlink()
        async with scene(tmp_path, options, more=more) as s, s.rig.canary(lines=2):
            if is_known:
                await s.rig.leave(await s.plays())
            else:
                await s.refused(unknown)


@implementer(IOpenSSLClientConnectionCreator)
class Careless:
    """TLS in which nobody looks at certificates."""

    def clientConnectionForTLS(self, protocol: object) -> SSL.Connection:
        return SSL.Connection(SSL.Context(SSL.TLS_METHOD), None)


@pytest_twisted.ensureDeferred
async def test_who_was_not_judged_is_not_believed() -> None:
    """Were OpenSSL not to ask about a certificate, the connection would not be made for that."""
    heard: list[bytes] = []

    async def listen_only(server: GameServer, stream: Stream) -> None:
        while not stream.over:
            await stream.change()
        heard.append(bytes(stream.received))

    server = GameServer("careless", listen_only)
    await server.listen(server_options(Authority().issue("127.0.0.1")))
    port = server.port.getHost().port
    careless: Any = Careless()
    endpoint = TlsEndpoint(
        TCP4ClientEndpoint(reactor, "127.0.0.1", port), careless, "127.0.0.1", reactor
    )
    said = Stream()
    said.connectionMade = lambda: said.send(b"secret")  # type: ignore[method-assign]  # it would
    with pytest.raises(NotProved):
        await endpoint.connect(Factory.forProtocol(lambda: said))
    while not heard:
        await pause(0.01)
    assert heard == [b""]
    await server.port.stopListening()


@pytest.mark.parametrize("admission", ["handshake", "proxy-v2", "none"])
@pytest_twisted.ensureDeferred
async def test_nothing_is_said_before_it_is_proved(tmp_path: Path, admission: str) -> None:
    """However sessions are announced, a game server that is not believed hears nothing of one, and no client is let
    in."""
    Authority().write(tmp_path, "ca")
    heard: list[Stream] = []

    async def listen_only(server: GameServer, stream: Stream) -> None:
        heard.append(stream)
        await stream.change()

    options = server_options(Authority("Other").issue("127.0.0.1"))
    async with scene(tmp_path, options, script=listen_only, admission=admission, good=False) as s:
        await s.refused("TLS: its certificate comes from an unknown CA")
        assert [bytes(stream.received) for stream in heard] == [b""]


@pytest_twisted.ensureDeferred
async def test_the_header_of_admission(tmp_path: Path) -> None:
    """With proxy-v2 the header is the first that comes, within TLS."""
    authority = Authority()
    authority.write(tmp_path, "ca")
    heard: list[bytes] = []

    async def keep(server: GameServer, stream: Stream) -> None:
        while len(stream.received) < 63:
            await stream.change()
        heard.append(bytes(stream.received))
        while not stream.over:
            await stream.change()

    options = server_options(authority.issue("127.0.0.1"))
    async with scene(tmp_path, options, script=keep, admission="proxy-v2", good=False) as s:
        client = await s.rig.join(game="secure")
        session = next(iter(s.rig.proxy.sessions)).id
        while not heard:
            await pause(0.01)
        assert heard[0].startswith(b"\r\n\r\n\0\r\nQUIT\n\x21\x11")
        assert heard[0].endswith(b"\x05\0\x20" + session.encode())
        await s.rig.leave(client)


@pytest_twisted.ensureDeferred
async def test_no_tls_there(tmp_path: Path) -> None:
    """A game server that speaks no TLS is not reached, and the operator is told so."""
    Authority().write(tmp_path, "ca")
    async with scene(tmp_path, None) as s, s.rig.canary():
        await s.refused("TLS: it does not speak TLS")


@pytest_twisted.ensureDeferred
async def test_old_versions(tmp_path: Path) -> None:
    """TLS 1.1 is not spoken with game servers."""
    authority = Authority()
    authority.write(tmp_path, "ca")
    old = {"insecurelyLowerMinimumTo": TLSVersion.TLSv1_0}
    options = server_options(
        authority.issue("127.0.0.1"), lowerMaximumSecurityTo=TLSVersion.TLSv1_1, **old
    )
    async with scene(tmp_path, options) as s, s.rig.canary():
        await s.refused("TLS: it speaks no version of TLS that is allowed")


@pytest_twisted.ensureDeferred
async def test_slow_handshakes(tmp_path: Path) -> None:
    """A game server that accepts and then says nothing has connect_timeout for both."""
    Authority().write(tmp_path, "ca")

    async def say_nothing(server: GameServer, stream: Stream) -> None:
        while not stream.over:
            await stream.change()

    async with scene(tmp_path, None, script=say_nothing, timeout=1.0) as s, s.rig.canary():
        await s.refused("TLS: the handshake took too long")


@pytest_twisted.ensureDeferred
async def test_a_client_that_leaves_meanwhile(tmp_path: Path) -> None:
    """A session that ends while its game server is asked who it is leaves no connection there."""
    Authority().write(tmp_path, "ca")

    async def say_nothing(server: GameServer, stream: Stream) -> None:
        while not stream.over:
            await stream.change()

    async with scene(tmp_path, None, script=say_nothing) as s, s.rig.canary():
        client = await s.rig.connect()
        client.send(auth(game="secure"))
        while not s.server.streams:
            await pause(0.01)
        client.reset()
        await s.rig.over("client_lost")
        while not s.server.streams[0].lost:
            await s.server.streams[0].change()
