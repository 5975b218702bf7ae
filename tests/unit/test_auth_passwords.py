"""gameproxy.auth.password_file and gameproxy.auth.passwords"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path

from argon2 import PasswordHasher
from hypothesis import given
from hypothesis import strategies as st
from twisted.cred.credentials import UsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.logger import LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from gameproxy.auth import hash_password
from gameproxy.auth.password_file import (
    PasswordFile,
    PasswordFileError,
    parse_hash,
    parse_line,
    user_name,
)
from gameproxy.auth.passwords import CHECKS_MAX, PasswordFileChecker
from gameproxy.reasons import CloseReason, Refusal

SALT = b"sixteen bytes ok"


def base64(data: bytes) -> str:
    return b64encode(data).decode().rstrip("=")


def scrypt(password: bytes, ln: int = 4, r: int = 8, p: int = 1) -> str:
    """A scrypt hash, by default one that costs next to nothing."""
    digest = hashlib.scrypt(password, salt=SALT, n=2**ln, r=r, p=p, maxmem=2**28, dklen=32)
    return f"$scrypt$ln={ln},r={r},p={p}${base64(SALT)}${base64(digest)}"


def argon2id(password: bytes) -> str:
    """An argon2id hash that costs next to nothing."""
    return PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(password, salt=SALT)


class HashTests(SynchronousTestCase):
    """The hashes that may stand in the file."""

    def test_match(self) -> None:
        """A hash of either kind matches its password and no other, as bytes whatever they are."""
        for make in (argon2id, scrypt):
            for password in (b"sesame", "pässword".encode(), b"", b"\0x", b"x" * 4000):
                hash_ = parse_hash(make(password))
                self.assertTrue(hash_.matches(password))
                self.assertFalse(hash_.matches(password + b"!"))

    def test_costs(self) -> None:
        """scrypt is computed with the parameters that stand there, also where it takes more than 32 MiB."""
        for ln, r, p in ((14, 8, 1), (15, 8, 2), (4, 1, 3), (1, 1, 1)):
            self.assertTrue(parse_hash(scrypt(b"sesame", ln, r, p)).matches(b"sesame"))

    def test_scrypt_vector(self) -> None:
        """The test vector of RFC 7914, section 12: password "pleaseletmein", salt "SodiumChloride"."""
        digest = bytes.fromhex(
            "7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6545da1f2"
            "d5432955613f0fcf62d49705242a9af9e61e85dc0d651e40dfcf017b45575887"
        )
        line = f"$scrypt$ln=14,r=8,p=1${base64(b'SodiumChloride')}${base64(digest)}"
        self.assertTrue(parse_hash(line).matches(b"pleaseletmein"))

    def test_made_here(self) -> None:
        """What hash_password makes is argon2id with the salt given, and matches."""
        text = hash_password(b"sesame", SALT)
        self.assertTrue(text.startswith("$argon2id$v=19$"))
        self.assertIn(base64(SALT), text)
        self.assertTrue(parse_hash(text).matches(b"sesame"))

    def test_malformed(self) -> None:
        """A hash that could not be checked, or would take too much memory, is refused when it is read."""
        salt, digest, long = base64(SALT), base64(b"d" * 32), base64(b"d" * 15)
        good = f"${salt}${digest}"
        for text in (
            "",
            "plain",
            "$argon2i$v=19$m=8,t=1,p=1" + good,
            "$argon2id$v=16$m=8,t=1,p=1" + good,
            "$argon2id$v=19$m=7,t=1,p=1" + good,
            "$argon2id$v=19$m=8,t=0,p=1" + good,
            "$argon2id$v=19$m=8,t=1,p=0" + good,
            "$argon2id$v=19$m=1048577,t=1,p=1" + good,
            f"$argon2id$v=19$m=8,t=1,p=1${base64(b'short')}${digest}",
            f"$argon2id$v=19$m=8,t=1,p=1${salt}${long}",
            "$argon2id$v=19$m=8,t=1,p=1" + good + "=",
            "$argon2id$v=19$m=8,t=1,p=1" + good + "\n",
            "$scrypt$ln=0,r=8,p=1" + good,
            "$scrypt$ln=16,r=1,p=1" + good,
            "$scrypt$ln=14,r=0,p=1" + good,
            "$scrypt$ln=14,r=8,p=0" + good,
            "$scrypt$ln=20,r=8,p=1" + good,
            "$scrypt$r=8,ln=14,p=1" + good,
            f"$scrypt$ln=14,r=8,p=1${salt}${long}",
            f"$scrypt$ln=14,r=8,p=1${salt}",
            f"$scrypt$ln=14,r=8,p=1${salt}!${digest}",
            f"$scrypt$ln=14,r=8,p=1${salt}$A",
            f"$scrypt$ln=14,r=8,p=1${salt}${digest[:-1]}B",
        ):
            with self.subTest(text):
                self.assertRaises(ValueError, parse_hash, text)

    def test_repr(self) -> None:
        """No hash is shown in a repr."""
        for text in (argon2id(b"sesame"), scrypt(b"sesame")):
            shown = repr(parse_hash(text))
            self.assertNotIn(base64(SALT), shown)
            self.assertNotIn(repr(SALT), shown)

    @given(
        st.text() | st.from_regex(r"\$(argon2id\$v=19\$m|scrypt\$ln)=[0-9]{1,4},.*", fullmatch=True)
    )
    def test_any_text(self, text: str) -> None:
        """Whatever stands there is read or refused with ValueError."""
        with contextlib.suppress(ValueError):
            parse_hash(text)


class LineTests(SynchronousTestCase):
    """``name:hash``"""

    def test_line(self) -> None:
        """The name is normalised, and may have colons of its own."""
        hash_ = scrypt(b"x")
        self.assertEqual(parse_line(f"Zoe\u0308:{hash_}".encode())[0], "Zo\u00eb")
        self.assertEqual(parse_line(f"a:b:{hash_}".encode())[0], "a:b")

    def test_malformed(self) -> None:
        """Other lines are refused, and what stands there is not in the error."""
        hash_ = scrypt(b"x")
        for line in (
            b"secret",
            b"secret:",
            b"secret:secret",
            f":{hash_}".encode(),
            f"{'secret' * 11}:{hash_}".encode(),
            f"secret\u202e:{hash_}".encode(),
            f"guest:secret:{hash_}".encode(),
            b"\xffsecret:" + hash_.encode(),
        ):
            with self.subTest(line):
                error = self.assertRaises(ValueError, parse_line, line)
                self.assertNotIn("secret", str(error))

    def test_user_name(self) -> None:
        """No name of a guest can have a password."""
        self.assertEqual(user_name("zoe"), "zoe")
        self.assertRaises(UnauthorizedLogin, user_name, "guest:zoe")


class FileTestCase(SynchronousTestCase):
    """A password file with a few users."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.write(f"zoe:{scrypt(b'sesame')}", "", f"Zo\u00eb:{argon2id(b'pass')}\r")

    def write(self, *lines: str) -> None:
        self.path.write_text("".join(f"{line}\n" for line in lines), "utf-8")


