"""The pages of the documentation as a reader takes them: files are written, commands are typed.

In a page, a block of ``python`` or ``toml`` whose first line is ``# folder/name`` is that file. A block of ``console``
has commands after ``$``, each with the lines that it prints:

- a command that ends with ``# until Ctrl-C`` goes on, as in a terminal of its own, while the next ones are typed;
- a line ``^C`` ends the one that was started last;
- ``cd``, ``.`` and ``export`` hold for all that follows in the page;
- what is different each time (ids, ports, times, pids) stands for whatever comes; the id of a game server stands for
  the same one in the whole page, also in commands; ``...`` stands for anything.

What cannot be run stands below a comment: ``<!-- not run: why -->``.
"""

from __future__ import annotations

import re
import signal
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.task import deferLater

from tests.game_servers import end_game_servers
from tests.program import PATIENCE, ROOT, Program

DOCS = ROOT / "docs"
SHORT = ["README.md", "docs/quickstart.md"]
LONG = [
    "docs/tutorial.md",
    "docs/clients.md",
    "docs/embedding.md",
    "docs/operating.md",
    "docs/plain.md",
    "docs/simulation.md",
]
"""Those whose playing takes half a minute and more in all: they are played with the long tests."""
TOLD = SHORT + LONG
"""The pages that a reader can follow from the first line to the last."""
_FENCE = re.compile(
    r"(?:^ *<!-- not run: (?P<why>[^>]+) -->\n)?"
    r"^(?P<indent> *)```(?P<info>[^\n`]+)\n(?P<text>.*?)^(?P=indent)```$",
    re.DOTALL | re.MULTILINE,
)
_FILE_NAME = re.compile(r"# ([\w-]+/[\w.-]+)\n")
_PORT = re.compile(r"\b(7777|7001|9180)\b")
_SERVES = r"gameproxy serves|[Ll]istening"
_LASTS = re.compile(r"(cd|\.|export) .*")
_LOOKS = re.compile(r"gameproxy (status|bans|farm)( --.*)?|curl -s http.*|grep .*")
_ID = re.compile(r"\b[a-z]+-[0-9a-f]{6}\b")
_VARIES = re.compile(
    r"(?P<server>\b[a-z]+-[0-9a-f]{6}\b)|(?P<proxy>proxy-[0-9a-f]{12})|(?P<session>\b[0-9a-f]{32}\b)"
    r"|(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)|(?P<age>\b\d+ s\b)|(?P<address>127\.0\.0\.1:\d+)"
    r"|(?P<pid>\b\d{5}\b)|(?P<space> {2,})|(?P<anything>\.\.\.)"
)
_FOR = {
    "proxy": r"proxy-[0-9a-f]{12}",
    "session": r"[0-9a-f]{32}",
    "time": r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d",
    "age": r"\d+ s",
    "address": r"127\.0\.0\.1:\d+",
    "pid": r"\d+",
    "space": " +",
    "anything": ".*",
}


@dataclass(frozen=True)
class Block:
    """A block of code in a page.

    :ivar language: what stands after the backticks.
    :ivar why: why it is not run, or empty.
    :ivar line: where it begins, for people.
    """

    language: str
    text: str
    why: str
    line: int

    @property
    def file(self) -> str | None:
        """The file that it is, if it is one."""
        name = _FILE_NAME.match(self.text)
        return name[1] if name and self.language in ("python", "toml") else None


def blocks_of(page: str) -> list[Block]:
    """All blocks of code of a page."""
    blocks = []
    for found in _FENCE.finditer(page):
        indent = re.compile(rf"^{found['indent']}", re.MULTILINE)
        line = page.count("\n", 0, found.start("info")) + 1
        text = indent.sub("", found["text"])
        blocks.append(Block(found["info"], text, found["why"] or "", line))
    return blocks


def commands_of(console: str) -> Iterator[tuple[str, list[str]]]:
    """The commands of a console block, each with the lines that it prints."""
    for part in re.split(r"^(?=\$ |\^C$)", console, flags=re.MULTILINE)[1:]:
        command, *lines = part.splitlines()
        yield command.removeprefix("$ "), lines


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


