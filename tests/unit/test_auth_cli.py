"""gameproxy ticket, gameproxy password, gameproxy key"""

from __future__ import annotations

import argparse
import getpass
import io
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from gameproxy.auth import Ticket
from gameproxy.auth.password_file import PasswordFile
from gameproxy.auth.tickets import TicketChecker
from gameproxy.cli import key, password, ticket
from gameproxy.handshake import derive_server_key
from gameproxy.interfaces import Identity
from gameproxy.keys import read_ticket_key

GAME = """
[[games]]
name = "tag"
command = ["tag"]
capacity = 8
max_servers = 1
"""
ED = Ed25519PrivateKey.from_private_bytes(b"\1" * 32)
EC = generate_private_key(SECP256R1())


class CommandTestCase(SynchronousTestCase):
    """A folder with a configuration, and commands run as the program would."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()

    def configure(self, text: str) -> None:
        (self.folder / "gameproxy.toml").write_text(text + GAME)

    def write(self, name: str, content: bytes) -> str:
        path = self.folder / name
        path.write_bytes(content)
        path.chmod(0o600)
        return str(path)

    def gameproxy(self, *arguments: str) -> tuple[int, str, str]:
        """Status, standard output and standard error."""
        parser = argparse.ArgumentParser()
        subparsers = parser.add_subparsers(required=True)
        for command in (key, password, ticket):
            command.add_parser(subparsers)
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            try:
                args = parser.parse_args(arguments)
                status = args.run(args)
            except SystemExit as exit_:
                status = exit_.code
        return status, out.getvalue(), err.getvalue()

    def configured(self, command: str, *arguments: str) -> tuple[int, str, str]:
        return self.gameproxy(command, *arguments, "--config", str(self.folder / "gameproxy.toml"))

    def fails(self, fault: str, command: str, *arguments: str) -> None:
        status, out, err = self.configured(command, *arguments)
        self.assertEqual((status, out), (1, ""))
        self.assertIn(fault, err)


class TicketTests(CommandTestCase):
    """``gameproxy ticket``"""

    def setUp(self) -> None:
        super().setUp()
        self.configure(
            """
            [auth]
            ticket_keys = [
                { id = "web", algorithm = "HS256", file = "web.key" },
                { id = "launcher", algorithm = "EdDSA", file = "launcher.pem" },
                { id = "shop", algorithm = "ES256", file = "shop.pem" },
            ]
            """
        )
        self.write("web.key", b"an HS256 secret of 32 bytes plus\n")
        self.private: dict[str, str] = {}
        for name, one in (("launcher", ED), ("shop", EC)):
            public = one.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
            private = one.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            self.write(f"{name}.pem", public)
            self.private[name] = self.write(f"{name}.private", private)

    def check(self, token: str, key_id: str, algorithm: str, file: str) -> Identity:
        """What a proxy makes of the ticket."""
        clock = Clock()
        clock.advance(time.time())
        keys = {key_id: (algorithm, read_ticket_key(self.folder / file, algorithm))}
        checker = TicketChecker(keys, clock)
        identity = self.successResultOf(checker.requestAvatarId(Ticket(token.removesuffix("\n"))))
        assert isinstance(identity, Identity)
        return identity

    def test_every_algorithm(self) -> None:
        """The proxy accepts what is printed."""
        for key_id, algorithm, file, *more in (
            ("web", "HS256", "web.key"),
            ("launcher", "EdDSA", "launcher.pem", "--private-key", self.private["launcher"]),
            ("shop", "ES256", "shop.pem", "--private-key", self.private["shop"]),
        ):
            status, out, err = self.configured(
                "ticket", "--player", "Zoe\u0308", "--key", key_id, "--game", "tag", *more
            )
            self.assertEqual((status, err), (0, ""))
            identity = self.check(out, key_id, algorithm, file)
            self.assertEqual((identity.player, identity.game), ("Zo\u00eb", "tag"))

    def test_every_ticket_is_another(self) -> None:
        """Each ticket has a ``jti`` of its own."""
        jtis = set()
        for _ in range(3):
            _, out, _ = self.configured("ticket", "--player", "zoe", "--key", "web")
            jtis.add(self.check(out, "web", "HS256", "web.key").ticket)
        self.assertEqual(len(jtis), 3)

    def test_only_key(self) -> None:
        """Where there is only one key it needs no mention."""
        self.configure('[auth]\nticket_keys = [{id="web", algorithm="HS256", file="web.key"}]')
        status, out, _ = self.configured("ticket", "--player", "zoe", "--for", "300")
        self.assertEqual(status, 0)
        self.assertEqual(self.check(out, "web", "HS256", "web.key").player, "zoe")

    def test_faults(self) -> None:
        """What does not work is said, and why."""
        zoe = ("ticket", "--player", "zoe")
        self.fails("1 to 64 characters", "ticket", "--player", "")
        self.fails("must be one of web, launcher, shop", *zoe)
        self.fails("must be one of web, launcher, shop", *zoe, "--key", "other")
        self.fails("at most auth.ticket_lifetime: 300", *zoe, "--key", "web", "--for", "301")
        self.fails("EdDSA needs --private-key", *zoe, "--key", "launcher")
        self.fails("has none", *zoe, "--key", "web", "--private-key", self.private["shop"])
        (self.folder / "web.key").unlink()
        self.fails("web.key: cannot be read", *zoe, "--key", "web")
        self.configure("")
        self.fails("tickets are off", *zoe)
        self.configure("nonsense")
        self.fails("not TOML", *zoe)

    def test_private_keys_that_do_not_fit(self) -> None:
        """The private key must be that of the configured public key."""
        launcher = ("ticket", "--player", "zoe", "--key", "launcher", "--private-key")
        rsa = generate_rsa(65537, 2048).private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        )
        self.fails("is not the private key of launcher", *launcher, self.private["shop"])
        self.fails("is not the private key of launcher", *launcher, self.write("rsa", rsa))
        self.fails("is no private key", *launcher, self.write("junk", b"junk"))
        self.fails("cannot be read", *launcher, str(self.folder / "missing"))

    def test_wrong_usage(self) -> None:
        """No player, and a time that is none, is wrong usage."""
        self.assertEqual(self.configured("ticket")[0], 2)
        for seconds in ("0", "-1", "nan", "inf", "soon"):
            status, out, _ = self.configured("ticket", "--player", "zoe", f"--for={seconds}")
            self.assertEqual((status, out), (2, ""))


class PasswordTests(CommandTestCase):
    """``gameproxy password``"""

    def type(self, text: str) -> None:
        """Let the command read this on standard input."""
        self.patch(sys, "stdin", io.StringIO(text))

    def test_line(self) -> None:
        """What is printed is a line of the password file."""
        self.type("sés ame \nmore\n")
        status, out, err = self.gameproxy("password", "Zoe\u0308")
        self.assertEqual((status, err), (0, ""))
        file = PasswordFile(Path(self.write("passwords", out.encode())))
        self.assertIn("$argon2id$", out)
        self.assertTrue(file.check("Zo\u00eb", "sés ame ".encode()))

    def test_faults(self) -> None:
        """Names that nobody may have, and no password, are refused."""
        for name, text, fault in (
            ("", "sesame", "characters"),
            ("a\x1bb", "sesame", "characters"),
            ("guest:zoe", "sesame", "guest"),
            ("zoe", "\n", "empty"),
            ("zoe", "", "empty"),
            ("zoe", "\udc80", "UTF-8"),
        ):
            self.type(text)
            status, out, err = self.gameproxy("password", name)
            self.assertEqual((status, out), (1, ""))
            self.assertIn(fault, err)
            self.assertTrue(err.strip().isprintable())

    def test_terminal(self) -> None:
        """From a terminal the password is asked for twice, unseen; two different ones are none."""

        class Terminal(io.StringIO):
            def isatty(self) -> bool:
                return True

        self.patch(sys, "stdin", Terminal())
        for answers, expected in ((["sesame", "sesame"], 0), (["sesame", "Sesame"], 1)):
            self.patch(getpass, "getpass", lambda prompt, left=answers: left.pop(0))
            status, out, err = self.gameproxy("password", "zoe")
            self.assertEqual(status, expected)
            self.assertNotIn("esame", out + err)
            self.assertEqual(out.startswith("zoe:$argon2id$"), expected == 0)


class KeyTests(CommandTestCase):
    """``gameproxy key``"""

    def test_derived(self) -> None:
        """The key is the one that the proxy derives, in 64 hexadecimal digits."""
        self.configure("")
        self.write("farm.secret", b"0a" * 40)
        status, out, err = self.configured("key", "tag-1")
        self.assertEqual((status, err), (0, ""))
        self.assertEqual(out, derive_server_key(b"\x0a" * 40, "tag-1").hex() + "\n")

    def test_secret_is_made(self) -> None:
        """Before the proxy's first start the secret is made, for its owner alone, and stays."""
        self.configure("")
        first, second = self.configured("key", "tag-1"), self.configured("key", "tag-1")
        self.assertEqual(first[0], 0)
        self.assertEqual(first, second)
        self.assertEqual((self.folder / "farm.secret").stat().st_mode & 0o777, 0o600)

    def test_key_file(self) -> None:
        """A listed game server with a key file of its own has that key."""
        self.configure(
            """
            [[servers]]
            id = "far"
            game = "tag"
            host = "192.0.2.9"
            port = 7000
            capacity = 4
            key_file = "far.key"

            [[servers]]
            id = "near"
            game = "tag"
            host = "192.0.2.8"
            port = 7000
            capacity = 4
            """
        )
        self.write("far.key", b"AB" * 32 + b"\n")
        self.assertEqual(self.configured("key", "far"), (0, "ab" * 32 + "\n", ""))
        self.write("farm.secret", b"0a" * 32)
        derived = derive_server_key(b"\x0a" * 32, "near").hex()
        self.assertEqual(self.configured("key", "near"), (0, derived + "\n", ""))
        self.write("far.key", b"AB")
        self.fails("64", "key", "far")

    def test_faults(self) -> None:
        """What does not work is said, and why."""
        self.fails("gameproxy.toml: cannot be read", "key", "tag-1")
        self.configure("")
        self.write("farm.secret", b"short")
        self.fails("hexadecimal", "key", "tag-1")
