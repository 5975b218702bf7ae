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
        """The process itself gets it."""
        self.processes.signal(self.name, signal.SIGTERM)
        self.assertEqual(self.child.wait(10), -signal.SIGTERM)
        self.processes.signal(self.name, signal.SIGTERM)

    def test_group(self) -> None:
        """The process group of one that leads its own gets it."""
        self.processes.signal(self.name, signal.SIGKILL, group=True)
        self.assertEqual(self.child.wait(10), -signal.SIGKILL)

    def test_group_of_others(self) -> None:
        """One in a group that it does not lead gets it alone: the group may be ours."""
        child = subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(60)"])
        self.addCleanup(child.kill)
        self.processes.signal(self.processes.name(child.pid), signal.SIGKILL, group=True)
        self.assertEqual(child.wait(10), -signal.SIGKILL)

    def test_zombie(self) -> None:
        """A process that has ended and was not waited for is gone."""
        self.child.kill()
        while not self.processes.is_gone(self.name):
            self.assertIsNotNone(self.name.started)
        self.assertIsNone(self.processes.name(self.child.pid).started)

    def test_other_places(self) -> None:
        """Of another pid namespace nothing is known; another boot has ended all that was there before."""
        boot, namespace = self.name.place.split(" ")
        self.assertFalse(
            self.processes.is_gone(replace(self.name, place=f"{boot} other", started="1"))
        )
        self.assertTrue(self.processes.is_gone(replace(self.name, place=f"other {namespace}")))

    def test_without_proc(self) -> None:
        """Where /proc cannot be read no process can be told from another, and none gets a signal."""
        processes = LinuxProcesses(Path(self.mktemp()))
        processes.signal(replace(self.name, place=processes.me().place), signal.SIGKILL)
        self.assertIsNone(self.child.poll())
