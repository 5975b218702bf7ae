"""Ghosts: clients that are gone without a word, as when the power is lost or a cable is pulled.

A ghost's client runs in a network namespace of its own, joined to the proxy's by a pair of virtual interfaces, until
its end of that is set down. It takes root, and iproute2.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Self

import pytest
from twisted.internet.threads import deferToThread

from tests.real.crowd import Town, until
from tests.real.streams import auth, frame

KINDS = ("idle", "talking", "deaf")
"""What a client did before it was gone: nothing; it sent and received; it sent and took nothing, until all was full."""
_CLIENT_PROGRAM = """
import socket, sys, threading, time
address, port, first, kind = sys.argv[1:]
stream = socket.create_connection((address, int(port)), timeout=20)
stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
stream.settimeout(None)
stream.sendall(bytes.fromhex(first))
while b'"session"' not in (data := stream.recv(65536)):
    assert data, "refused"
if kind == "talking":
    def listen():
        while stream.recv(65536):
            pass
    threading.Thread(target=listen, daemon=True).start()
elif kind == "deaf":
    stream.settimeout(0.5)
    try:
        while True:
            stream.sendall(bytes([0, 1, 0, 0, 16]) + bytes(0xFFFF))
    except TimeoutError:
        pass
print("in", flush=True)
stream.settimeout(None)
while kind == "talking":
    stream.sendall(bytes([0, 0, 0, 1, 16]))
    time.sleep(0.0001)
time.sleep(1000)
"""


class Cable:
    """A network of two machines: the one that the tests are on, and another.

    :ivar here: the address of the one.
    :ivar there: that of the other.
    """

    def __init__(self) -> None:
        me = os.getpid()
        # A pair of addresses for each process (RFC 2544: they are for tests of devices).
        net = ip_address("198.18.0.0") + me % (1 << 15) * 4
        self.here, self.there = str(net + 1), str(net + 2)
        self._space, self._near, self._far = f"gp{me}", f"gpn{me}", f"gpf{me}"
        self._programs: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        try:
            self._ip("netns", "add", self._space)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"network namespaces cannot be made: {_reason(error)}")
        try:
            peer = ("peer", "name", self._far, "netns", self._space)
            self._ip("link", "add", self._near, "type", "veth", *peer)
            self._ip("address", "add", f"{self.here}/30", "dev", self._near)
            self._ip("link", "set", self._near, "up")
            self._ip("-n", self._space, "address", "add", f"{self.there}/30", "dev", self._far)
            self._ip("-n", self._space, "link", "set", self._far, "up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for program in self._programs:
            program.kill()
            program.communicate()
        # Without the one interface, both go when the system has got round to it.
        with suppress(subprocess.CalledProcessError):
            self._ip("link", "delete", self._near)
        self._ip("netns", "delete", self._space)

    def run(self, *command: str) -> subprocess.Popen[bytes]:
        """Start a program on the other machine."""
        inside = ["ip", "netns", "exec", self._space, *command]
        program = subprocess.Popen(inside, stdout=subprocess.PIPE)
        self._programs.append(program)
        return program

    def pull(self) -> None:
        """Nothing comes through any more, and nobody is told."""
        self._ip("-n", self._space, "link", "set", self._far, "down")

    def _ip(self, *arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True, capture_output=True)


def _reason(error: Exception) -> str:
    said = getattr(error, "stderr", None)
    return str(error) if said is None else said.decode().strip()


class GhostTown(Town):
    """A town that can also be reached over a cable."""

    def __init__(self, folder: Path, cable: Cable, game: str, proxies: int = 1, **settings: str):
        super().__init__(folder, game, proxies, **settings)
        self._cable = cable
        config = folder / "gameproxy.toml"
        here = '"tcp:0:interface=127.0.0.1"'
        config.write_text(
            config.read_text().replace(here, f'{here}, "tcp:0:interface={cable.here}"')
        )

    async def haunt(self, player: str, kind: str = "idle", proxy: int = 0) -> None:
        """Have a client of this kind on the other machine let in."""
        found = await self.proxies[proxy].says(r"starting on \d+(?s:.*?)starting on (\d+)")
        body = auth(mechanism="ticket", name=None, ticket=self.ticket(player))
        program = self._cable.run(
            *(sys.executable, "-I", "-S", "-c", _CLIENT_PROGRAM),
            *(self._cable.here, found[1], frame(body).hex(), kind),
        )
        assert program.stdout is not None
        line = await deferToThread(program.stdout.readline)
        assert line == b"in\n", line
        await until(lambda: self.state_of(player) == "connected")

    def state_of(self, player: str) -> str | None:
        """That of a player's slot, if there is one; there is never more than one that is to stay."""
        found = self.query("SELECT state FROM slots WHERE player = ? AND evict IS NULL", player)
        assert len(found) < 2
        return str(found[0][0]) if found else None

    def ends(self, player: str) -> list[str]:
        """How the sessions of a player have ended, as the proxies' logs tell."""
        logs = "\n".join(proxy.output for proxy in self.proxies)
        return re.findall(
            rf"Session \S+ from {self._cable.there} ended: (\w+) \(player '{player}'", logs
        )

    def unacknowledged(self) -> list[int]:
        """How many bytes the proxies' system keeps for each ghost."""
        found = subprocess.run(
            ["ss", "-tnH", "state", "established", "src", self._cable.here],
            capture_output=True,
            check=True,
        )
        return [int(line.split()[1]) for line in found.stdout.splitlines()]
