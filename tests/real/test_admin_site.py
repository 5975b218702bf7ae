"""The admin site of a running proxy, asked by programs that know nothing of it: schemathesis, promtool, a client"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import pytest_twisted
from twisted.internet.threads import deferToThread

from tests.game_servers import end_game_servers
from tests.pages import free_port
from tests.program import Program

BIN = Path(sys.executable).parent
EXAMPLES = 10
"""Requests that schemathesis makes up for each operation, in each of its phases."""
PATIENCE = 100.0
"""Seconds in which schemathesis must have ended, on a machine that has much else to do."""
CONFIG = """
[proxy]
listen = ["tcp:0:interface=127.0.0.1"]
[auth]
guests = true
[admin]
listen = "tcp:{port}:interface=127.0.0.1"
[[games]]
name = "sleepy"
command = ["sleep", "600"]
capacity = 2
max_servers = 2
start_timeout = 600.0
stop_grace = 1.0
[[servers]]
id = "s1"
game = "echo"
host = "127.0.0.1"
port = 9
capacity = 2
"""


@asynccontextmanager
async def site(folder: Path) -> AsyncIterator[str]:
    """A proxy in a process of its own; the URL of its admin site."""
    port = free_port()
    (folder / "gameproxy.toml").write_text(CONFIG.format(port=port))
    command = [str(BIN / "twist"), "--log-format", "text", "gameproxy"]
    proxy = Program(command, folder)
    try:
        await proxy.says("gameproxy serves")
        yield f"http://127.0.0.1:{port}"
    finally:
        await proxy.end("TERM")
        end_game_servers(folder / "farm.db")


def token(folder: Path) -> str:
    """The word that whoever asks must know."""
    return f"Authorization: Bearer {(folder / 'admin.token').read_text().strip()}"


def fetch(url: str, method: str = "GET", header: str = "") -> tuple[int, bytes]:
    """The status and the body of an answer."""
    request = Request(url, method=method)
    if header:
        request.add_header(*header.split(": ", 1))
    try:
        with urlopen(request, timeout=10) as answer:
            return answer.status, answer.read()
    except HTTPError as error:
        return error.code, error.read()


async def ask(url: str, folder: Path, seed: int) -> None:
    """Have schemathesis ask what it makes up with this seed, and see that all of it is answered as described."""
    program = Program(
        [
            str(BIN / "schemathesis"),
            "run",
            f"{url}/v1/openapi.json",
            "--header",
            token(folder),
            "--checks=all",
            f"--max-examples={EXAMPLES}",
            f"--seed={seed}",
            "--generation-database=none",
            "--request-timeout=10",
            "--no-color",
        ],
        folder,
        {"COLUMNS": "120"},
    )
    try:
        status = await program.over(PATIENCE)
    finally:
        await program.end("KILL")
    assert status == 0, program.output
    all_of_them = r"Selected: (\d+)/\1\s+Tested: \1\s"
    assert re.search(all_of_them, program.output), program.output
    status, _ = await deferToThread(fetch, f"{url}/v1/status", "GET", token(folder))
    assert status == 200


@pytest_twisted.ensureDeferred
async def test_schemathesis(tmp_path: Path) -> None:
    """What schemathesis makes up from the description, sensible and not, is answered as that says: no fault of the
    server's, no status, type, header or document that is not described, nothing taken that is described as wrong."""
    async with site(tmp_path) as url:
        await ask(url, tmp_path, 1)


@pytest.mark.skipif(not shutil.which("promtool"), reason="Prometheus is not installed")
@pytest_twisted.ensureDeferred
async def test_promtool(tmp_path: Path) -> None:
    """Prometheus' own tool reads the metrics of a running proxy, and finds nothing to say about their names."""
    async with site(tmp_path) as url:
        status, text = await deferToThread(fetch, f"{url}/metrics")
    assert status == 200
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest_twisted.ensureDeferred
async def test_from_outside(tmp_path: Path) -> None:
    """Without the token one sees that it lives and how much it does, and nothing else; with it one is obeyed."""
    async with site(tmp_path) as url:

        def look() -> list[int]:
            paths = ("/health", "/ready", "/metrics", "/v1/status", "/admin.token", "/")
            return [fetch(url + path)[0] for path in paths]

        assert await deferToThread(look) == [200, 200, 200, 401, 404, 404]
        start = f"{url}/v1/games/sleepy/start"
        assert (await deferToThread(fetch, start, "POST"))[0] == 401
        status, body = await deferToThread(fetch, start, "POST", token(tmp_path))
        assert status == 202 and json.loads(body)["server"].startswith("sleepy-")
