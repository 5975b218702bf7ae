"""gameproxy.cli.demo_keys, demo_controls and demo_tide: what is pressed, what that does, and how many bots play"""

from __future__ import annotations

import os
import termios
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from gameproxy.cli.demo_controls import STEP, Controls
from gameproxy.cli.demo_facts import ServerRow
from gameproxy.cli.demo_keys import Keyboard, KeyReader, keys_may_be_read
from gameproxy.cli.demo_tide import LOWEST, PERIOD, Tide, ebb_and_flow


class KeyReaderTests(SynchronousTestCase):
    """Keys told from bytes."""

    def test_characters(self) -> None:
        """Characters are keys; control characters and what is not ASCII are none."""
        self.assertEqual(KeyReader().keys(b"k+\r\n\x00\x13\xc3\xa4 q"), ["k", "+", " ", "q"])

    def test_arrows(self) -> None:
        """Arrows are known in both ways in which terminals send them, with Ctrl too; other keys are left out."""
        data = b"\x1b[A\x1bOB\x1b[1;5Ax\x1b[C\x1b[3~\x1b[15~y"
        self.assertEqual(KeyReader().keys(data), ["up", "down", "up", "x", "y"])

    def test_escape(self) -> None:
        """Escape alone is no key, and does not swallow more than the next."""
        reader = KeyReader()
        self.assertEqual(reader.keys(b"\x1b"), [])
        self.assertEqual(reader.keys(b"k"), ["k"])

    @given(st.data())
    def test_pieces(self, data: st.DataObject) -> None:
        """It does not matter in which pieces the bytes come."""
        parts = st.sampled_from([b"k", b"\x1b[A", b"\x1bOB", b"\x1b[1;5A", b"\x1b[3~", b"q"])
        whole = b"".join(data.draw(st.lists(parts, max_size=6)))
        expected = KeyReader().keys(whole)
        reader, keys, rest = KeyReader(), [], whole
        while rest:
            size = data.draw(st.integers(1, len(rest)))
            keys += reader.keys(rest[:size])
            rest = rest[size:]
        self.assertEqual(keys, expected)

    @given(st.lists(st.binary(max_size=20), max_size=6))
    def test_anything(self, pieces: list[bytes]) -> None:
        """Whatever comes gives keys, and little of it is kept."""
        reader = KeyReader()
        for piece in pieces:
            for key in reader.keys(piece):
                self.assertTrue(key in ("up", "down") or (len(key) == 1 and key.isprintable()))
            self.assertLess(len(reader._rest), 12)


class FakeReactor:
    """Reads from nobody."""

    def __init__(self) -> None:
        self.readers: list[Any] = []

    def addReader(self, reader: Any) -> None:
        self.readers.append(reader)

    def removeReader(self, reader: Any) -> None:
        self.readers.remove(reader)