class Reader:
    """Somebody who does what a page says, in a fresh clone in which ``make`` has made ``.venv`` already.

    :param folder: an empty one.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lasting = ""
        self._ports: dict[str, str] = {}
        self._servers: dict[str, str] = {}
        self._running: list[Program] = []
        for name in ("gameproxy", "docs", "Makefile", "setup.cfg", "pyproject.toml"):
            (folder / name).symlink_to(ROOT / name)
        (folder / ".venv").mkdir()
        for name in ("bin", "lib", "pyvenv.cfg"):
            (folder / ".venv" / name).symlink_to(Path(sys.prefix) / name)
        (folder / ".venv" / "demo.stamp").touch()

    async def play(self, page: str) -> None:
        """Do all that a page says."""
        try:
            for block in blocks_of(_PORT.sub(self._port, page)):
                if block.why or block.language.startswith("{"):
                    continue  # what is not run, and what Sphinx does
                if block.language == "console":
                    for command, lines in commands_of(block.text):
                        await self._type(command, lines)
                else:
                    self._write(block)
            while self._running:
                await self._interrupt()
        finally:
            while self._running:
                await self._running.pop().end("KILL")
            for database in self._folder.glob("*/*.db"):
                end_game_servers(database)

    def _port(self, found: re.Match[str]) -> str:
        """A free port for each of the page's."""
        if found[0] not in self._ports:
            self._ports[found[0]] = str(free_port())
        return self._ports[found[0]]

    def _write(self, block: Block) -> None:
        assert block.file is not None, f"line {block.line}: this is neither a file nor a command"
        file = self._folder / block.file
        file.parent.mkdir(exist_ok=True)
        file.write_text(block.text, "utf-8")

    async def _type(self, command: str, lines: list[str]) -> None:
        if command == "^C":
            await self._interrupt()
        elif command.endswith("# until Ctrl-C"):
            program = self._run(re.sub(r"^((?:\w+=\S+ )*)", r"\1exec ", command))
            self._running.append(program)
            await program.says(_SERVES)
        elif _LASTS.fullmatch(command):
            self._lasting += f"{command}\n"
        else:
            await self._run_to_the_end(command, lines)

    async def _run_to_the_end(self, command: str, lines: list[str]) -> None:
        """The farm changes while one looks, so what only looks is done again."""
        command = _ID.sub(lambda found: self._servers.get(found[0], found[0]), command)
        deadline = reactor.seconds() + PATIENCE
        while True:
            program = self._run(command)
            status = await program.over()
            looks = _LOOKS.match(command)
            assert status == 0 or looks, f"{command}\n{program.output}"
            printed = program.output
            if status == 0 and self._agree(
                lines, printed, any_order=command.startswith("gameproxy farm")
            ):
                return
            if not looks or reactor.seconds() > deadline:
                wanted = "\n".join(lines)
                raise AssertionError(f"$ {command}\nshould print:\n{wanted}\nand did:\n{printed}")
            await deferLater(reactor, 0.2)

    def _run(self, command: str) -> Program:
        words = ["/bin/sh", "-ec", self._lasting + command]
        return Program(words, self._folder, {"PYTHONPATH": str(ROOT)})

    async def _interrupt(self) -> None:
        program = self._running.pop()
        assert await program.end("INT") in (0, -signal.SIGINT), program.output

    def _agree(self, lines: list[str], printed: str, any_order: bool) -> bool:
        """Whether that was printed. Where no lines are shown, anything may be."""
        if not lines:
            return True
        left = [line.rstrip() for line in printed.splitlines()]
        servers = dict(self._servers)
        for line in lines:
            pattern = self._pattern(line.rstrip(), servers)
            matches = (re.fullmatch(pattern, one) for one in (left if any_order else left[:1]))
            match = next(filter(None, matches), None)
            if match is None:
                return False
            left.remove(match.string)
            for group, id in match.groupdict().items():
                servers[group.replace("_", "-")] = id
        if left:
            return False
        self._servers = servers
        return True

    def _pattern(self, line: str, servers: dict[str, str]) -> str:
        """What a line of the page allows to be printed."""
        pattern, end = "", 0
        for found in _VARIES.finditer(line):
            pattern += re.escape(line[end : found.start()])
            end = found.end()
            if found.lastgroup != "server":
                pattern += _FOR[str(found.lastgroup)]
                continue
            name = found[0]
            group = name.replace("-", "_")
            if name in servers:
                pattern += re.escape(servers[name])
            elif f"?P<{group}>" in pattern:
                pattern += f"(?P={group})"
            else:
                pattern += f"(?P<{group}>{name[:-6]}[0-9a-f]{{6}})"
        return pattern + re.escape(line[end:])
