"""gameproxy connect, as a program at a terminal of its own"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessTerminated
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from gameproxy import cli
from gameproxy.cli import connect
from tests.fake_transport import FakeTransport
from tests.pages import free_port
from tests.real.rig import Rig
from tests.real.streams import LONGEST_WAIT, REFUSED, GameServer, Stream, message


class Person(ProcessProtocol):
    """Somebody at a terminal in which ``gameproxy connect`` runs.

    :ivar seen: what stands on the terminal.
    :ivar over: fires with the exit status.
    """

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.seen = ""
        self.over: Deferred[int] = Deferred()
        self._awaited: list[tuple[str, Deferred[None]]] = []
        program = str(Path(sys.executable).with_name("gameproxy"))
        line = [program, "connect", *arguments]
        self._process: Any = reactor.spawnProcess(
            self, program, line, env=os.environ, path=str(folder), usePTY=True
        )

    async def sees(self, pattern: str) -> None:
        """Until something stands there."""
        found: Deferred[None] = Deferred()
        self._awaited.append((pattern, found))
        self._look()
        await found.addTimeout(LONGEST_WAIT, reactor)

    def types(self, text: bytes) -> None:
        """Type something."""
        self.transport.write(text)

    def interrupts(self) -> None:
        """Press Ctrl-C."""
        self._process.signalProcess("INT")

    def outReceived(self, data: bytes) -> None:
        self.seen += data.decode()
        self._look()

    def processEnded(self, reason: Failure) -> None:
        error: Any = reason.value
        self.over.callback(error.exitCode if isinstance(error, ProcessTerminated) else 0)

    def _look(self) -> None:
        for pattern, found in self._awaited:
            if re.search(pattern, self.seen) and not found.called:
                found.callback(None)


@pytest_twisted.ensureDeferred
async def test_at_a_terminal(tmp_path: Path) -> None:
    """What is typed goes and comes back; Ctrl-D leaves in good order."""
    async with Rig(tmp_path) as rig:
        person = Person(tmp_path, f"127.0.0.1:{rig.port}", "--guest", "ana")
        await person.sees(r"WELCOME guest:ana to echo on good, session \w+\r\n")
        person.types(b"hello\n")
        await person.sees(r"frame of 6 bytes: 10 68 65 6c 6c 6f  \\x10hello\r\n")
        person.types(b"\x04")
        assert await person.over.addTimeout(LONGEST_WAIT, reactor) == 0
        assert person.seen.endswith("you left\r\n")
        await rig.over("left")


async def full(server: GameServer, stream: Stream) -> None:
    """Has no room."""
    await server.take_admit(stream)
    stream.send(message(REFUSED, code="full", message="No room."))
    await stream.rest()


@pytest_twisted.ensureDeferred
async def test_in_the_queue(tmp_path: Path) -> None:
    """Who waits sees it in one line; Ctrl-C gives up, and then nothing is left at the proxy."""
    async with Rig(tmp_path, [("s2", "full", full)]) as rig:
        person = Person(tmp_path, f"127.0.0.1:{rig.port}", "--guest", "ana", "--game", "full")
        await person.sees(r"\r\x1b\[KSTATUS queued, position 1: [^\n]*$")
        person.interrupts()
        await person.over.addTimeout(LONGEST_WAIT, reactor)
        assert person.seen.endswith("\x1b[Kgiven up\r\n")
        await rig.over("client_lost")


class TriggerReactor:
    """The reactor, without what happens when it stops."""

    def __getattr__(self, name: str) -> Any:
        return getattr(reactor, name)

    def addSystemEventTrigger(self, *args: object) -> None:
        pass


@pytest_twisted.ensureDeferred
async def test_in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command dials the host and port that it was given; nobody there: 1, and that is said."""
    terminal = FakeTransport()

    def no_terminal(console: connect.Console, reactor: object) -> None:
        terminal.connect(console)
        terminal.loseConnection = terminal.reset  # type: ignore[method-assign]

    mains: list[Any] = []
    monkeypatch.setattr(connect, "StandardIO", no_terminal)
    monkeypatch.setattr(connect, "run_reactor", mains.append)
    port = free_port()
    cli.main(["connect", f"127.0.0.1:{port}", "--guest", "you"])
    assert await mains[0](TriggerReactor()) == 1
    assert terminal.written.decode().startswith(f"cannot connect to 127.0.0.1:{port}: ")