class KeyboardTests(SynchronousTestCase):
    """A terminal that gives keys."""

    def setUp(self) -> None:
        self.person, self.terminal = os.openpty()
        self.addCleanup(self.close)
        self.before = termios.tcgetattr(self.terminal)
        self.reactor = FakeReactor()
        self.keys: list[str] = []
        self.gone = 0
        self.keyboard = Keyboard(
            self.reactor,  # type: ignore[arg-type]  # as far as it is needed
            self.terminal,
            self.keys.append,
            self.count_gone,
        )

    def close(self) -> None:
        for fd in (self.person, self.terminal):
            if fd >= 0:
                os.close(fd)

    def count_gone(self) -> None:
        self.gone += 1

    def test_keys(self) -> None:
        """A key is told when it is pressed, without Enter, and not echoed."""
        self.assertEqual(self.reactor.readers, [self.keyboard])
        self.assertEqual(self.keyboard.fileno(), self.terminal)
        self.assertEqual(self.keyboard.logPrefix(), "keyboard")
        os.write(self.person, b"k\x1b[A")
        self.keyboard.doRead()
        self.assertEqual(self.keys, ["k", "up"])
        os.set_blocking(self.person, False)
        self.assertRaises(BlockingIOError, os.read, self.person, 1)

    def test_what_keys_may_not_do(self) -> None:
        """Ctrl-C goes on to interrupt; nothing stops the output, the process, or kills it untidily."""
        settings = termios.tcgetattr(self.terminal)
        self.assertTrue(settings[3] & termios.ISIG)
        self.assertEqual(settings[6][termios.VINTR], b"\x03")
        self.assertEqual(settings[6][termios.VSUSP], b"\0")
        self.assertEqual(settings[6][termios.VQUIT], b"\0")
        self.assertFalse(settings[0] & termios.IXON)
        self.assertFalse(settings[3] & (termios.ICANON | termios.ECHO))

    def test_close(self) -> None:
        """When it is closed the terminal is as it was, and is read no more."""
        self.keyboard.close()
        self.keyboard.close()
        self.assertEqual(termios.tcgetattr(self.terminal), self.before)
        self.assertEqual(self.reactor.readers, [])
        self.assertEqual(self.gone, 0)

    def test_terminal_is_closed(self) -> None:
        """That the terminal was closed is told, and it is read no more."""
        os.close(self.person)
        self.person = -1
        self.keyboard.doRead()
        self.assertEqual((self.gone, self.reactor.readers), (1, []))

    def test_reactor_gives_up(self) -> None:
        """So is that the reactor does not read it any more."""
        self.keyboard.connectionLost(Failure(ConnectionLost()))
        self.assertEqual((self.gone, self.reactor.readers), (1, []))

    def test_may_be_read(self) -> None:
        """Keys are read of a terminal in whose foreground this process is, and of nothing else."""
        here, there = os.pipe()
        try:
            self.assertFalse(keys_may_be_read(here))
        finally:
            os.close(here)
            os.close(there)
        self.assertFalse(keys_may_be_read(here))
        self.assertFalse(keys_may_be_read(self.terminal))  # which is not this process's own


class FakeStage:
    """Notes what is done to it."""

    def __init__(self, *servers: ServerRow) -> None:
        self.servers = servers
        self.done: list[str] = []
        self.bots = 40

    def kill(self, server: ServerRow) -> bool:
        self.done.append(f"kill {server.id}")
        return server.pid is not None

    def drain(self, server: ServerRow) -> None:
        self.done.append(f"drain {server.id}")

    def change_bots(self, difference: int) -> int:
        self.bots += difference
        return self.bots

    def end(self) -> None:
        self.done.append("end")


SERVERS = (
    ServerRow("a", "arena", "ready", 8, 3, pid=1),
    ServerRow("b", "arena", "ready", 8, 7, 1, pid=2),
    ServerRow("c", "arena", "starting", 8),
)


