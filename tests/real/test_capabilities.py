"""gameproxy.capabilities: a program that systemd has started with capabilities, and what it starts itself"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SETS = ("CapInh", "CapPrm", "CapEff", "CapAmb")
PROGRAM = """
import subprocess, sys
from gameproxy.capabilities import give_up_ambient

def show():
    sys.stdout.flush()
    subprocess.run(["grep", "-E", "^Cap(Inh|Prm|Eff|Amb)", "/proc/self/status"], check=True)

show()
print(give_up_ambient())
show()
print(give_up_ambient())
"""


def run(*before: str) -> list[str]:
    """What the program prints."""
    command = [*before, sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def sets(lines: list[str]) -> dict[str, int]:
    """The sets of capabilities that ``/proc`` shows."""
    return {name.rstrip(":"): int(bits, 16) for name, bits in map(str.split, lines)}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a program with capabilities")
def test_given_up() -> None:
    """What was there is in no set any more, here and in a program that is started then."""
    grants = (
        "--ambient-caps=+net_admin",
        "--inh-caps=+net_admin",
        "--bounding-set=-all,+net_admin",
    )
    lines = run("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *grants)
    before, after = sets(lines[:4]), sets(lines[5:9])
    assert before == dict.fromkeys(SETS, 1 << 12)
    assert after == dict.fromkeys(SETS, 0)
    assert (lines[4], lines[9]) == ("True", "False")


@pytest.mark.skipif(os.geteuid() != 0, reason="root is who has capabilities that are not ambient")
def test_root_stays_root() -> None:
    """Who is root without ambient capabilities keeps all: twistd needs them to become another user."""
    lines = run()
    assert lines[4] == "False"
    assert sets(lines[:4]) == sets(lines[5:9])
    assert sets(lines[:4])["CapEff"] != 0
