"""Completion in real shells: what is typed before each Tab becomes whole words."""

from __future__ import annotations

import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PATIENCE = 30.0
"""Seconds that a shell may take for all of it."""
STARTS = {
    "bash": ("--norc", "--noprofile", "-i"),
    "zsh": ("-f", "-i"),
}
PREPARED = {
    "bash": "bind 'set enable-bracketed-paste off'",
    "zsh": "autoload -U compinit; compinit -u -D",
}
LINES = [
    ("gameproxy fa\tdr\tid-1 --conf\tgame\t", ["farm", "drain", "id-1", "--config", "game.toml"]),
    ("gameproxy unb\tada --js\t", ["unban", "ada", "--json"]),
    ("gameproxy che\tgame\t", ["check", "game.toml"]),
    (
        "gameproxy ti\t--player ada --priv\tgame\t",
        ["ticket", "--player", "ada", "--private-key", "game.toml"],
    ),
    ("gameproxy compl\tz\t", ["completion", "zsh"]),
]


@pytest.mark.parametrize("shell", STARTS)
def test_completion(tmp_path: Path, shell: str) -> None:
    """After the line that the help tells, Tab completes commands, actions, options, choices and names of files."""
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell}")
    (tmp_path / "game.toml").touch()
    command = f"{sys.executable} -m gameproxy"
    script = [
        PREPARED[shell],
        f'eval "$({command} completion {shell})"',
        # What is typed is printed instead of done.
        "gameproxy() { printf '<%s>' GOT \"$@\"; echo; }",
        *(line for line, _ in LINES),
        "exit",
    ]
    answers = typed(tmp_path, [shell, *STARTS[shell]], script)
    for _, words in LINES:
        assert "".join(f"<{word}>" for word in ("GOT", *words)) in answers, answers


def typed(folder: Path, command: list[str], lines: list[str]) -> str:
    """All that a program shows on its terminal while these lines are typed, until it ends."""
    ours, its = pty.openpty()
    environment = {**os.environ, "TERM": "dumb", "HOME": str(folder), "PS1": "$ "}
    shell = subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdin=its,
        stdout=its,
        stderr=its,
        start_new_session=True,
    )
    os.close(its)
    shown = b""
    deadline = time.monotonic() + PATIENCE
    try:
        os.write(ours, "".join(line + "\n" for line in lines).encode())
        while True:
            ready, _, _ = select.select([ours], [], [], max(deadline - time.monotonic(), 0.0))
            assert ready, f"not within {PATIENCE} s: {shown!r}"
            try:
                shown += os.read(ours, 65536)
            except OSError:  # it has ended
                return shown.decode("utf-8", "replace")
    finally:
        os.killpg(shell.pid, signal.SIGKILL)
        shell.wait()
        os.close(ours)
