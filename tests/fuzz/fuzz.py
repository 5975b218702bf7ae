"""``make fuzz``: for each target inputs that atheris makes up, guided by what they reach; and requests to the admin API
that schemathesis makes up.

How much of it, the environment says: FUZZ_SECONDS (for each), FUZZ_TARGETS (which, with commas; without: all),
FUZZ_FOLDER (where what reaches more is kept, to go on from; without: nowhere), FUZZ_KEEP=1 (put it into the corpora
that the tests run, and what reaches nothing of its own out of them).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.fuzz.targets import CORPORA, TARGETS

HERE = Path(__file__).parent
API = "api"
LONGEST_INPUT = 8192
"""Bytes: more than a frame of the proxy's own, or a PROXY header, may have."""
SLOWEST = 20
"""Seconds that one input may take, on a machine that has much else to do."""
SEED = 1
SPARE = 180.0
"""Seconds beyond those asked for, after which a fuzzer that does not end is ended."""


def main() -> int:
    seconds = int(os.environ.get("FUZZ_SECONDS", "20"))
    wanted = os.environ.get("FUZZ_TARGETS", "")
    names = [name for name in wanted.split(",") if name] or [*TARGETS, API]
    unknown = set(names) - {*TARGETS, API}
    if unknown:
        print(
            f"There are no targets {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)} and {API}."
        )
        return 2
    with tempfile.TemporaryDirectory(prefix="fuzz-") as gone:
        folder = Path(os.environ.get("FUZZ_FOLDER") or gone)
        good = True
        for name in names:
            good &= ask_the_api(seconds) if name == API else fuzz(name, seconds, folder / name)
    return 0 if good else 1


def fuzz(name: str, seconds: int, folder: Path) -> bool:
    """Fuzz one target, from the corpus that is kept; tell what came of it."""
    made, found = folder / "made", folder / "found"
    for one in (made, found):
        one.mkdir(parents=True, exist_ok=True)
    kept = CORPORA / name
    kept.mkdir(parents=True, exist_ok=True)
    output, status = _atheris(
        name,
        [str(made), str(kept)],
        seconds,
        f"-max_total_time={seconds}",
        f"-artifact_prefix={found}/",
        f"-dict={HERE / 'words.dict'}",
        f"-seed={SEED}",
        "-print_final_stats=1",
    )
    executed = _number(r"number_of_executed_units:\s+(\d+)", output)
    reached = re.findall(r"cov: (\d+) ft: (\d+) corp: (\d+)", output) or [("0", "0", "0")]
    edges, features, inputs = reached[-1]
    print(
        f"{name:13} {executed:9} inputs tried in {seconds} s: {edges} edges, {features} features, by {inputs} inputs;"
        f" {'nothing found' if status == 0 else 'FOUND'}",
        flush=True,
    )
    if status != 0:
        print(output[output.find(" === ") :] if " === " in output else output[-3000:])
        for one in sorted(found.iterdir()):
            print(f"  {one.name}: {one.read_bytes()[:200]!r}")
        return False
    if not executed:
        print(output[-3000:])
        return False
    if os.environ.get("FUZZ_KEEP"):
        keep(name, [made, kept])
    return True


def keep(name: str, corpora: Sequence[Path]) -> None:
    """Have as few inputs as reach all that these reach in the corpus that is kept."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as new:
        _, status = _atheris(name, [new, *map(str, corpora)], SPARE, "-merge=1")
        chosen = sorted(Path(new).iterdir())
        if status or not chosen:
            raise SystemExit(f"The corpus of {name} could not be made smaller.")
        shutil.rmtree(CORPORA / name)
        shutil.copytree(new, CORPORA / name)
    print(f"{'':13} {len(chosen)} inputs are kept", flush=True)


def ask_the_api(seconds: int) -> bool:
    """Have schemathesis ask a proxy's admin API for so long."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-s", "tests/long/test_admin_long.py"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "API_SECONDS": str(seconds)},
    )
    verdict = "nothing found" if done.returncode == 0 else "FOUND"
    seeds = _number(r"asked with (\d+) seeds", done.stdout)
    took = time.monotonic() - began
    print(f"{API:13} {seeds:9} seeds of requests in {took:.0f} s; {verdict}", flush=True)
    if done.returncode:
        print(done.stdout[-5000:])
    return done.returncode == 0


def _atheris(name: str, folders: Sequence[str], seconds: float, *options: str) -> tuple[str, int]:
    command = [sys.executable, str(HERE / "one_target.py"), name, *folders]
    limits = (f"-max_len={LONGEST_INPUT}", f"-timeout={SLOWEST}")
    done = subprocess.run(
        [*command, *limits, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=seconds + SPARE,
        check=False,
    )
    return done.stdout.decode("utf-8", "replace"), done.returncode


def _number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    return int(found[1]) if found else 0


if __name__ == "__main__":
    sys.exit(main())
