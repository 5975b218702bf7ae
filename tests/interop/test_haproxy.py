"""Real input: HAProxy in front of a proxy, as operators have it."""

from __future__ import annotations

import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.protocol import Factory, ProcessProtocol
from twisted.python.failure import Failure

from tests.authority import Authority
from tests.real.rig import Rig
from tests.real.streams import Stream, pause, until
from tests.real.tls_streams import client_options, connect_tls

needs_haproxy = pytest.mark.skipif(
    shutil.which("haproxy") is None, reason="haproxy is not installed"
)
pytestmark = needs_haproxy
ELSEWHERE = "127.0.0.77"
"""Where the client comes from: not from where HAProxy does."""


class _HaProxy(ProcessProtocol):
    """The program; keeps what it says."""

    def __init__(self) -> None:
        self.said = b""
        self.ended: Deferred[None] = Deferred()

    def outReceived(self, data: bytes) -> None:
        self.said += data

    errReceived = outReceived

    def processEnded(self, reason: Failure) -> None:
        reason.trap(ProcessDone, ProcessTerminated)
        self.ended.callback(None)


@asynccontextmanager
async def haproxy(folder: Path, server: str, listens: str = "") -> AsyncIterator[int]:
    """Run it in front of a server, and give the port where it listens.

    :param server: the address, and how to speak with it.
    :param listens: how to speak with clients.
    """
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    configuration = folder / "haproxy.cfg"
    configuration.write_text(
        f"""
global
    maxconn 100
defaults
    mode tcp
    timeout connect 2s
    timeout client 10s
    timeout server 10s
    unique-id-format %ci_%cp
listen games
    bind 127.0.0.1:{port} {listens}
    server proxy {server}
"""
    )
    program = _HaProxy()
    path = shutil.which("haproxy")
    assert path is not None
    process: Any = reactor.spawnProcess(
        program, path, [path, "-db", "-f", str(configuration)], env={}
    )
    try:
        await until(lambda: [] if _listens(port) else [program.said.decode()])
        yield port
    finally:
        process.signalProcess("KILL")
        await program.ended


def _listens(port: int) -> bool:
    """Whether somebody listens there, as the system tells without connecting."""
    wanted = f":{port:04X} 00000000:0000 0A"
    return wanted in Path("/proc/net/tcp").read_text()


async def connect(port: int) -> Stream:
    """A client that comes from elsewhere."""
    stream = Stream()
    factory = Factory.forProtocol(lambda: stream)
    factory.noisy = False
    endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port, bindAddress=(ELSEWHERE, 0))
    await endpoint.connect(factory)
    return stream


def rig_for(folder: Path, more: str = "", tls: str = "") -> Rig:
    """A proxy that believes HAProxy."""
    return Rig(
        folder,
        more=f"""
            {tls}
            [proxy_protocol]
            listen = ["tcp:0:interface=127.0.0.1"]
            trusted = ["127.0.0.1"]
            {more}
        """,
    )


@pytest.mark.parametrize(
    "how",
    [
        "send-proxy",
        "send-proxy-v2",
        "send-proxy-v2 proxy-v2-options unique-id,crc32c",
        "send-proxy-v2-ssl-cn",
    ],
)
@pytest_twisted.ensureDeferred
async def test_headers(tmp_path: Path, how: str) -> None:
    """Whatever kind of header HAProxy sends, the session has the client's address."""
    async with rig_for(tmp_path) as rig:
        rig.game_servers["good"].addresses = [ELSEWHERE]
        behind = f"127.0.0.1:{rig.proxy.ports[1].getHost().port} {how}"
        async with haproxy(tmp_path, behind) as port:
            client = await connect(port)
            await rig.enter(client)
            await client.echo(b"\x10hello")
            await rig.leave(client)
            assert rig.records[-1].peer.address == ELSEWHERE
            assert rig.records[-1].peer.local_port == port
            assert rig.proxy.headers.passed == 1


@pytest.mark.parametrize("how", ["send-proxy", "send-proxy-v2"])
@pytest_twisted.ensureDeferred
async def test_checks(tmp_path: Path, how: str) -> None:
    """Its checks whether the proxy is there leave no session and no line, and find that it is."""
    async with rig_for(tmp_path) as rig:
        rig.game_servers["good"].addresses = [ELSEWHERE]
        number = rig.proxy.ports[1].getHost().port
        lines = len(rig.lines)
        behind = f"127.0.0.1:{number} {how} check inter 50"
        async with haproxy(tmp_path, behind) as port:
            await pause(0.5)
            headers = rig.proxy.headers
            assert headers.unused >= 3
            assert (rig.records, rig.lines[lines:]) == ([], [])
            client = await connect(port)
            await rig.enter(client)
            await rig.leave(client)


@pytest_twisted.ensureDeferred
async def test_tls_passed_through(tmp_path: Path) -> None:
    """A client that shakes hands with the proxy itself, through HAProxy."""
    authority = Authority()
    authority.issue("play.example").write(tmp_path, "shown")
    tls = '[tls]\ncertificate = "shown.pem"\nkey = "shown.key"'
    async with rig_for(tmp_path, "tls = true", tls) as rig:
        behind = f"127.0.0.1:{rig.proxy.ports[1].getHost().port} send-proxy-v2"
        async with haproxy(tmp_path, behind) as port:
            client = await connect_tls(port, client_options(authority))
            await rig.enter(client)
            await client.echo(b"\x10" + bytes(100_000))
            await rig.leave(client)
            assert rig.records[-1].peer.secure


@pytest_twisted.ensureDeferred
async def test_ours_is_read_by_haproxy(tmp_path: Path) -> None:
    """HAProxy in front of a game server reads the header that a proxy writes, by TLS or not, and passes it on."""
    authority = Authority()
    authority.issue("play.example").write(tmp_path, "shown")
    heard: list[bytes] = []

    async def keep(server: object, stream: Stream) -> None:
        while b"\n" not in stream.received:
            await stream.change()
        heard.append(bytes(stream.received.partition(b"\n")[0]))
        while not stream.over:
            await stream.change()

    rig = Rig(
        tmp_path,
        admission="proxy-v2",
        good=False,
        servers=[("kept", "kept", keep)],
        more="""
            [tls]
            listen = ["tcp:0:interface=127.0.0.1"]
            certificate = "shown.pem"
            key = "shown.key"
        """,
    )
    async with rig:
        behind = f"127.0.0.1:{rig.game_servers['kept'].port.getHost().port} send-proxy"
        async with haproxy(tmp_path, behind, "accept-proxy") as port:
            rig.query("UPDATE game_servers SET port = ?", port)
            options = client_options(authority)
            for secure in (False, True):
                number = rig.proxy.ports[int(secure)].getHost().port
                client = await (connect_tls(number, options) if secure else connect(number))
                await rig.enter(client, game="kept")
                await until(lambda: [] if heard else ["nothing came"])
                source = "127.0.0.1" if secure else ELSEWHERE
                assert heard.pop().startswith(f"PROXY TCP4 {source} 127.0.0.1 ".encode())
                await rig.leave(client)
