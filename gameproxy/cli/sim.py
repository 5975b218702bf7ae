"""``gameproxy sim``: runs of a simulated world, each the same whenever it is had again."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gameproxy.cli.durations import seconds
from gameproxy.cli.help_pages import ending
from gameproxy.cli.terminal import complain, printable
from gameproxy.simulation.files import NotARun, first_difference, load, save
from gameproxy.simulation.runs import Result, Run, drawn, module_of, play
from gameproxy.simulation.shrinking import Shrinker, as_test
from gameproxy.simulation.soaking import Soak, Tally, soak
from gameproxy.simulation.timeline import timeline

if TYPE_CHECKING:
    from gameproxy.cli.check import Subparsers

HASH_SEEDS: Final = ("0", "1", "4242")
"""The PYTHONHASHSEEDs under which ``verify`` has each run."""
_STATUS: Final = "0 all held, 1 something did not, 2 wrong usage"


def add_parser(subparsers: Subparsers) -> None:
    """Add ``sim`` to the commands."""
    parser = subparsers.add_parser(
        "sim",
        help="simulate proxies, game servers and players: every run can be had again",
        description="Runs the real proxy in a simulated world: network, time, processes and chance come from one seed."
        " The same seed gives the same run, to the byte of its trace.",
        epilog=ending(
            "gameproxy sim run --seed 42 --clients 1000 --scenario churn",
            "gameproxy sim soak --for 60s --jobs 2",
            "gameproxy sim replay failure-7.run",
            "gameproxy sim timeline failure-7.run",
            "gameproxy sim shrink failure-7.run",
            status="0 all held, 1 something did not, 2 wrong usage",
        ),
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_run(commands)
    _add_replay(commands)
    _add_timeline(commands)
    _add_soak(commands)
    _add_shrink(commands)
    _add_verify(commands)


def _add_run(commands: Subparsers) -> None:
    parser = commands.add_parser(
        "run",
        help="one run",
        description="Has one run, and prints what came of it; last, the hash of its trace. If something does not hold,"
        " writes failure-SEED.run and failure-SEED.html here, unless you say where.",
        epilog=ending(
            "gameproxy sim run --seed 42 --clients 1000 --scenario churn",
            "gameproxy sim run --seed 42 --trace 42.run",
            status=_STATUS,
        ),
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of all chance (0)")
    _add_world(parser)
    parser.add_argument("--trace", type=Path, metavar="FILE", help="write the run and its trace")
    parser.add_argument(
        "--timeline",
        type=Path,
        metavar="FILE",
        help="write a picture of the run: a page for browsers",
    )
    parser.set_defaults(run=_run)


def _add_replay(commands: Subparsers) -> None:
    parser = commands.add_parser(
        "replay",
        help="have a run of a file again, and compare",
        description="Has a run of a file again. If it is another, shows the first line of the trace that differs.",
        epilog=ending(
            "gameproxy sim replay failure-7.run",
            status="0 the same, and all held; 1 not the same, or something did not hold",
        ),
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="of a run")
    parser.set_defaults(run=_replay)


def _add_timeline(commands: Subparsers) -> None:
    parser = commands.add_parser(
        "timeline",
        help="make a picture of a run of a file",
        description="Writes a page for browsers that shows all that happened in a run of a file: clients, proxies, game"
        " servers, the database, frames, faults, and what did not hold.",
        epilog=ending(
            "gameproxy sim timeline failure-7.run",
            "gameproxy sim timeline failure-7.run --output lost-slot.html",
            status="0 done, 1 the file is no run, 2 wrong usage",
        ),
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="of a run")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="where it is written (FILE.html beside the run)"
    )
    parser.set_defaults(run=_timeline)


def _add_soak(commands: Subparsers) -> None:
    parser = commands.add_parser(
        "soak",
        help="many runs, each with its own seed",
        description="Has runs until the time is over. Those that fail are written into files. Fails too when some fault"
        " never happened in many runs.",
        epilog=ending("gameproxy sim soak --for 10m --jobs 2 --save failures", status=_STATUS),
    )
    parser.add_argument("--first", type=int, default=0, metavar="N", help="the first seed (0)")
    parser.add_argument(
        "--for", dest="seconds", type=seconds, default=60.0, metavar="TIME", help="30s, 5m (60s)"
    )
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes (1)")
    parser.add_argument("--clients", type=int, default=50, metavar="N", help="in each run (50)")
    parser.add_argument("--faults", type=int, default=8, metavar="N", help="in each run (8)")
    parser.add_argument(
        "--save", type=Path, default=Path(), metavar="FOLDER", help="for failing runs (here)"
    )
    parser.set_defaults(run=_soak)


def _add_shrink(commands: Subparsers) -> None:
    parser = commands.add_parser(
        "shrink",
        help="make a failing run small, and write a test that fails",
        description="Looks for the fewest faults, clients and frames with which a run of a file fails in the same way,"
        " and writes a pytest case of it.",
        epilog=ending(
            "gameproxy sim shrink failure-7.run",
            "gameproxy sim shrink failure-7.run --test tests/test_lost_slot.py",
            status="0 done, 1 the run does not fail, 2 wrong usage",
        ),
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="of a run")
    parser.add_argument("--test", type=Path, metavar="FILE", help="where the test is written")
    parser.set_defaults(run=_shrink)


def _add_verify(commands: Subparsers) -> None:
    parser = commands.add_parser(
        "verify",
        help="have runs several times under different hash seeds, and compare",
        description="Has runs several times, in processes with different hash seeds and, if you name some, on other"
        " Pythons: all must have the same traces.",
        epilog=ending(
            "gameproxy sim verify --count 500 --jobs 2",
            "gameproxy sim verify --python python3.13",
            status="0 all are the same, 1 some differ, 2 wrong usage",
        ),
    )
    parser.add_argument("--first", type=int, default=0, metavar="N", help="the first seed (0)")
    parser.add_argument("--count", type=int, default=20, metavar="N", help="how many seeds (20)")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes (1)")
    parser.add_argument(
        "--python",
        action="append",
        default=[],
        metavar="PROGRAM",
        help="compare with this Python too (may be given several times)",
    )
    parser.set_defaults(run=_verify)


def _add_world(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--scenario",
        type=_scenario,
        default="connect",
        metavar="NAME",
        help="connect, batch, churn, ..., or a Python file of yours (connect)",
    )
    parser.add_argument("--clients", type=int, default=50, metavar="N", help="(50)")
    parser.add_argument("--faults", type=int, default=8, metavar="N", help="drawn ones (8)")
    parser.add_argument("--proxies", type=int, default=1, metavar="N", help="on one farm (1)")


def _run(args: argparse.Namespace) -> int:
    run = drawn(args.seed, args.scenario, args.clients, args.faults, args.proxies)
    is_kept = args.trace is not None or args.timeline is not None
    result = play(run, keep_trace=is_kept)
    if args.trace is not None:
        save(result, args.trace)
    if args.timeline is not None:
        _draw(result, args.timeline, args.trace)
    if result.failure is not None and not is_kept:
        print(f"in {_keep(run, Path())}")
    _tell(result)
    return 1 if result.failure else 0


def _replay(args: argparse.Namespace) -> int:
    loaded = _load(args.file)
    if loaded is None:
        return 1
    run, sha256, lines = loaded
    result = play(run, keep_trace=True)
    _tell(result)
    if result.sha256 == sha256:
        print("The same as in the file.")
        return 1 if result.failure else 0
    difference = first_difference(lines, result.lines) if lines else None
    if difference is None:
        print(f"Another run than in the file, whose trace has sha256 {sha256}.")
    else:
        number, before, now = difference
        print(printable(f"Line {number} differs.\n  file: {before}\n  now:  {now}"))
    return 1


def _timeline(args: argparse.Namespace) -> int:
    loaded = _load(args.file)
    if loaded is None:
        return 1
    run, sha256, lines = loaded
    path = args.output or args.file.with_suffix(".html")
    path.write_text(timeline(run, lines, sha256, args.file.name))
    print(printable(f"in {path}"))
    return 0


def _soak(args: argparse.Namespace) -> int:
    begin = time.monotonic()
    plan = Soak(args.first, None, args.seconds, clients=args.clients, faults=args.faults)
    tally = soak(plan, args.jobs)
    elapsed = time.monotonic() - begin
    print(
        f"{tally.runs} seeds in {elapsed:.0f} s, {tally.runs / elapsed:.1f} a second;"
        f" {tally.events / elapsed:.0f} events/s; {tally.virtual / elapsed:.0f} times real time;"
        f" {tally.failed} failed."
    )
    print("reached: " + "; ".join(f"{name} {n}" for name, n in sorted(tally.reached.items())))
    _save_failures(tally, args.save)
    never = tally.never()
    if never:
        print("never reached: " + "; ".join(never))
    return 1 if tally.failed or never else 0


def _save_failures(tally: Tally, folder: Path) -> None:
    for run, failure in tally.failures:
        print(printable(f"seed {run.seed}: {failure}\n  in {_keep(run, folder)}"))


def _keep(run: Run, folder: Path) -> str:
    """Have a run again, and write it and its timeline; tells where."""
    result = play(run, keep_trace=True)
    path = folder / f"failure-{run.seed}.run"
    save(result, path)
    _draw(result, path.with_suffix(".html"), path)
    return f"{path}, {path.with_suffix('.html')}"


def _draw(result: Result, path: Path, run_file: Path | None) -> None:
    name = None if run_file is None else run_file.name
    path.write_text(timeline(result.run, result.lines, result.sha256, name))


def _shrink(args: argparse.Namespace) -> int:
    loaded = _load(args.file)
    if loaded is None:
        return 1
    try:
        shrinker = Shrinker(loaded[0], told=_tell_smaller)
    except ValueError as error:
        complain(error, "")
        return 1
    result = shrinker.shrink()
    path = args.test or Path(f"test_seed_{result.run.seed}.py")
    path.write_text(as_test(result))
    print(f"{_size(result.run)} after {shrinker.runs} runs; the test is in {path}")
    _tell(result)
    return 0


def _tell_smaller(run: Run) -> None:
    print(_size(run), flush=True)


def _size(run: Run) -> str:
    return f"{len(run.faults)} faults, {run.clients - len(run.left_out)} clients"


def _verify(args: argparse.Namespace) -> int:
    plan = Soak(args.first, args.count)
    usual: dict[int, str] | None = None
    different: list[str] = []
    pythons = [sys.executable, *args.python]
    for python in pythons:
        for hash_seed in HASH_SEEDS:
            hashes = soak(plan, args.jobs, hash_seed, python).hashes
            usual = usual or hashes
            different += [
                f"seed {seed} under hash seed {hash_seed} with {python}"
                for seed, sha256 in sorted(hashes.items())
                if usual[seed] != sha256
            ]
    for line in different:
        print(f"differs: {line}")
    times = len(HASH_SEEDS) * len(pythons)
    print(f"{args.count} seeds, {times} times each: {len(different)} differ.")
    return 1 if different else 0


def _load(path: Path) -> tuple[Run, str, list[str]] | None:
    try:
        return load(path)
    except OSError as error:
        print(printable(f"{path}: cannot be read: {error.strerror}"), file=sys.stderr)
    except NotARun as error:
        complain(error, "")
    return None


def _tell(result: Result) -> None:
    """What came of a run, and last its hash."""
    rate = result.events / result.wall
    print(
        f"{result.run.clients} clients, {result.virtual:.1f} s of virtual time in {result.wall:.1f} s"
        f" ({rate:.0f} events/s)"
    )
    print("sessions over: " + (json.dumps(result.reasons) if result.reasons else "none"))
    if result.reached:
        print("reached: " + json.dumps(result.reached))
    if result.failure is not None:
        print(printable("FAILED: " + result.failure))
    print(f"trace sha256 {result.sha256}")


def _scenario(text: str) -> str:
    try:
        module_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text
