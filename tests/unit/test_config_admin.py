"""``[admin]`` and ``[log]``: what may stand there"""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from gameproxy.cli.check import problems_around
from gameproxy.config import ConfigError, load, parse
from gameproxy.config_values import is_loopback

GAME = '[[servers]]\nid = "s1"\ngame = "echo"\nhost = "127.0.0.1"\nport = 1\ncapacity = 1\n'


def problems_of(text: str) -> list[tuple[str, str]]:
    """What is wrong with a configuration."""
    try:
        parse(text, "/etc")
    except ConfigError as error:
        return error.problems
    return []


class AdminConfigTests(SynchronousTestCase):
    """The section"""

    def test_defaults(self) -> None:
        """By itself nothing listens and nothing is written."""
        config = parse("", "/etc")
        self.assertEqual((config.admin.listen, config.admin.public), ("", False))
        self.assertEqual((config.admin.token_file, config.log.json_file), ("admin.token", ""))

    def test_loopback(self) -> None:
        """What other machines cannot reach may be listened at; of all else nobody knows, so it may not."""
        for listen, private in (
            ("tcp:9180:interface=127.0.0.1", True),
            ("tcp:port=9180:interface=127.1.2.3", True),
            ("tcp:9180:backlog=5:interface=127.0.0.1", True),
            ("tcp:9180:interface=127.0.0.1:backlog=5", True),
            (r"tcp6:9180:interface=\:\:1", True),
            ("unix:admin.sock", True),
            ("unix:/run/admin.sock:mode=660", True),
            ("tcp:9180", False),
            ("tcp:9180:interface=", False),
            ("tcp:9180:interface=0.0.0.0", False),
            ("tcp:9180:interface=192.0.2.1", False),
            ("tcp:9180:interface=127.0.0.1.example.org", False),
            ("tcp:9180:interface=localhost", False),
            ("tcp:9180:interface=0127.0.0.1", False),
            (r"tcp6:9180:interface=\:\:", False),
            ("tcp:9180:interface=127.0.0.1:interface=0.0.0.0", False),
            ("tcp:9180:interface=127.0.0.1\n", False),
            ("systemd:domain=INET:index=0", False),
            ("ssl:9180:interface=127.0.0.1", False),
            ("haproxy:tcp:9180:interface=127.0.0.1", False),
        ):
            self.assertEqual(is_loopback(listen), private, listen)

    def test_public(self) -> None:
        """An address that others can reach is an error with its place, unless the configuration says that it may."""
        public = "[admin]\nlisten = 'tcp:9180'\n"
        ((place, message),) = problems_of(public)
        self.assertEqual(place, "admin.listen")
        self.assertIn("public = true", message)
        self.assertEqual(problems_of(public + "public = true"), [])
        self.assertEqual(problems_of(f"{public}public = 1")[0][0], "admin.public")

    def test_unknown(self) -> None:
        """A key that is not known is an error."""
        self.assertEqual(problems_of("[admin]\ntoken = 'x'"), [("admin.token", "unknown key")])
        self.assertEqual(problems_of("[log]\nformat = 'x'"), [("log.format", "unknown key")])
        self.assertEqual(problems_of("[admin]\ntoken_file = ''")[0][0], "admin.token_file")

    def test_check(self) -> None:
        """``gameproxy check`` looks at the endpoint, and at the token if there is one; not where nothing listens."""
        folder = Path(self.mktemp())
        folder.mkdir(parents=True)
        file = folder / "gameproxy.toml"
        token = folder / "admin.token"

        def check(admin: str) -> list[str]:
            file.write_text(f"[admin]\n{admin}\n{GAME}")
            return [place for place, _ in problems_around(load(file))]

        on = 'listen = "tcp:9180:interface=127.0.0.1"'
        self.assertEqual(check(on), [])
        self.assertEqual(check('listen = "bogus:1"\npublic = true'), ["admin.listen"])
        token.write_text("short")
        self.assertEqual(check(on), ["admin.token_file"])
        self.assertEqual(check(""), [])
        token.write_text("ab" * 32)
        token.chmod(0o604)
        self.assertEqual(check(on), ["admin.token_file"])
        token.chmod(0o600)
        self.assertEqual(check(on), [])
