"""Fuzzes one target with atheris, which never comes back: so it is a process of its own (tests/fuzz/fuzz.py).

Arguments: the target, and then libFuzzer's.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["gameproxy"]):
    from tests.fuzz.targets import TARGETS

if __name__ == "__main__":
    name = sys.argv.pop(1)
    atheris.Setup(sys.argv, TARGETS[name])
    atheris.Fuzz()