class PasswordFileTests(FileTestCase):
    """Reading the file and checking passwords against it."""

    def test_check(self) -> None:
        """Only a user's own password is right; empty lines and ends of lines with CR do not disturb."""
        file = PasswordFile(self.path)
        self.assertTrue(file.check("zoe", b"sesame"))
        self.assertTrue(file.check("Zo\u00eb", b"pass"))
        for name, password in (("zoe", b"pass"), ("zoe", b""), ("yan", b"sesame"), ("", b"")):
            self.assertFalse(file.check(name, password))

    def test_nobody(self) -> None:
        """A file without users is a file: nobody is let in."""
        self.path.write_bytes(b"")
        self.assertFalse(PasswordFile(self.path).check("zoe", b""))

    def test_unknown_user_costs_the_same(self) -> None:
        """An unknown name costs a hash, too: time does not tell whether a user exists."""
        self.write(f"zoe:{scrypt(b'sesame', ln=14)}")
        file = PasswordFile(self.path)

        def cost(name: str) -> float:
            start = time.thread_time()
            self.assertFalse(file.check(name, b"wrong"))
            return time.thread_time() - start

        self.assertGreater(min(cost("yan") for _ in range(3)), cost("zoe") / 3)

    def test_errors_name_the_line(self) -> None:
        """A line that cannot be used is named by its number, not by what stands there."""
        good = f"zoe:{scrypt(b'sesame')}"
        for bad, fault in (("secret", "must be"), (f"zoe:{scrypt(b'secret')}", "twice")):
            self.write(good, "", bad)
            error = self.assertRaises(PasswordFileError, PasswordFile, self.path)
            self.assertTrue(str(error).startswith("line 3: "))
            self.assertIn(fault, str(error))
            self.assertNotIn("secret", str(error))

    def test_same_name_in_two_forms(self) -> None:
        """Names that are the same in NFC are the same."""
        self.write(f"Zoe\u0308:{scrypt(b'a')}", f"Zo\u00eb:{scrypt(b'b')}")
        self.assertRaises(PasswordFileError, PasswordFile, self.path)

    def test_missing(self) -> None:
        """A file that cannot be read is an error, at the start and later."""
        file = PasswordFile(self.path)
        self.path.unlink()
        self.assertRaises(PasswordFileError, file.check, "zoe", b"sesame")
        self.assertRaises(PasswordFileError, PasswordFile, self.path)

    def test_changed(self) -> None:
        """A changed file counts from the next check on."""
        file = PasswordFile(self.path)
        self.write(f"yan:{scrypt(b'new')}")
        self.assertTrue(file.check("yan", b"new"))
        self.assertFalse(file.check("zoe", b"sesame"))

    def test_replaced_with_same_size_and_time(self) -> None:
        """A change is seen even when size and time of modification are those of before."""
        self.write(f"zoe:{scrypt(b'old')}")
        before = self.path.stat()
        file = PasswordFile(self.path)
        self.write(f"zoe:{scrypt(b'new')}")
        os.utime(self.path, ns=(before.st_atime_ns, before.st_mtime_ns))
        self.assertEqual(self.path.stat().st_size, before.st_size)
        self.assertTrue(file.check("zoe", b"new"))

    def test_broken_later(self) -> None:
        """A file that was changed into nonsense lets nobody in until it is repaired."""
        file = PasswordFile(self.path)
        self.write("nonsense")
        for _ in range(2):
            self.assertRaises(PasswordFileError, file.check, "zoe", b"sesame")
        self.write(f"zoe:{scrypt(b'sesame')}")
        self.assertTrue(file.check("zoe", b"sesame"))


