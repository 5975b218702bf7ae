"""The arithmetic of the benchmark that relays: whose processor time it is, medians, and ratios to HAProxy."""

from __future__ import annotations

import sys
from math import isnan
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))  # its programs are no package

from processor_time import Sample, nanoseconds, sample, shares
from relay_figures import ratio, rows, share_of_target


def window(
    kind: str, rate: float, proxy: float, load: float, kernel: float = 0.0
) -> dict[str, Any]:
    cpu = {"proxy": proxy, "load": load, "server": 2.0, "kernel": kernel}
    return {"kind": kind, "rate": rate, "p50_us": 1e6 / rate, "p99_us": 2e6 / rate, "cpu_us": cpu}


class ProcessorTimeTests(SynchronousTestCase):
    """Processor time, from /proc."""

    def proc(self, *threads: tuple[int, int, str, int]) -> Path:
        """A /proc with threads: process, thread, the process's name, nanoseconds."""
        proc = Path(self.mktemp())
        for pid, thread, name, spent in threads:
            task = proc / str(pid) / "task" / str(thread)
            task.mkdir(parents=True)
            (proc / str(pid) / "comm").write_text(f"{name}\n")
            (task / "schedstat").write_text(f"{spent} 55 66\n")
        (proc / "uptime").write_text("1.0 2.0\n")
        return proc

    def test_nanoseconds(self) -> None:
        """The first of three numbers is the time on a processor; what is no such line is an error."""
        self.assertEqual(nanoseconds("6106825 17 3\n"), 6106825)
        for line in ("", "1 2", "a 2 3", "1 2 3 4"):
            self.assertRaises(ValueError, nanoseconds, line)

    def test_sample(self) -> None:
        """All threads of all processes are read, and what is no process is not."""
        read = sample(
            self.proc((7, 7, "proxy", 10), (7, 8, "proxy", 20), (9, 9, "kworker/0:1", 30))
        )
        self.assertEqual(read.spent, {7: 10, 8: 20, 9: 30})
        self.assertEqual(read.processes, {7: 7, 8: 7, 9: 9})
        self.assertEqual(read.names, {7: "proxy", 9: "kworker/0:1"})

    def test_ends_meanwhile(self) -> None:
        """A process or a thread that ends while it is read does not fail the sample."""
        proc = self.proc((7, 7, "proxy", 10), (9, 9, "gone", 30), (11, 11, "half", 40))
        (proc / "9" / "comm").unlink()
        (proc / "11" / "task" / "11" / "schedstat").unlink()
        self.assertEqual(sample(proc).spent, {7: 10})

    def test_this_machine(self) -> None:
        """The kernel that runs here tells it in that form."""
        self.assertGreater(sum(sample().spent.values()), 0)

    def test_shares(self) -> None:
        """Each thread's time goes to its process's role; the rest to the kernel's workers, or to somebody else."""
        names = {1: "init", 7: "python", 9: "kworker/u8:2-events", 10: "ksoftirqd/1", 12: "cc"}
        before = Sample(
            1.0, {1: 5, 7: 100, 9: 50, 10: 0, 13: 99}, {1: 1, 7: 7, 9: 9, 10: 10, 13: 7}, names
        )
        after = Sample(
            2.0,
            {1: 5, 7: 2_000_000_100, 8: 500_000_000, 9: 1_000_000_050, 10: 250_000_000, 12: 3},
            {1: 1, 7: 7, 8: 7, 9: 9, 10: 10, 12: 12},
            names,
        )
        used = shares(before, after, {7: "proxy", 20: "load"})
        self.assertEqual(used, {"proxy": 2.5, "load": 0.0, "kernel": 1.25, "foreign": 3e-9})


class FiguresTests(SynchronousTestCase):
    """Rows of the tables."""

    def test_rows(self) -> None:
        """Figures are medians; what is added is the sum of all parts less that without a proxy; ratios are to one's."""
        windows = [
            window("none", 400.0, 0.0, 3.0),
            window("HAProxy", 100.0, 6.0, 4.0, kernel=1.0),
            window("ours", 50.0, 9.0, 4.0),
            window("none", 500.0, 0.0, 3.0),
            window("HAProxy", 200.0, 6.0, 4.0, kernel=1.0),
            window("ours", 150.0, 11.0, 4.0, kernel=5.0),
            window("none", 900.0, 0.0, 9.0),
            window("HAProxy", 250.0, 60.0, 4.0, kernel=1.0),
            window("ours", 100.0, 10.0, 4.0),
        ]
        found = rows(windows, "none", "HAProxy")
        self.assertEqual(list(found), ["none", "HAProxy", "ours"])
        ours, haproxy = found["ours"], found["HAProxy"]
        self.assertEqual((ours.rate, ours.low, ours.high), (100.0, 50.0, 150.0))
        self.assertEqual((ours.p50_us, ours.p99_us, ours.proxy_us), (10_000.0, 20_000.0, 10.0))
        # 16 in all, without a proxy 5; HAProxy 13.
        self.assertEqual((ours.added_us, haproxy.added_us), (11.0, 8.0))
        self.assertEqual((ours.rate_ratio, ours.p50_ratio, ours.added_ratio), (0.5, 2.0, 1.375))
        self.assertEqual((haproxy.rate_ratio, haproxy.p50_ratio, haproxy.added_ratio), (1, 1, 1))

    def test_nothing_to_compare_with(self) -> None:
        """Without HAProxy there are figures, but no ratios; without the windows of no proxy nothing is said."""
        found = rows(
            [window("none", 10.0, 0.0, 1.0), window("ours", 5.0, 2.0, 1.0)], "none", "HAProxy"
        )
        self.assertEqual(found["ours"].added_us, 2.0)
        self.assertTrue(isnan(found["ours"].rate_ratio))
        self.assertRaises(ValueError, rows, [window("ours", 5.0, 2.0, 1.0)], "none", "HAProxy")

    def test_ratio(self) -> None:
        """Of nothing, or less, there is no ratio: in noise HAProxy may seem to have added nothing."""
        self.assertEqual(ratio(3.0, 2.0), 1.5)
        self.assertTrue(all(isnan(ratio(3.0, of)) for of in (None, 0.0, -1.0)))

    def test_share_of_target(self) -> None:
        """Above 1 is better than the target, whichever way is better."""
        self.assertEqual(share_of_target(1.2, 0.8, more_is_better=True), 1.2 / 0.8)
        self.assertEqual(share_of_target(1.2, 0.8, more_is_better=False), 0.8 / 1.2)
        self.assertEqual(share_of_target(-0.1, 0.8, more_is_better=False), float("inf"))
