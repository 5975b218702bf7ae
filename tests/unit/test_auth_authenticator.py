"""gameproxy.auth.authenticator, portal and realm: from AUTH to an identity."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from twisted.cred.checkers import (
    ANONYMOUS,
    ICredentialsChecker,
    InMemoryUsernamePasswordDatabaseDontUse,
)
from twisted.cred.credentials import IAnonymous, ICredentials, IUsernamePassword
from twisted.cred.error import LoginDenied, UnauthorizedLogin
from twisted.cred.portal import IRealm, Portal
from twisted.cred.strcred import makeChecker
from twisted.internet.defer import CancelledError, Deferred, fail, maybeDeferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import Interface, implementer
from zope.interface.verify import verifyObject

from gameproxy.auth import (
    Attempt,
    CredAuthenticator,
    IGuest,
    IPlayer,
    ITicket,
    build_portal,
    issue_ticket,
)
from gameproxy.auth.failures import ADDRESS_FAILURES, USER_FAILURES, USER_INTERVAL
from gameproxy.auth.password_file import PasswordFileError
from gameproxy.auth.passwords import CHECKS_MAX
from gameproxy.auth.realm import PlayerRealm
from gameproxy.interfaces import Authenticator, Identity, Peer, UsedTicket
from gameproxy.messages import Auth
from gameproxy.reasons import ADVICE, CloseReason, Refusal

NOW = 1_800_000_000.0
SECRET = b"an HS256 secret of 32 bytes plus"
TLS = Peer("192.0.2.1", 4000, secure=True)
CLEAR = Peer("192.0.2.1", 4000, secure=False)
T = TypeVar("T")


@dataclass
class Settings:
    """What stands in ``[auth]``."""

    guests: bool = False
    password_file: str = ""
    ticket_lifetime: float = 300.0


def at_once(work: Callable[[], T]) -> Deferred[T]:
    """A thread that takes no time."""
    return maybeDeferred(work)


def password(name: str = "zoe", word: str = "sesame") -> Auth:
    return Auth("password", username=name, password=word)


@implementer(ICredentialsChecker)
class OwnChecker:
    """A checker as somebody else may write it. It answers with what it was given."""

    def __init__(
        self, answer: object, interfaces: tuple[type[Interface], ...] = (IUsernamePassword,)
    ) -> None:
        self.credentialInterfaces = interfaces
        self.answer = answer
        self.asked: list[ICredentials] = []

    def requestAvatarId(self, credentials: ICredentials) -> object:
        self.asked.append(credentials)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class AuthTestCase(SynchronousTestCase):
    """An authenticator with what a test turns on."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self.folder = Path(self.mktemp())
        self.folder.mkdir()

    def start(
        self,
        *checkers: object,
        run_in_thread: Callable[[Callable[[], bool]], Deferred[bool]] = at_once,
        password_without_tls: bool = False,
        keys: bool = False,
        **settings: object,
    ) -> None:
        portal = build_portal(
            Settings(**settings),
            self.clock,
            run_in_thread,
            folder=self.folder,
            ticket_keys={"web": ("HS256", SECRET)} if keys else {},
            extra_checkers=checkers,
        )
        self.authenticator: Authenticator = CredAuthenticator(
            portal, self.clock, password_without_tls=password_without_tls
        )

    def start_with_file(self, **settings: object) -> None:
        digest = hashlib.scrypt(b"sesame", salt=b"salt", n=16, r=8, p=1, dklen=32)
        salt, digest_text = (b64encode(one).decode().rstrip("=") for one in (b"salt", digest))
        line = f"zoe:$scrypt$ln=4,r=8,p=1${salt}${digest_text}\n"
        (self.folder / "passwords").write_text(line)
        self.start(password_file="passwords", **settings)

    def accept(self, request: Auth, peer: Peer = TLS) -> Identity:
        return self.successResultOf(self.authenticator.authenticate(request, peer))

    def refuse(
        self,
        request: Auth,
        peer: Peer = TLS,
        reason: CloseReason = CloseReason.AUTH_FAILED,
    ) -> Refusal:
        error = self.failureResultOf(self.authenticator.authenticate(request, peer), Refusal).value
        assert isinstance(error, Refusal)
        self.assertIs(error.reason, reason)
        return error


