"""docs/quickstart: each command in it does what the page says"""

from __future__ import annotations

import re
import signal
import socket
import sys
from pathlib import Path

import pytest_twisted

from tests.game_servers import end_game_servers
from tests.program import ROOT, Program

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
FILE_NAME = re.compile(r"# (chat/\S+)\n")
VARIES = re.compile(r"\b[0-9a-f]{32}\b|(?<=chat-)[0-9a-f]{6}\b|(?<=echo-)[0-9a-f]{6}\b")


def clone_into(folder: Path) -> None:
    """Lay out a clone in which ``make`` has made .venv already."""
    for name in ("gameproxy", "Makefile", "setup.cfg", "pyproject.toml"):
        (folder / name).symlink_to(ROOT / name)
    (folder / ".venv").mkdir()
    for name in ("bin", "lib", "pyvenv.cfg"):
        (folder / ".venv" / name).symlink_to(Path(sys.prefix) / name)
    (folder / ".venv" / "demo.stamp").touch()


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def commands_of(block: str) -> list[tuple[str, list[str]]]:
    """The commands of a console block, each with the lines that it prints."""
    commands: list[tuple[str, list[str]]] = []
    for line in block.splitlines():
        if line.startswith("$ "):
            commands.append((line[2:], []))
        else:
            commands[-1][1].append(line)
    return commands


@pytest_twisted.ensureDeferred
async def test_all_commands(tmp_path: Path) -> None:
    """In order, in one shell's environment: each exits with 0 and prints the lines shown; twist runs on meanwhile."""
    clone_into(tmp_path)
    (tmp_path / "chat").mkdir()
    page = (ROOT / "docs" / "quickstart.md").read_text("utf-8")
    page = page.replace("7777", str(free_port()))
    proxy: Program | None = None
    settings = ""
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
                    proxy = Program(["/bin/sh", "-c", f"exec {command}"], tmp_path)
                    await proxy.says("Starting reactor")
                elif command.startswith("TICKET="):
                    settings = f"{command}\n"
                else:
                    program = Program(["/bin/sh", "-ec", settings + command], tmp_path)
                    status = await program.over()
                    assert status == 0, program.output
                    if lines:
                        wanted = [VARIES.sub("*", line) for line in lines]
                        assert VARIES.sub("*", program.output).splitlines() == wanted
    finally:
        if proxy is not None:
            assert await proxy.end("INT") in (0, -signal.SIGINT)
        end_game_servers(tmp_path / "chat" / "farm.db")
    assert done == 10
