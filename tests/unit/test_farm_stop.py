"""``farm stop`` where no proxy can be asked: real processes, and rows as a proxy has left them."""

from __future__ import annotations

import contextlib  # trial takes a `suppress` of the module for its own
import os
import signal
import subprocess
import threading
import time

from gameproxy.cli import farm_database, farm_stop
from gameproxy.farm import LinuxProcesses
from gameproxy.farm.keeper import STOP_GRACE
from gameproxy.farm.starter import key_file
from tests.unit.test_operator_commands import CommandTestCase, line

SHORT = 0.2
"""Seconds of grace for what does not end when asked."""


class StopTestCase(CommandTestCase):
    """A farm that a proxy has left behind."""

    def setUp(self) -> None:
        super().setUp()
        text = self.file.read_text()
        self.file.write_text(text.replace("[[servers]]", f"stop_grace = {SHORT}\n[[servers]]"))
        farm = self.world.proxy()
        farm.stop()
        self.world.reactor.settle()

    def run_server(self, command: str, state: str = "ready") -> subprocess.Popen[bytes]:
        """A game server, ``s2``, that is this shell command; it has said a line when this returns."""
        process = subprocess.Popen(
            ["sh", "-c", command], stdout=subprocess.PIPE, start_new_session=True
        )
        assert process.stdout is not None
        self.addCleanup(process.stdout.close)
        process.stdout.readline()
        name = LinuxProcesses().name(process.pid)
        self.row(name.pid, name.started, name.place, state)
        # As process 1 would, once the proxy is gone.
        reaper = threading.Thread(target=process.wait)
        reaper.start()
        self.addCleanup(reaper.join)
        self.addCleanup(self.kill_group, process.pid)
        key = key_file(self.database, "s2")
        key.parent.mkdir(exist_ok=True)
        key.touch()
        return process

    def kill_group(self, group: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)

    def row(self, pid: object, started: object, place: object, state: str = "ready") -> None:
        """The row of the game server ``s2``."""
        self.world.sql(
            "INSERT INTO game_servers (id, game, state, capacity, pid, process_started, place) "
            "VALUES ('s2', 'chess', ?, 2, ?, ?, ?)",
            state,
            pid,
            started,
            place,
        )

    def state(self) -> str:
        ((state,),) = self.world.sql("SELECT state FROM game_servers WHERE id = 's2'")
        return str(state)

    def has_group(self, group: int) -> bool:
        """Whether anything runs in a process group."""
        found = subprocess.run(["ps", "-A", "-o", "pgid=,stat="], capture_output=True, text=True)
        rows = (row.split() for row in found.stdout.splitlines())
        return any(int(pgid) == group and stat[0] != "Z" for pgid, stat in rows)


class StopTests(StopTestCase):
    """What can be ended is."""

    def test_ends_when_asked(self) -> None:
        """It gets SIGTERM and may end by itself; its row is closed, its key goes, and that is told."""
        server = self.run_server("trap 'exit 0' TERM; echo; while :; do sleep 0.05; done")
        document = self.document("farm", "stop", "s2")
        self.assertEqual(document, {"server": "s2", "state": "closed", "killed": False})
        self.assertEqual(server.wait(), 0)
        self.assertEqual(self.state(), "closed")
        self.assertFalse(key_file(self.database, "s2").exists())
        self.assertIn("has ended already", self.fails("farm", "stop", "s2"))

    def test_is_killed(self) -> None:
        """What does not end in its stop_grace is killed, with all of its group, and not sooner."""
        server = self.run_server("trap '' TERM; sleep 100 & echo; wait; sleep 100")
        before = time.monotonic()
        status, output, _ = self.gameproxy("farm", "stop", "s2")
        self.assertGreaterEqual(time.monotonic() - before, SHORT)
        self.assertEqual(status, 0)
        self.assertIn("No proxy could be asked.", output)
        self.assertIn("was killed", output)
        self.assertEqual(server.wait(), -signal.SIGKILL)
        self.assertFalse(self.has_group(server.pid))
        self.assertEqual(self.state(), "closed")

    def test_behind_a_wrapper(self) -> None:
        """When the first process ends and leaves another that does not, that one is killed."""
        server = self.run_server(
            "(trap '' TERM; echo; exec sleep 100) & trap 'exit 0' TERM; while :; do sleep 0.05; done"
        )
        self.assertTrue(self.document("farm", "stop", "s2")["killed"])
        self.assertEqual(server.wait(), 0)
        self.assertFalse(self.has_group(server.pid))

    def test_no_longer_configured(self) -> None:
        """A game server of a game that is not in the configuration any more has the time that is usual."""
        self.run_server("echo; exec sleep 100")
        self.world.sql("UPDATE game_servers SET game = 'go' WHERE id = 's2'")
        graces: list[float] = []
        is_over = farm_stop._is_over

        def noting(processes: LinuxProcesses, process: object, patience: float) -> bool:
            graces.append(patience)
            return is_over(processes, process, patience)  # type: ignore[arg-type]

        self.patch(farm_stop, "_is_over", noting)
        self.document("farm", "stop", "s2")
        self.assertEqual(graces, [STOP_GRACE])

    def test_had_ended(self) -> None:
        """The row of one that has ended is closed; a start that was under way has failed."""
        server = self.run_server("echo", "starting")
        server.wait()
        status, output, _ = self.gameproxy("farm", "stop", "s2")
        self.assertEqual(status, 0)
        self.assertIn("had ended already", output)
        self.assertEqual(self.state(), "closed")
        self.assertEqual(self.world.sql("SELECT failures FROM starts"), [(1,)])

    def test_another_process_by_now(self) -> None:
        """A process that has the pid by now, or its group, is left in peace: the start times differ."""
        other = self.run_server("trap '' HUP; echo; exec sleep 100")
        self.world.sql("UPDATE game_servers SET process_started = '1' WHERE id = 's2'")
        self.assertIn("had ended already", self.gameproxy("farm", "stop", "s2")[1])
        self.assertIsNone(other.poll())
        self.assertEqual(self.state(), "closed")

    def test_what_is_left_of_anothers_group(self) -> None:
        """When the process has ended before, a group of its number is not touched: it may be another's by now."""
        self.run_server("(trap '' TERM; echo; exec sleep 100) & exit 0")
        ((group,),) = self.world.sql("SELECT pid FROM game_servers WHERE id = 's2'")
        while LinuxProcesses()._stat(group)[0] is not None:
            time.sleep(0.01)
        self.assertIn("had ended already", self.gameproxy("farm", "stop", "s2")[1])
        self.assertTrue(self.has_group(group))

    def test_proxy_that_cannot_be_asked(self) -> None:
        """A proxy without a socket is in nobody's way."""
        self.reachable()
        self.run_server("echo; exec sleep 100")
        self.document("farm", "stop", "s2")
        self.assertEqual(self.state(), "closed")

    def test_proxy_that_may_have_done_it(self) -> None:
        """When a proxy was asked and gives no answer, the command does nothing by itself."""
        farm = self.reachable()
        self.answering(farm, line(answer={}), b"")
        server = self.run_server("echo; exec sleep 100")
        self.assertIn("it may have done it", self.fails("farm", "stop", "s2"))
        self.assertIsNone(server.poll())
        self.assertEqual(self.state(), "ready")


