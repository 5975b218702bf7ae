"""Fuzzes one target with atheris, which never comes back: so it is a process of its own (tests/fuzz/fuzz.py).

The target is FUZZ_TARGET of the environment; arguments are libFuzzer's, who starts this again with others.
"""

from __future__ import annotations

import os
import sys

import atheris

with atheris.instrument_imports(include=["gameproxy"]):
    from tests.fuzz.targets import TARGETS

if __name__ == "__main__":
    sys.argv[0] = f"{sys.executable} {sys.argv[0]}"  # it is what libFuzzer starts again
    atheris.Setup(sys.argv, TARGETS[os.environ["FUZZ_TARGET"]])
    atheris.Fuzz()