class MechanismTests(AuthTestCase):
    """Which credentials are looked at."""

    def test_ticket(self) -> None:
        """A ticket gives the player, its game, and what is to be remembered of it."""
        self.start(keys=True)
        ticket = issue_ticket(
            "web", "HS256", SECRET, player="Zoe\u0308", jti="j", now=NOW, game="tag"
        )
        identity = self.accept(Auth("ticket", ticket=ticket), CLEAR)
        self.assertEqual(identity, Identity("Zo\u00eb", "ticket", "tag", UsedTicket("j", NOW + 70)))

    def test_ticket_lifetime(self) -> None:
        """The configured lifetime holds."""
        self.start(keys=True, ticket_lifetime=20.0)
        ticket = issue_ticket("web", "HS256", SECRET, player="zoe", jti="j", now=NOW)
        self.refuse(Auth("ticket", ticket=ticket))

    def test_guest(self) -> None:
        """A guest's player says that it is one; the 64 characters are the name's."""
        self.start(guests=True)
        self.assertEqual(self.accept(Auth("guest", name="zoe")), Identity("guest:zoe", "guest"))
        self.assertEqual(self.accept(Auth("guest", name="a" * 64)).player, "guest:" + "a" * 64)

    def test_password(self) -> None:
        """A password gives the user's name, whatever form it was sent in."""
        self.start_with_file()
        self.assertEqual(self.accept(password()), Identity("zoe", "password"))
        for wrong in (password(word="x"), password("yan"), password(word="")):
            self.refuse(wrong)

    def test_off(self) -> None:
        """Every mechanism is off unless configured; who comes by one that is off is told that."""
        self.start()
        ticket = issue_ticket("web", "HS256", SECRET, player="zoe", jti="j", now=NOW)
        for request, word in (
            (Auth("ticket", ticket=ticket), "with a ticket"),
            (Auth("guest", name="zoe"), "Guests"),
            (password(), "with a password"),
        ):
            self.assertIn(word, self.refuse(request).message)

    def test_unknown_or_incomplete(self) -> None:
        """An unknown mechanism, and one without its credentials, is ``auth_failed``."""
        self.start_with_file(keys=True, guests=True)
        for request in (
            Auth("magic", ticket="t", username="zoe", password="sesame", name="zoe"),
            Auth("", name="zoe"),
            Auth("ticket", username="zoe", password="sesame", name="zoe"),
            Auth("guest", ticket="t", username="zoe", password="sesame"),
            Auth("password", name="zoe", password="sesame"),
            Auth("password", name="zoe", username="zoe"),
        ):
            self.refuse(request)

    def test_all_failures_look_the_same(self) -> None:
        """The client is not told what was wrong."""
        self.start_with_file(keys=True)
        for request in (
            password(word="x"),
            password("yan"),
            Auth("ticket", ticket="x"),
            Auth("magic"),
        ):
            refusal = self.refuse(request)
            self.assertEqual(refusal.message, ADVICE[CloseReason.AUTH_FAILED])
            self.assertIsNone(refusal.retry_after)

    def test_surrogates(self) -> None:
        """Names and passwords with surrogate characters, which JSON can carry, are refused like others."""
        self.start_with_file(guests=True, keys=True)
        for request in (
            password("\ud800"),
            password(word="\ud800"),
            Auth("guest", name="\udfff"),
            Auth("ticket", ticket="\ud800"),
        ):
            self.refuse(request)


