"""Certificates that expire while a proxy runs. It takes as long as they are good for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.interfaces import IOpenSSLContextFactory
from twisted.logger import formatEvent
from zope.interface import implementer

from tests.authority import Authority, Issued
from tests.real.rig import Rig
from tests.real.streams import GameServer, auth, echo, pause, until
from tests.real.tls_streams import TlsStream, client_options, connect_tls, server_options

LIFE = timedelta(seconds=25)
"""How long they are good: long enough for a slow machine to connect with them."""

AFTER_FAILURE = 5.0
"""Seconds after which a game server that could not be reached twice, or once, is tried again."""


@implementer(IOpenSSLContextFactory)
class Shown:
    """The TLS of a game server that can be changed."""

    def __init__(self, options: Any) -> None:
        self.options = options

    def getContext(self) -> Any:
        return self.options.getContext()


class Ends:
    """A proxy between a client and a game server, all of whom show certificates.

    :ivar issued: what is shown: by the proxy to clients and to game servers, by the game server, and by the client.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority()
        self.authority.write(folder, "ca")
        self.issued = {
            "shown": self._issue("play.example", ends=LIFE),
            "proxy": self._issue("proxy", ends=LIFE),
            "client": self._issue("ana", ends=LIFE),
            "server": self._issue("127.0.0.1", ends=LIFE),
        }
        self.replace("shown")
        self.replace("proxy")
        self.game_server = GameServer("secure", echo)
        self.tls = Shown(self._server_options())

    def _issue(self, name: str, ends: timedelta) -> Issued:
        return self.authority.issue(name, ends=ends)

    def _server_options(self) -> Any:
        return server_options(self.issued["server"], wants=self.authority)

    def renew(self, which: str) -> None:
        """Have one that is good for long."""
        name = {"shown": "play.example", "server": "127.0.0.1"}.get(which, which)
        self.issued[which] = self._issue(name, ends=timedelta(days=1))
        self.tls.options = self._server_options()

    def replace(self, which: str) -> None:
        """Put it where the proxy reads it."""
        self.issued[which].write(self.folder, which)

    async def expire(self, player: TlsStream) -> None:
        """Until all have; somebody plays meanwhile."""
        last = max(one.chain[0].not_valid_after_utc for one in self.issued.values())
        while datetime.now(UTC) < last + timedelta(seconds=1):
            await player.echo(b"\x10on and on")
            await pause(0.2)

    def rig(self) -> Rig:
        """The proxy."""
        port = self.game_server.port.getHost().port
        return Rig(
            self.folder,
            timeout=10.0,
            more=f"""
                [tls]
                listen = ["tcp:0:interface=127.0.0.1"]
                certificate = "shown.pem"
                key = "shown.key"
                client_ca = "ca.pem"
                servers_ca = "ca.pem"
                servers_certificate = "proxy.pem"
                servers_key = "proxy.key"
                [[servers]]
                id = "secure"
                game = "secure"
                host = "127.0.0.1"
                port = {port}
                capacity = 20
                tls = true
            """,
        )

    async def connect(self, rig: Rig) -> TlsStream:
        """A client that begins a handshake and has said AUTH."""
        port = rig.proxy.ports[1].getHost().port
        stream = await connect_tls(
            port, client_options(self.authority, shows=self.issued["client"])
        )
        stream.send(auth(game="secure"))
        return stream


def says(rig: Rig, words: str, first: int = 0) -> bool:
    """Whether a line of the log has these words, from some line on."""
    return any(words in (formatEvent(line) or "") for line in rig.lines[first:])


@pytest.mark.timeout(180)
@pytest_twisted.ensureDeferred
async def test_certificates_that_expire_during_a_run(tmp_path: Path) -> None:
    """Who plays goes on when every certificate on the way has expired. Who comes is refused, and the log says whose
    is the fault: the proxy's, the client's, the game server's, the proxy's towards that. Each is mended by a new one;
    the proxy's by a reload."""
    ends = Ends(tmp_path)
    await ends.game_server.listen(ends.tls)
    try:
        async with ends.rig() as rig:
            player = await ends.connect(rig)
            assert (await player.body())[0] == 0x02, "no WELCOME"
            await player.echo(b"\x10while they are good")
            assert datetime.now(UTC) < ends.issued["shown"].chain[0].not_valid_after_utc
            await ends.expire(player)
            await player.echo(b"\x10when they have expired")

            async def is_lost(detail: str) -> None:
                before = len(rig.lines)
                client = await ends.connect(rig)
                assert await client.rest() == []
                assert (await rig.over("client_lost")).detail == f"TLS: {detail}"
                # Of a kind there is a line a second.
                await until(lambda: [] if says(rig, detail, before) else ["not logged"], 10.0)
                await player.echo(b"\x10still")

            async def is_not_reached(detail: str) -> None:
                client = await ends.connect(rig)
                await rig.refused(client, "server_unreachable")
                assert rig.records[-1].detail == f"secure: TLS: {detail}"
                await pause(AFTER_FAILURE)
                await player.echo(b"\x10still")

            await is_lost("it was shown a certificate that has expired")
            ends.renew("shown")
            ends.replace("shown")
            await is_lost("it was shown a certificate that has expired")
            rig.proxy.reload_certificates()
            assert says(rig, "The certificate of tls.servers_certificate has expired")
            assert not says(rig, "The certificate of tls.certificate has expired")
            await is_lost("its certificate has expired")
            ends.renew("client")
            await is_not_reached("its certificate has expired")
            ends.renew("server")
            await is_not_reached("it was shown a certificate that has expired")
            ends.renew("proxy")
            ends.replace("proxy")
            rig.proxy.reload_certificates()
            client = await ends.connect(rig)
            assert (await client.body())[0] == 0x02, "no WELCOME"
            await client.echo(b"\x10with new ones")
            await rig.leave(client)
            await player.echo(b"\x10to the end")
            await rig.leave(player)
            assert len(ends.game_server.admits) == 2
    finally:
        for stream in ends.game_server.streams:
            if not stream.lost:
                stream.reset()
        await ends.game_server.port.stopListening()
    for fault in ends.game_server.faults:
        fault.raiseException()
