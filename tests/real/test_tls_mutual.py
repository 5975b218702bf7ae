"""Certificates that the proxy shows to game servers, and sides that do not read over TLS.

Every test but one has another session relay at the same time, and sees in the end that nothing is left.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet.ssl import TLSVersion

from tests.authority import Authority
from tests.real.streams import (
    GameServer,
    Stream,
    auth,
    promptly,
)
from tests.real.tls_scene import scene
from tests.real.tls_streams import client_options, connect_tls, server_options

# Game servers that want a certificate of the proxy


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize(
    ("which", "detail"),
    [
        ("none", "TLS: it wants a certificate, and was shown none"),
        ("other", "TLS: it does not know the CA of the certificate that it was shown"),
        ("expired", "TLS: it was shown a certificate that has expired"),
        ("good", ""),
    ],
)
@pytest_twisted.ensureDeferred
async def test_mutual(tmp_path: Path, which: str, detail: str, old: bool) -> None:
    """One that the game server believes lets the session in; else it is not reached, and the operator knows why."""
    authority = Authority()
    authority.write(tmp_path, "ca")
    issued = {
        "other": Authority("Other").issue("proxy"),
        "expired": authority.issue("proxy", ends=-timedelta(hours=1)),
        "good": authority.issue("proxy", purpose="client"),
    }
    more = 'servers_ca = "ca.pem"'
    if which in issued:
        issued[which].write(tmp_path, "proxy")
        more += '\nservers_certificate = "proxy.pem"\nservers_key = "proxy.key"'
    limits = {"lowerMaximumSecurityTo": TLSVersion.TLSv1_2} if old else {}
    options = server_options(authority.issue("127.0.0.1"), wants=authority, **limits)
    if old and which == "none":
        detail = "TLS: it refused the handshake"
    async with scene(tmp_path, options, more) as s, s.rig.canary(lines=2):
        if detail:
            await s.refused(detail)
        else:
            client = await s.plays()
            await s.rig.leave(client)


@pytest_twisted.ensureDeferred
async def test_mutual_without_a_handshake(tmp_path: Path) -> None:
    """Where no handshake follows, a game server that turns the proxy's certificate away loses the session."""
    authority = Authority()
    authority.write(tmp_path, "ca")

    async def wait(server: GameServer, stream: Stream) -> None:
        while not stream.over:
            await stream.change()

    options = server_options(authority.issue("127.0.0.1"), wants=authority)
    async with scene(tmp_path, options, script=wait, admission="none", good=False) as s:
        client = await s.rig.connect()
        client.send(auth(game="secure"))
        await client.rest()
        await s.rig.over("server_lost")


@pytest.mark.parametrize("lazy", ["client", "game server"])
@pytest_twisted.ensureDeferred
async def test_who_does_not_read(tmp_path: Path, lazy: str) -> None:
    """Over TLS, too, who takes nothing stops the other side, and is lost after stall_timeout."""
    authority = Authority()
    authority.write(tmp_path, "ca")
    authority.issue("play.example").write(tmp_path, "shown")

    async def talk(server: GameServer, stream: Stream) -> None:
        await server.admit(stream)
        await stream.body()
        if lazy == "client":
            for _ in range(200):
                stream.send(b"\x10" * 65_536)
        else:
            stream.stop_reading()
            return
        while not stream.over:
            await stream.change()

    more = """
        servers_ca = "ca.pem"
        certificate = "shown.pem"
        key = "shown.key"
        listen = ["tcp:0:interface=127.0.0.1"]
    """
    options = server_options(authority.issue("127.0.0.1"))
    async with scene(tmp_path, options, more, script=talk) as s, s.rig.canary():
        port = s.rig.proxy.ports[1].getHost().port
        client = await connect_tls(port, client_options(authority))
        await s.rig.enter(client, game="secure")
        if lazy == "client":
            client.stop_reading()
        client.send(b"\x10begin")
        if lazy == "game server":
            for _ in range(200):
                client.send(b"\x10" * 65_536)
        with promptly(0.3):
            await s.rig.over("client_lost" if lazy == "client" else "server_lost")
        traffic = s.rig.records[-1].traffic
        assert traffic.client_bytes + traffic.server_bytes < 100 * 65_536
        for stream in (client, *s.server.streams):
            if not stream.lost:
                stream.reset()