class NameTests(AuthTestCase):
    """Whatever a checker says, a player's name obeys the rules."""

    def test_bad_names(self) -> None:
        """No mechanism gives a name that is none."""
        self.start_with_file(guests=True, keys=True)
        for name in ("", "a" * 65, "a\nb", "a\u202eb", "\u200b"):
            ticket = issue_ticket("web", "HS256", SECRET, player=name, jti="j", now=NOW)
            self.refuse(Auth("ticket", ticket=ticket))
            self.assertIn("1 to 64", self.refuse(Auth("guest", name=name)).message)
            self.refuse(password(name))

    def test_names_of_other_checkers(self) -> None:
        """Names come from checkers as UTF-8 or str; others than players may have are refused."""
        for answer in (b"Zoe\xcc\x88", "Zo\u00eb", succeed(b"Zo\xc3\xab")):
            self.start(OwnChecker(answer))
            self.assertEqual(self.accept(password()).player, "Zo\u00eb")
        for answer in (b"\xff", b"", "", "a\0", b"a" * 65, ANONYMOUS, "\ud800"):
            self.start(OwnChecker(answer))
            self.refuse(password())

    def test_only_guests_are_called_guests(self) -> None:
        """No ticket, password or foreign checker yields a player whose name begins with ``guest:``."""
        ticket = issue_ticket("web", "HS256", SECRET, player="guest:zoe", jti="j", now=NOW)
        self.start(OwnChecker("guest:zoe"), keys=True)
        self.refuse(Auth("ticket", ticket=ticket))
        self.refuse(password())
        self.start(OwnChecker(Identity("guest:zoe", "guest"), (ITicket,)))
        self.refuse(Auth("ticket", ticket="x"))

    def test_guests_are_always_called_guests(self) -> None:
        """A guest whom a foreign checker lets in is called a guest, too."""
        self.start(OwnChecker(Identity("zoe", "ticket"), (IGuest,)))
        self.assertEqual(self.accept(Auth("guest", name="zoe")), Identity("guest:zoe", "guest"))


class PasswordRuleTests(AuthTestCase):
    """What holds for passwords, whoever checks them."""

    def test_without_tls(self) -> None:
        """Over a connection without TLS a password is not even looked at."""
        checker = OwnChecker(b"zoe")
        self.start(checker)
        refusal = self.refuse(password(), CLEAR)
        self.assertIn("TLS", refusal.message)
        self.assertEqual(checker.asked, [])

    def test_without_tls_when_allowed(self) -> None:
        """The configuration can allow it."""
        self.start_with_file(password_without_tls=True)
        self.assertEqual(self.accept(password(), CLEAR).player, "zoe")

    def test_failures_are_limited(self) -> None:
        """After some failures a user is told to wait, and nothing is checked meanwhile; then one more may come."""
        checker = OwnChecker(UnauthorizedLogin())
        self.start(checker)
        for _ in range(USER_FAILURES):
            self.assertIsNone(self.refuse(password()).retry_after)
        checker.answer = b"zoe"
        limited = self.refuse(password())
        self.assertEqual(limited.retry_after, USER_INTERVAL)
        self.assertIn("Wait", limited.message)
        self.assertEqual(len(checker.asked), USER_FAILURES)
        self.clock.advance(USER_INTERVAL + 0.1)
        self.accept(password())

    def test_failures_of_an_address(self) -> None:
        """An address that fails for many users has to wait for all of them, another one has not."""
        checker = OwnChecker(UnauthorizedLogin())
        self.start(checker)
        for number in range(ADDRESS_FAILURES):
            self.refuse(password(f"user{number}"))
        self.assertIsNotNone(self.refuse(password()).retry_after)
        self.assertIsNone(self.refuse(password(), Peer("192.0.2.2", 1, True)).retry_after)

    def test_forms_of_a_name_are_one_user(self) -> None:
        """To write a name in another form of Unicode is no way around."""
        self.start(OwnChecker(UnauthorizedLogin()))
        for number in range(USER_FAILURES):
            self.refuse(password("Zo\u00eb" if number % 2 else "Zoe\u0308"))
        self.assertIsNotNone(self.refuse(password("Zo\u00eb")).retry_after)

    def test_many_at_once(self) -> None:
        """Attempts that are under way count, so that a hundred at once are no way around."""
        checker = OwnChecker(UnauthorizedLogin())
        self.start(checker)
        checker.answer = Deferred()
        waiting = [self.authenticator.authenticate(password(), TLS) for _ in range(USER_FAILURES)]
        self.assertIsNotNone(self.refuse(password()).retry_after)
        for one in waiting:
            self.assertNoResult(one)

    def test_success_is_no_failure(self) -> None:
        """Players may sign in as often as they like."""
        self.start_with_file()
        for _ in range(ADDRESS_FAILURES * 2):
            self.accept(password())

    def test_faults_of_ours_are_no_failures(self) -> None:
        """When a checker breaks or is too busy, that is not counted against the user."""
        checker = OwnChecker(RuntimeError("broken"))
        self.start(checker)
        for _ in range(USER_FAILURES + 1):
            self.refuse(password(), reason=CloseReason.INTERNAL)
        self.flushLoggedErrors(RuntimeError)
        checker.answer = Refusal(CloseReason.THROTTLED, retry_after=5.0)
        for _ in range(USER_FAILURES + 1):
            self.refuse(password(), reason=CloseReason.THROTTLED)
        checker.answer = b"zoe"
        self.accept(password())

    def test_too_many(self) -> None:
        """Beyond what the threads can take, clients are told to come back."""
        self.start_with_file(run_in_thread=lambda work: Deferred())
        for number in range(CHECKS_MAX):
            peer = Peer(f"192.0.2.{number}", 1, True)
            self.assertNoResult(self.authenticator.authenticate(password(), peer))
        refusal = self.refuse(password(), Peer("192.0.2.99", 1, True), reason=CloseReason.THROTTLED)
        self.assertIsNotNone(refusal.retry_after)


