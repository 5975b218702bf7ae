"""docs/clients: each program and command on it does what the page says"""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path

import pytest_twisted

from tests.game_servers import end_game_servers
from tests.program import ROOT, Program
from tests.real.test_quickstart import BLOCK, VARIES, commands_of, free_port

FILE_NAME = re.compile(r"# clients/(\S+)\n")


@pytest_twisted.ensureDeferred
async def test_all_programs(tmp_path: Path) -> None:
    """In order: each exits with 0 and prints the lines shown; twist runs on meanwhile."""
    page = (ROOT / "docs" / "clients.md").read_text("utf-8").replace("7777", str(free_port()))
    page = page.replace("python3", sys.executable)
    here = Path(sys.executable).parent
    environment = {"PATH": f"{here}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    proxy: Program | None = None
    done = 0
    try:
        for language, block in BLOCK.findall(page):
            if language != "console":
                name = FILE_NAME.match(block)
                assert name is not None, block
                (tmp_path / name[1]).write_text(block, "utf-8")
                continue
            for command, lines in commands_of(block):
                done += 1
                if "twist gameproxy" in command:
                    proxy = Program(["/bin/sh", "-c", f"exec {command}"], tmp_path, environment)
                    await proxy.says("Starting reactor")
                    continue
                program = Program(["/bin/sh", "-ec", command], tmp_path, environment)
                assert await program.over() == 0, program.output
                printed = VARIES.sub("*", program.output).splitlines()
                assert printed == [VARIES.sub("*", line) for line in lines]
    finally:
        if proxy is not None:
            assert await proxy.end("INT") in (0, -signal.SIGINT)
        end_game_servers(tmp_path / "farm.db")
    assert done == 11
