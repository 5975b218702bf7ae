"""gameproxy.admin.process: what a proxy takes of the machine, read of this one"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from pathlib import Path

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from gameproxy.admin import process
from gameproxy.admin.process import ProcessReader, ProcessReading, count_descriptors


class ProcessTests(SynchronousTestCase):
    """The process that runs this test."""

    def setUp(self) -> None:
        self.in_thread = 0

    def run_in_thread(self, count: Callable[[], int]) -> Deferred[int]:
        self.in_thread += 1
        return succeed(count())

    def read(self) -> ProcessReading:
        reader = ProcessReader(self.run_in_thread)
        return self.successResultOf(Deferred.fromCoroutine(reader.read()))

    def test_memory(self) -> None:
        """Memory is what /proc/self/status says, nearly: it is read at another moment."""
        status = Path("/proc/self/status").read_text()
        told = {line.split(":")[0]: line.split()[1] for line in status.splitlines() if "kB" in line}
        found = self.read()
        self.assertAlmostEqual(found.resident / 1024, int(told["VmRSS"]), delta=4096)
        self.assertAlmostEqual(found.virtual / 1024, int(told["VmSize"]), delta=4096)

    def test_processor(self) -> None:
        """Processor time grows with what is done."""
        before = self.read().processor
        end = time.process_time() + 0.05
        while time.process_time() < end:
            pass
        self.assertGreaterEqual(self.read().processor, before + 0.03)

    def test_start(self) -> None:
        """It was started before now, and after the machine; the time does not change."""
        first, second = self.read(), self.read()
        self.assertEqual(first.started_at, second.started_at)
        age = time.time() - first.started_at
        uptime = float(Path("/proc/uptime").read_text().split()[0])
        self.assertTrue(0 < age < uptime + 2.0, age)

    def test_descriptors(self) -> None:
        """Descriptors are counted, whether the kernel tells how many there are, or all have to be looked at."""
        self.assertEqual(self.read().max_descriptors, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        before = self.read().descriptors
        more = [os.dup(0) for _ in range(7)]
        try:
            self.assertEqual(self.read().descriptors, before + 7)
            self.assertAlmostEqual(count_descriptors(), before + 7, delta=1)
        finally:
            for one in more:
                os.close(one)

    def test_old_kernel(self) -> None:
        """Where the kernel does not tell, they are counted in a thread: with thousands it takes a while."""
        counted = self.in_thread

        class Folder:
            """As before Linux 6.2."""

            def stat(self) -> os.stat_result:
                return os.stat_result((0,) * 10)

            def __fspath__(self) -> str:
                return "/proc/self/fd"

        self.patch(process, "_FOLDER", Folder())
        self.assertEqual(self.read().descriptors, count_descriptors())
        self.assertEqual(self.in_thread, counted + 1)
