"""Processes: told apart, signalled, and never mistaken for others."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from gameproxy.farm import LinuxProcesses


class ProcessesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.processes = LinuxProcesses()
        self.child = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", "import time; time.sleep(60)"],
            start_new_session=True,
        )
        self.addCleanup(self.child.wait)
        self.addCleanup(self.child.kill)
        self.name = self.processes.name(self.child.pid)

    def test_me(self) -> None:
        """The process that asks is there."""
        self.assertFalse(self.processes.is_gone(self.processes.me()))

    def test_later_process_with_the_same_pid(self) -> None:
        """One that was started at another time is another process: the one asked about is gone, and gets no signal."""
        earlier = replace(self.name, started="1")
        self.assertTrue(self.processes.is_gone(earlier))
        self.processes.signal(earlier, signal.SIGKILL)
        self.processes.signal(replace(self.name, started=None), signal.SIGKILL)
        self.assertFalse(self.processes.is_gone(self.name))
        self.assertIsNone(self.child.poll())

    def test_signal(self) -> None:
        """The process gets it; when it and all of its group have ended nobody does."""
        self.assertTrue(self.processes.signal(self.name, signal.SIGTERM))
        self.assertEqual(self.child.wait(10), -signal.SIGTERM)
        self.assertFalse(self.processes.signal(self.name, signal.SIGTERM))

    def test_group(self) -> None:
        """All processes of its group get it, as those that a shell started; also when it has ended itself."""
        for ended in (False, True):
            shell = subprocess.Popen(
                ["/bin/sh", "-c", "sleep 60; true"],
                start_new_session=True,
                stdout=subprocess.PIPE,
            )
            self.addCleanup(shell.kill)
            name = self.processes.name(shell.pid)
            while not Path(f"/proc/{shell.pid}/task/{shell.pid}/children").read_text():
                self.assertIsNone(shell.poll())
            if ended:
                shell.kill()
                shell.wait(10)
                self.assertTrue(self.processes.is_gone(name))
                self.assertTrue(self.processes.signal(name, 0))
            self.assertTrue(self.processes.signal(name, signal.SIGKILL))
            # The output ends when the last of them has.
            self.assertEqual(shell.communicate(timeout=10)[0], b"")

    def test_no_process(self) -> None:
        """What somebody wrote in place of a pid reaches nobody."""
        for pid in (-1, 0, 1, 2**40):
            nonsense = replace(self.name, pid=pid)
            self.assertTrue(self.processes.is_gone(nonsense))
            self.assertFalse(self.processes.signal(nonsense, 0))

    def test_group_of_others(self) -> None:
        """One in a group that it does not lead gets it alone: the group may be ours."""
        child = subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(60)"])
        self.addCleanup(child.kill)
        self.processes.signal(self.processes.name(child.pid), signal.SIGKILL)
        self.assertEqual(child.wait(10), -signal.SIGKILL)

    def test_zombie(self) -> None:
        """A process that has ended and was not waited for is gone."""
        self.child.kill()
        while not self.processes.is_gone(self.name):
            self.assertIsNotNone(self.name.started)
        self.assertEqual(self.processes.name(self.child.pid), self.name)

    def test_other_places(self) -> None:
        """Of another pid namespace nothing is known; another boot has ended all that was there before."""
        boot, namespace = self.name.place.split(" ")
        self.assertFalse(
            self.processes.is_gone(replace(self.name, place=f"{boot} other", started="1"))
        )
        self.assertTrue(self.processes.is_gone(replace(self.name, place=f"other {namespace}")))

    def test_without_proc(self) -> None:
        """Where /proc cannot be read no process can be told from another: none is gone, none gets a signal."""
        processes = LinuxProcesses(Path(self.mktemp()))
        here = processes.me().place
        for name in (self.name, replace(self.name, place=here), processes.name(self.child.pid)):
            processes.signal(name, signal.SIGKILL)
            self.assertFalse(processes.is_gone(name))
        self.assertFalse(self.processes.is_gone(replace(self.name, place=here)))
        self.assertIsNone(self.child.poll())

    def test_hidden(self) -> None:
        """A process of another user, which /proc may hide, is gone only when there is none with its pid."""
        proc = Path(self.mktemp())
        for name in ("sys/kernel/random", "self/ns"):
            (proc / name).mkdir(parents=True)
        (proc / "sys/kernel/random/boot_id").write_text("boot")
        (proc / "self/ns/pid").symlink_to("namespace")
        processes = LinuxProcesses(proc)
        hidden = replace(self.name, place=processes.me().place)
        self.assertFalse(processes.is_gone(hidden))
        self.child.kill()
        self.child.wait(10)
        self.assertTrue(processes.is_gone(hidden))
