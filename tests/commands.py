"""The command ``gameproxy``, called as its program would."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from gameproxy.cli import main


def run(*arguments: str) -> tuple[int, str, str]:
    """The exit status of ``gameproxy`` with these arguments, and what it printed: output and errors."""
    with redirect_stdout(io.StringIO()) as output, redirect_stderr(io.StringIO()) as errors:
        try:
            status = main(arguments)
        except SystemExit as stop:
            status = stop.code if isinstance(stop.code, int) else 1
    return status, output.getvalue(), errors.getvalue()


def run_json(file: Path, *arguments: str) -> Any:
    """The document that ``gameproxy`` prints, which must be all, with status 0."""
    status, output, errors = run(*arguments, "--json", "--config", str(file))
    assert (status, errors) == (0, ""), (status, errors)
    return json.loads(output)