class FailingTests(AuthTestCase):
    """What is not as it should be."""

    def test_refusals_of_checkers(self) -> None:
        """All ways in which twisted.cred says no are ``auth_failed``."""
        for no in (UnauthorizedLogin("secret"), LoginDenied(), fail(UnauthorizedLogin())):
            self.start(OwnChecker(no))
            self.assertEqual(self.refuse(password()).message, ADVICE[CloseReason.AUTH_FAILED])

    def test_broken_checker(self) -> None:
        """Another exception is ``internal`` with a time to come back, and logged, but not for every client."""
        self.start(OwnChecker(RuntimeError("secret")))
        for wait in (0.0, 1.0, 58.0):
            self.clock.advance(wait)
            refusal = self.refuse(password(), reason=CloseReason.INTERNAL)
            self.assertIsNotNone(refusal.retry_after)
            self.assertNotIn("secret", str(refusal))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.clock.advance(2)
        self.refuse(password(), reason=CloseReason.INTERNAL)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_checker_that_gives_nonsense(self) -> None:
        """A checker that gives no name lets nobody in."""
        for answer in (None, 7, ["zoe"], True):
            self.start(OwnChecker(answer))
            self.refuse(password(), reason=CloseReason.INTERNAL)
            self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)

    def test_cancelled(self) -> None:
        """Who leaves gets CancelledError, the checker is told, and what it says later is ignored."""
        told: list[object] = []
        for answer in (Deferred[bytes](), Deferred[bytes](told.append)):
            self.start(OwnChecker(answer))
            login = self.authenticator.authenticate(password(), TLS)
            login.cancel()
            self.failureResultOf(login, CancelledError)
            if answer not in told:
                answer.callback(b"zoe")
        self.assertEqual(len(told), 1)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_cancelled_while_hashing(self) -> None:
        """The same with the password file: the thread's late result does no harm."""
        late: Deferred[bool] = Deferred()
        self.start_with_file(run_in_thread=lambda work: late)
        login = self.authenticator.authenticate(password(), TLS)
        login.cancel()
        self.failureResultOf(login, CancelledError)
        late.callback(True)


