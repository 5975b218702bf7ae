"""``make soak``: what takes long. All bugs of the zoo, many seeds of the untouched code, and many seeds twice.

How much of it, the environment says: SOAK_ZOO (seeds for each bug; 0: no zoo), SOAK_SEEDS (clean), SOAK_VERIFY (how
many of these again), SOAK_PYTHONS (how many on each of the programs in PYTHONS), SOAK_FIRST (the first), SOAK_JOBS.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from gameproxy.simulation.soaking import Soak, Tally, soak
from tests.simulation.hunt import Catch, hunt
from tests.simulation.zoo import ZOO

JOBS = int(os.environ.get("SOAK_JOBS", "2"))
HASH_SEEDS = ("0", "4242")


def asked(name: str, usual: int) -> int:
    return int(os.environ.get(name, usual))


def catch_all(most: int) -> bool:
    """Hunt for all bugs, and show what comes of it."""
    print(f"Bug zoo: {len(ZOO)} bugs, {most} seeds for each at most", flush=True)
    good = True
    # A process each: what a bug leaves behind is not the next one's.
    with ProcessPoolExecutor(JOBS, get_context("spawn"), max_tasks_per_child=1) as pool:
        for bug, catch in zip(ZOO, pool.map(hunt, ZOO, [most] * len(ZOO)), strict=True):
            good &= catch is not None and catch.is_as_it_should
            print(f"  {bug.name:26} {described(catch)}", flush=True)
    return good


def described(catch: Catch | None) -> str:
    if catch is None:
        return "NOT FOUND"
    again = "the same again" if catch.again else "NOT THE SAME AGAIN"
    small = "" if catch.is_as_it_should else ", TOO MUCH"
    return (
        f"{catch.runs:4} runs, {again}, {catch.faults} faults and {catch.clients} clients in"
        f" {catch.seconds:4.1f} s{small}: {catch.message}"
    )


def stay_clean(first: int, count: int) -> tuple[bool, dict[int, str]]:
    """Many seeds of the untouched code.

    :return: whether all is as it should be, and the hash of each seed's trace.
    """
    begin, used = time.monotonic(), _cpu()
    tally = soak(Soak(first, count), JOBS, HASH_SEEDS[0], told=_tell_progress)
    elapsed, cpu = time.monotonic() - begin, _cpu() - used
    print(
        f"Clean: {tally.runs} seeds from {first}, {tally.failed} failed; {elapsed:.0f} s in {JOBS} processes,"
        f" {3600 * tally.runs / elapsed:.0f} seeds an hour, {1000 * cpu / tally.runs:.0f} ms of CPU each,"
        f" {tally.virtual / 3600:.0f} hours of virtual time"
    )
    for run, failure in tally.failures:
        print(f"  seed {run.seed}: {failure}")
    never = tally.never()
    if never:
        print("  never reached: " + ", ".join(never))
    return not tally.failed and not never, tally.hashes


def be_the_same(
    usual: Mapping[int, str], count: int, hash_seed: str, python: str = sys.executable
) -> bool:
    """The first of these seeds again, in other processes, perhaps on another Python."""
    first = min(usual)
    hashes = soak(Soak(first, count), JOBS, hash_seed, python, told=_tell_progress).hashes
    different = [seed for seed in hashes if hashes[seed] != usual[seed]]
    print(
        f"The same: {len(hashes)} seeds from {first}, with hash seed {HASH_SEEDS[0]}, and with {hash_seed}"
        f" on {python}: {len(different)} differ"
    )
    for seed in different[:20]:
        print(f"  seed {seed}")
    return not different and len(hashes) == count


def _tell_progress(tally: Tally) -> None:
    if tally.runs % 1000 == 0:
        print(f"  {tally.runs} seeds, {tally.failed} failed", flush=True)


def _cpu() -> float:
    """Seconds of CPU time of the processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> int:
    zoo, first, seeds = asked("SOAK_ZOO", 1000), asked("SOAK_FIRST", 0), asked("SOAK_SEEDS", 20_000)
    again, on_pythons = asked("SOAK_VERIFY", 10_000), asked("SOAK_PYTHONS", 500)
    good = catch_all(zoo) if zoo else True
    clean, hashes = stay_clean(first, max(seeds, again, on_pythons, 1))
    good &= clean
    if again:
        good &= be_the_same(hashes, again, HASH_SEEDS[1])
    if on_pythons:
        for python in os.environ.get("PYTHONS", "").split():
            good &= be_the_same(hashes, on_pythons, HASH_SEEDS[1], python)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
