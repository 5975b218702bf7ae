"""``gameproxy check``: what it prints where, and its exit status."""

from __future__ import annotations

import io
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from gameproxy.cli import main
from gameproxy.cli.terminal import printable
from tests.authority import Authority

GAME = """
[[games]]
name = "a"
command = ["./start"]
capacity = 1
max_servers = 1
"""


def run(*arguments: str) -> tuple[int, str, str]:
    """The exit status of ``gameproxy`` with these arguments, and what it printed: output and errors."""
    with redirect_stdout(io.StringIO()) as output, redirect_stderr(io.StringIO()) as errors:
        try:
            status = main(arguments)
        except SystemExit as stop:
            status = stop.code if isinstance(stop.code, int) else 1
    return status, output.getvalue(), errors.getvalue()


class Check(SynchronousTestCase):
    """The command, on a file in a folder that has a program to start."""

    def setUp(self) -> None:
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.file = self.folder / "gameproxy.toml"
        self.program = self.folder / "start"
        self.program.write_text("#!/bin/sh\n")
        self.program.chmod(0o755)

    def check(self, text: str) -> tuple[int, str, list[str]]:
        """Status, output and lines of errors, without the file's name at their beginning."""
        self.file.write_text(text)
        status, output, errors = run("check", str(self.file))
        lines = errors.splitlines()
        for line in lines:
            self.assertTrue(line.startswith(f"{self.file}: "), line)
        return status, output, [line.removeprefix(f"{self.file}: ") for line in lines]

    def test_ok(self) -> None:
        """A good configuration is said to be good, on standard output."""
        self.assertEqual(self.check(GAME), (0, f"{self.file}: ok\n", []))

    def test_problems(self) -> None:
        """Of a bad one every problem is a line with its place, on standard error."""
        status, output, lines = self.check(GAME + "colour = 1\n[proxy]\nmax_sessions = 0")
        self.assertEqual((status, output), (1, ""))
        self.assertEqual(
            lines,
            [
                "proxy.max_sessions: must be greater than or equal to 1",
                "games[0].colour: unknown key",
            ],
        )

    def test_no_file(self) -> None:
        """A problem of the whole file has no place."""
        status, _, errors = run("check", str(self.file))
        self.assertEqual(status, 1)
        self.assertEqual(errors, f"{self.file}: cannot be read: No such file or directory\n")

    def test_too_many_sessions(self) -> None:
        """More sessions than there can be descriptors for are told before they are missed."""
        status, _, lines = self.check(GAME + "[proxy]\nmax_sessions = 1_000_000")
        self.assertEqual(status, 1)
        self.assertTrue(lines[0].startswith("proxy.max_sessions: 1000000 sessions need"), lines)

    def test_no_folder_for_the_database(self) -> None:
        """A database can be made, but not the folder that it is to be in."""
        status, _, lines = self.check(GAME + '[proxy]\ndatabase = "sqlite:///no/farm.db"')
        self.assertEqual(status, 1)
        self.assertEqual(lines, [f"proxy.database: there is no folder {self.folder}/no"])

    def test_tls(self) -> None:
        """The files of TLS have to be good, and the endpoints of all sections."""
        authority = Authority()
        authority.issue("play.example").write(self.folder, "good")
        (self.folder / "other.key").write_bytes((self.folder / "good.key").read_bytes())
        (self.folder / "other.key").chmod(0o644)
        text = """
            [tls]
            listen = ["nowhere:1"]
            certificate = "good.pem"
            key = "other.key"
            servers_ca = "none.pem"
            [proxy_protocol]
            listen = ["nowhere:2"]
            trusted = ["::1"]
            tls = true
        """
        status, _, lines = self.check(GAME + text)
        self.assertEqual(status, 1)
        self.assertEqual(
            [line.split(": ")[0] for line in lines],
            ["tls.listen[0]", "proxy_protocol.listen[0]", "tls.key", "tls.servers_ca"],
        )
        good = text.replace("nowhere:", "tcp:").replace("other.key", "good.key")
        authority.write(self.folder, "none")
        self.assertEqual(self.check(GAME + good), (0, f"{self.file}: ok\n", []))

    def test_files(self) -> None:
        """Files that are named have to be good, each told at its place; all are looked at."""
        (self.folder / "farm.secret").write_text("short")
        (self.folder / "passwords").write_text("nobody\n")
        (self.folder / "web.key").write_text("short")
        text = """
            [auth]
            password_file = "passwords"
            [[auth.ticket_keys]]
            id = "web"
            algorithm = "HS256"
            file = "web.key"
            [[auth.ticket_keys]]
            id = "shop"
            algorithm = "ES256"
            file = "shop.pem"
            [[servers]]
            id = "s"
            game = "a"
            host = "127.0.0.1"
            port = 1
            capacity = 1
            key_file = "s.key"
        """
        status, _, lines = self.check(GAME + text)
        self.assertEqual(status, 1)
        self.assertEqual(
            [line.split(": ")[0] for line in lines],
            [
                "proxy.secret_file",
                "auth.password_file",
                "auth.ticket_keys[0].file",
                "auth.ticket_keys[1].file",
                "servers[0].key_file",
            ],
        )
        self.assertEqual(
            lines[-1],
            f"servers[0].key_file: {self.folder}/s.key cannot be read: No such file or directory",
        )

    def test_good_files(self) -> None:
        """Good files are no problem, and a secret that is not there is not made."""
        key = self.folder / "s.key"
        key.write_text("0" * 64)
        key.chmod(0o600)
        server = '[[servers]]\nid = "s"\ngame = "a"\nhost = "h"\nport = 1\ncapacity = 1\n'
        with_key = server.replace('"s"', '"t"') + 'key_file = "s.key"'
        self.assertEqual(self.check(GAME + server + with_key)[0], 0)
        self.assertFalse((self.folder / "farm.secret").exists())

    def test_programs(self) -> None:
        """A program is one that can be run, found beside the file or in PATH; each game's is looked for."""
        self.assertEqual(self.check(GAME.replace("./start", "sh"))[0], 0)
        second = GAME.replace('"a"', '"b"').replace("./start", "./absent")
        places = [line.split(": ")[0] for line in self.check(GAME + second)[2]]
        self.assertEqual(places, ["games[1].command"])
        for program in ("no-such-program", "./absent", "start", "./gameproxy.toml"):
            status, _, lines = self.check(GAME.replace("./start", program))
            self.assertEqual(status, 1)
            self.assertEqual(lines, [f"games[0].command: {program} is no program that can be run"])

    def test_endpoints(self) -> None:
        """Endpoints are tried without listening; systemd's sockets cannot be, and are passed over."""
        listen = '["tcp:0", "systemd:domain=INET:index=0", "tcp:x", "nope:1"]'
        status, _, lines = self.check(f"[proxy]\nlisten = {listen}\n{GAME}")
        self.assertEqual(status, 1)
        places = [line.split(": ")[0] for line in lines]
        self.assertEqual(places, ["proxy.listen[2]", "proxy.listen[3]"])

    def test_terminal(self) -> None:
        """Nothing from the file reaches the terminal unescaped, from wherever it comes."""
        escape = "\\u001b[2J\\u202e"
        for text in (
            GAME.replace("./start", escape),
            f'{GAME}"{escape}" = 1',
            f'[proxy]\nlisten = ["{escape}:1"]\n{GAME}',
            f'[auth]\npassword_file = "{escape}"\n{GAME}',
            "a = \x1b",
        ):
            status, _, lines = self.check(text)
            self.assertEqual(status, 1)
            self.assertEqual(len(lines), 1)
            self.assertTrue(lines[0].isprintable(), lines)

    def test_name_of_the_file(self) -> None:
        """Nor does anything from the name of the file."""
        _, _, errors = run("check", str(self.folder / "\x1b[2J"))
        self.assertIn("\\x1b[2J", errors)
        self.assertNotIn("\x1b", errors)