class ControlsTests(SynchronousTestCase):
    """What keys do. Each that does something says what, in one line."""

    def press(self, controls: Controls, keys: list[str]) -> None:
        for key in keys:
            said = len(self.said)
            controls.press(key)
            self.assertEqual(len(self.said), said + 1)

    def controls(self, *servers: ServerRow) -> Controls:
        self.said: list[str] = []
        self.stage = FakeStage(*servers)
        return Controls(self.stage, self.said.append)

    def test_kill_fullest(self) -> None:
        """k kills the fullest game server."""
        self.press(self.controls(*SERVERS), ["k"])
        self.assertEqual(self.stage.done, ["kill b"])
        self.assertEqual(self.said, ["b was killed, with 8 sessions on it"])

    def test_kill_selected(self) -> None:
        """Or the one that is selected."""
        self.press(self.controls(replaced("a", 1), *SERVERS[1:]), ["down", "k"])
        self.assertEqual(self.stage.done, ["kill a"])
        self.assertEqual(self.said[-1], "a was killed, with 1 session on it")

    def test_kill_nothing(self) -> None:
        """One that has no process cannot be killed, and that is said."""
        self.press(self.controls(*SERVERS), ["up", "k"])
        self.assertEqual(self.stage.done, ["kill c"])
        self.assertEqual(self.said[-1], "c has no process that could be killed")

    def test_select(self) -> None:
        """The arrows go through the game servers, from either end, and no further."""
        controls = self.controls(*SERVERS)
        selected = []
        for key in ("down", "down", "down", "down", "up", "up", "up"):
            self.press(controls, [key])
            selected.append(controls.selected)
        self.assertEqual(selected, ["a", "b", "c", "c", "b", "a", "a"])
        self.assertEqual(self.said[0], "a is selected")

    def test_selected_is_gone(self) -> None:
        """When the selected one is gone, none is."""
        controls = self.controls(*SERVERS)
        self.press(controls, ["down"])
        self.stage.servers = SERVERS[1:]
        self.press(controls, ["d"])
        self.assertEqual(self.stage.done, ["drain b"])
        self.assertIsNone(controls.selected)

    def test_drain(self) -> None:
        """d drains."""
        self.press(self.controls(*SERVERS), ["d"])
        self.assertEqual(self.stage.done, ["drain b"])
        self.assertIn("b is drained", self.said[0])

    def test_no_servers(self) -> None:
        """While there is no game server, that is said."""
        self.press(self.controls(), ["k", "d", "up", "down"])
        self.assertEqual(self.stage.done, [])
        self.assertEqual(set(self.said), {"there is no game server yet"})

    def test_bots(self) -> None:
        """+ and - add and take away bots; = is + without shift."""
        self.press(self.controls(), ["+", "=", "-"])
        self.assertEqual(self.said, [f"{40 + STEP * n} bots from now on" for n in (1, 2, 1)])

    def test_pause(self) -> None:
        """p pauses, and goes on."""
        controls = self.controls()
        self.press(controls, ["p"])
        self.assertTrue(controls.paused)
        self.press(controls, ["p"])
        self.assertFalse(controls.paused)

    def test_quit(self) -> None:
        """q ends it."""
        self.press(self.controls(*SERVERS), ["q"])
        self.assertEqual(self.stage.done, ["end"])

    def test_other_keys(self) -> None:
        """Others do nothing."""
        controls = self.controls(*SERVERS)
        for key in 'xK1 "':
            controls.press(key)
        self.assertEqual((self.stage.done, self.said), ([], []))


def replaced(id: str, connections: int) -> ServerRow:
    """A ready game server with so many connections."""
    return ServerRow(id, "arena", "ready", 8, connections, pid=1)


class FakeCrowd:
    """Counts bots."""

    def __init__(self) -> None:
        self.count = 0

    def __len__(self) -> int:
        return self.count

    def add(self, count: int) -> None:
        self.count += count

    def remove(self, count: int) -> None:
        self.count -= count


class TideTests(SynchronousTestCase):
    """How many bots play."""

    def tide(self, most: int, part: Callable[[float], float]) -> tuple[Tide, FakeCrowd]:
        crowd = FakeCrowd()
        return Tide(crowd, most, part), crowd  # type: ignore[arg-type]  # as far as it is needed

    def test_ebb_and_flow(self) -> None:
        """All play for a while around high tide; at low tide a part does, but not none."""
        for seconds in (0.0, 8.0, PERIOD - 8.0, PERIOD, 10 * PERIOD + 5):
            self.assertEqual(ebb_and_flow(seconds), 1.0)
        self.assertAlmostEqual(ebb_and_flow(PERIOD / 2), LOWEST)
        self.assertGreater(ebb_and_flow(PERIOD / 4), LOWEST)
        self.assertLess(ebb_and_flow(PERIOD / 4), 1.0)

    def test_they_come_by_and_by(self) -> None:
        """They do not come all at once, nor leave so."""
        tide, crowd = self.tide(40, lambda seconds: 1.0 if seconds < 5 else 0.25)
        counts = []
        for second in (0.0, 1.0, 2.0, 3.0, 5.0, 6.0):
            tide.move(second)
            counts.append(len(crowd))
        self.assertEqual(counts, [4, 8, 12, 16, 12, 10])
        tide.move(7.0)
        self.assertEqual(len(crowd), 10)

    def test_other_number(self) -> None:
        """When there are to be more or fewer of them, or none, they come and go until it is so."""
        tide, crowd = self.tide(10, lambda seconds: 1.0)
        for most in (10, 35, 3, 0):
            tide.most = most
            for second in range(20):
                tide.move(float(second))
            self.assertEqual(len(crowd), most)