class PasswordFileCheckerTests(FileTestCase):
    """The checker, with threads that a test runs."""

    def setUp(self) -> None:
        super().setUp()
        self.waiting: list[tuple[Callable[[], bool], Deferred[bool]]] = []
        self.checker = PasswordFileChecker(PasswordFile(self.path), self.run_later)
        self.events: list[LogEvent] = []
        globalLogPublisher.addObserver(self.log)
        self.addCleanup(globalLogPublisher.removeObserver, self.log)

    def log(self, event: LogEvent) -> None:
        self.events.append(event)

    def run_later(self, work: Callable[[], bool]) -> Deferred[bool]:
        result: Deferred[bool] = Deferred()
        self.waiting.append((work, result))
        return result

    def run_one(self) -> None:
        """Do what a thread would."""
        work, result = self.waiting.pop(0)
        try:
            found = work()
        except PasswordFileError as error:
            result.errback(error)
        else:
            result.callback(found)

    def ask(self, name: str, password: bytes) -> Deferred[bytes | tuple[()]]:
        return self.checker.requestAvatarId(UsernamePassword(name.encode(), password))

    def refusal(self, answer: Deferred[bytes | tuple[()]]) -> Refusal:
        error = self.failureResultOf(answer, Refusal).value
        assert isinstance(error, Refusal)
        return error

    def test_answers(self) -> None:
        """The right password gives the name, normalised; a wrong one and an unknown name are the same."""
        right = self.ask("Zoe\u0308", b"pass")
        wrong = [self.ask("zoe", b"x"), self.ask("yan", b"x")]
        self.assertNoResult(right)
        for _ in range(3):
            self.run_one()
        self.assertEqual(self.successResultOf(right), "Zo\u00eb".encode())
        for answer in wrong:
            error = self.failureResultOf(answer, UnauthorizedLogin)
            self.assertEqual(error.getErrorMessage(), "")

    def test_bounded(self) -> None:
        """Beyond a number of checks at once, clients are told to come back, and no work is added."""
        answers = [self.ask("zoe", b"sesame") for _ in range(CHECKS_MAX)]
        refusal = self.refusal(self.ask("zoe", b"sesame"))
        self.assertIs(refusal.reason, CloseReason.THROTTLED)
        self.assertIsNotNone(refusal.retry_after)
        self.assertEqual(len(self.waiting), CHECKS_MAX)
        self.run_one()
        self.successResultOf(answers[0])
        self.assertNoResult(self.ask("zoe", b"sesame"))

    def test_cancelled(self) -> None:
        """Who leaves gets no late answer, but the work counts until it is done: leaving is no way around the bound."""
        for _ in range(CHECKS_MAX):
            answer = self.ask("zoe", b"sesame")
            answer.cancel()
            self.failureResultOf(answer, CancelledError)
        self.assertIs(self.refusal(self.ask("zoe", b"x")).reason, CloseReason.THROTTLED)
        self.run_one()
        self.assertNoResult(self.ask("zoe", b"sesame"))

    def test_broken_file(self) -> None:
        """While the file cannot be used logins end with ``internal``; each fault is logged once."""
        self.write("nonsense")
        for _ in range(3):
            answer = self.ask("zoe", b"sesame")
            self.run_one()
            refusal = self.refusal(answer)
            self.assertIs(refusal.reason, CloseReason.INTERNAL)
            self.assertIsNotNone(refusal.retry_after)
        self.assertEqual(self.faults(), ["line 1: must be name:hash"])
        self.write(f"zoe:{scrypt(b'sesame')}")
        self.successResultOf(self.ask_and_run())
        self.write("nonsense")
        self.failureResultOf(self.ask_and_run())
        self.assertEqual(self.faults(), ["line 1: must be name:hash"])
        self.path.unlink()
        self.failureResultOf(self.ask_and_run())
        self.assertEqual(self.faults(), ["cannot be read: No such file or directory"])

    def ask_and_run(self) -> Deferred[bytes | tuple[()]]:
        answer = self.ask("zoe", b"sesame")
        self.run_one()
        return answer

    def faults(self) -> list[str]:
        """What was logged since the last time."""
        events, self.events = self.events, []
        return [event["fault"] for event in events if "fault" in event]

    def test_broken_threads(self) -> None:
        """Another failure of the thread goes on to who asked, and its place becomes free."""
        checker = PasswordFileChecker(PasswordFile(self.path), lambda work: fail(MemoryError()))
        for _ in range(CHECKS_MAX + 1):
            answer = checker.requestAvatarId(UsernamePassword(b"zoe", b"sesame"))
            self.failureResultOf(answer, MemoryError)