class Usage(SynchronousTestCase):
    """The command line itself."""

    def test_wrong_usage(self) -> None:
        """Without a command, with an unknown one or without a file the status is 2."""
        for arguments in (
            (),
            ("dance",),
            ("check",),
            ("check", "a", "b"),
            ("check", "--fast", "a"),
        ):
            status, output, errors = run(*arguments)
            self.assertEqual((status, output), (2, ""), arguments)
            self.assertIn("usage: gameproxy", errors)

    def test_help(self) -> None:
        """Help and version are no failures."""
        for arguments in (("--help",), ("check", "--help"), ("--version",)):
            status, output, errors = run(*arguments)
            self.assertEqual((status, errors), (0, ""))
            self.assertIn("gameproxy", output)


class Printable(SynchronousTestCase):
    """What may reach a terminal."""

    def test_examples(self) -> None:
        """Control, format and surrogate characters are escaped, letters of all scripts are not."""
        self.assertEqual(
            printable("Über \x1b[2J\n\u202e\udc80\x9b"), "Über \\x1b[2J\\n\\u202e\\udc80\\x9b"
        )

    @given(st.text())
    def test_always(self, text: str) -> None:
        """What comes out is printable, and is what went in if that was."""
        escaped = printable(text)
        self.assertTrue(escaped.isprintable())
        if text.isprintable():
            self.assertEqual(escaped, text)