class PortalTests(AuthTestCase):
    """Checkers from elsewhere."""

    def test_plugin_memory(self) -> None:
        """Twisted's own plugin ``memory:`` can check passwords (``--auth memory:zoe:sesame``)."""
        self.start(makeChecker("memory:zoe:sesame"))
        self.assertEqual(self.accept(password()), Identity("zoe", "password"))
        self.refuse(password(word="x"))
        self.refuse(password("yan"))

    def test_memory_database(self) -> None:
        """The same database made by a program, with bytes, works as well."""
        database = InMemoryUsernamePasswordDatabaseDontUse(zoe=b"sesame")
        self.start(database)
        self.accept(password())
        self.refuse(password(word="x"))

    def test_plugin_file(self) -> None:
        """So can its plugin ``file:``."""
        path = self.folder / "users"
        path.write_text("zoe:sesame\n")
        self.start(makeChecker(f"file:{path}"))
        self.assertEqual(self.accept(password()), Identity("zoe", "password"))
        self.refuse(password(word="x"))

    def test_own_checker_for_tickets(self) -> None:
        """A program may bring a checker of its own for tickets; it may bind the player to a game."""
        used = UsedTicket("j", NOW + 70)
        checker = OwnChecker(Identity("zoe", "ticket", "tag", used), (ITicket,))
        self.start(checker, keys=True)
        identity = self.accept(Auth("ticket", ticket="of another kind"))
        self.assertEqual(identity, Identity("zoe", "ticket", "tag", used))
        (credentials,) = checker.asked
        self.assertTrue(ITicket.providedBy(credentials))

    def test_takes_the_place_of_the_file(self) -> None:
        """With a checker for passwords the password file is not even read."""
        self.start(OwnChecker("yan"), password_file="no such file")
        self.assertEqual(self.accept(password()).player, "yan")

    def test_takes_the_place_of_guests(self) -> None:
        """A checker for guests decides which guests come in."""
        self.start(OwnChecker(UnauthorizedLogin(), (IGuest,)), guests=True)
        self.refuse(Auth("guest", name="zoe"))

    def test_useless_or_ambiguous(self) -> None:
        """A checker for nothing that AUTH carries, and a second one for the same, is an error."""
        self.assertRaises(ValueError, self.start, OwnChecker("x", (IAnonymous,)))
        self.assertRaises(ValueError, self.start, OwnChecker("x"), OwnChecker("y"))

    def test_bad_file(self) -> None:
        """A password file that cannot be used is found at the start."""
        self.assertRaises(PasswordFileError, self.start, password_file="missing")

    def test_bad_key(self) -> None:
        """So is a key that is not of its algorithm."""
        with self.assertRaises(ValueError):
            build_portal(
                Settings(),
                self.clock,
                at_once,
                folder=self.folder,
                ticket_keys={"web": ("EdDSA", SECRET)},
            )


@implementer(IRealm)
class OwnRealm:
    """A realm as an embedding program may write it."""

    def __init__(self, avatar: object) -> None:
        self.avatar = avatar
        self.log: list[str] = []

    def requestAvatar(
        self, avatarId: object, mind: object, *interfaces: type[Interface]
    ) -> tuple[type[Interface], object, Callable[[], None]]:
        assert isinstance(mind, Attempt)
        self.log.append(f"{mind.mechanism} {mind.peer.address}")
        return IPlayer, self.avatar, lambda: self.log.append("logout")


class RealmTests(AuthTestCase):
    """The realm alone, and others in its place."""

    def test_interfaces(self) -> None:
        """The realm provides what twisted.cred asks of it, and an identity is a player."""
        self.assertTrue(verifyObject(IRealm, PlayerRealm()))
        self.assertTrue(verifyObject(IPlayer, Identity("zoe", "ticket")))

    def test_only_players(self) -> None:
        """For other interfaces and other minds there is no avatar."""
        realm, attempt = PlayerRealm(), Attempt("password", TLS)
        self.assertRaises(NotImplementedError, realm.requestAvatar, b"zoe", attempt, IAnonymous)
        self.assertRaises(NotImplementedError, realm.requestAvatar, b"zoe", None, IPlayer)
        interface, avatar, logout = realm.requestAvatar(b"zoe", attempt, IPlayer)
        logout()
        self.assertEqual((interface, avatar), (IPlayer, Identity("zoe", "password")))

    def test_own_realm(self) -> None:
        """A program's own portal knows where the client comes from, and its avatars are logged out at once."""
        realm = OwnRealm(Identity("zoe", "password"))
        self.authenticator = CredAuthenticator(Portal(realm, [OwnChecker(b"zoe")]), self.clock)
        self.assertEqual(self.accept(password()), Identity("zoe", "password"))
        self.assertEqual(realm.log, ["password 192.0.2.1", "logout"])

    def test_own_realm_without_identity(self) -> None:
        """A realm that gives no identity lets nobody in."""
        self.authenticator = CredAuthenticator(
            Portal(OwnRealm("zoe"), [OwnChecker(b"zoe")]),
            self.clock,
        )
        self.refuse(password(), reason=CloseReason.INTERNAL)
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)