class OutOfReachTests(StopTestCase):
    """What cannot be ended from here: why is told, and the row stays as it is."""

    def test_elsewhere(self) -> None:
        """Another machine, another boot, another container."""
        here = LinuxProcesses().me()
        boot, namespace = here.place.split(" ")
        for place in (f"another-boot {namespace}", f"{boot} pid:[1]", "unknown unknown"):
            self.row(os.getpid(), here.started, place)
            self.assertIn("another machine or container", self.fails("farm", "stop", "s2"))
            self.assertEqual(self.state(), "ready")
            self.world.sql("DELETE FROM game_servers WHERE id = 's2'")

    def test_unknown(self) -> None:
        """A proxy was killed before it wrote down which process it had started; or somebody edited the row."""
        for pid in (None, "x", b"\x00"):
            self.row(pid, None, None)
            self.assertIn("is not known", self.fails("farm", "stop", "s2"))
            self.assertEqual(self.state(), "ready")
            self.world.sql("DELETE FROM game_servers WHERE id = 's2'")

    def test_anothers_process(self) -> None:
        """A process that this user may not signal is told as that."""
        server = self.run_server("echo; exec sleep 100")
        self.patch(LinuxProcesses, "signal", lambda *_: False)  # what EPERM comes to
        self.assertIn("belongs to another", self.fails("farm", "stop", "s2"))
        self.assertIsNone(server.poll())
        self.assertEqual(self.state(), "ready")

    def test_anothers_database(self) -> None:
        """Who may not write the database is told whose it is, and no process is touched."""
        server = self.run_server("echo; exec sleep 100")
        self.database.chmod(0o444)
        self.world.sql("PRAGMA journal_mode = DELETE")
        self.patch(farm_database.os, "access", lambda *_, **__: False)
        mode = {"rw": "ro"}
        transaction = farm_database._transaction
        self.patch(
            farm_database,
            "_transaction",
            lambda database, how, begin: transaction(database, mode.get(how, how), begin),
        )
        told = self.fails("farm", "stop", "s2")
        self.assertIn(f"readonly database: it belongs to {self.database.owner()}", told)
        self.assertIsNone(server.poll())
        self.patch(type(self.database), "owner", self.unknown_user)
        self.assertIn(f"user {os.getuid()}", self.fails("farm", "drain", "s2"))
        self.assertEqual(self.state(), "ready")

    def unknown_user(self, *_: object) -> str:
        raise KeyError

    def test_no_way_to_the_database(self) -> None:
        """A folder that this user may not enter is told as that."""

        def refuse(*_: object) -> bool:
            raise PermissionError(13, "Permission denied")

        self.patch(type(self.database), "exists", refuse)
        self.assertIn("Permission denied", self.fails("farm", "stop", "s2"))

    def test_does_not_die(self) -> None:
        """A process that is not gone even after SIGKILL, as in a hung file system, keeps its row."""
        self.run_server("echo; exec sleep 100")
        self.patch(farm_stop, "KILL_TIME", 0.1)
        self.patch(LinuxProcesses, "signal", lambda *_: True)
        self.assertIn("has not ended yet", self.fails("farm", "stop", "s2"))
        self.assertEqual(self.state(), "draining")

    def test_key_that_stays(self) -> None:
        """A key that cannot be removed is told; the server has ended all the same."""
        self.run_server("echo; exec sleep 100")
        key = key_file(self.database, "s2")
        key.unlink()
        key.mkdir()
        self.assertIn("its key cannot be removed", self.fails("farm", "stop", "s2"))
        self.assertEqual(self.state(), "closed")
