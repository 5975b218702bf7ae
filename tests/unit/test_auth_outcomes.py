"""What an authenticator counts: how often each mechanism had which result, and nothing from outside"""

from __future__ import annotations

from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import CancelledError, Deferred

from gameproxy.auth import CredAuthenticator
from gameproxy.auth.authenticator import MECHANISMS, RESULTS
from gameproxy.auth.failures import USER_FAILURES
from gameproxy.messages import Auth
from gameproxy.reasons import CloseReason, Refusal
from tests.unit.test_auth_authenticator import TLS, AuthTestCase, OwnChecker, password


class OutcomeTests(AuthTestCase):
    """Each attempt has one result."""

    @property
    def outcomes(self) -> dict[tuple[str, str], int]:
        assert isinstance(self.authenticator, CredAuthenticator)
        found = dict(self.authenticator.outcomes)
        for mechanism, result in found:
            self.assertIn(mechanism, MECHANISMS)
            self.assertIn(result, RESULTS)
        return found

    def test_accepted_and_refused(self) -> None:
        """Good credentials, and all kinds of bad ones."""
        self.start(OwnChecker(b"zoe"), guests=True)
        self.accept(password())
        self.accept(Auth("guest", name="ann"))
        self.refuse(Auth("guest", name="\u202e"))
        self.refuse(Auth("ticket", ticket="x"))
        self.assertEqual(
            self.outcomes,
            {
                ("password", "accepted"): 1,
                ("guest", "accepted"): 1,
                ("guest", "refused"): 1,
                ("ticket", "refused"): 1,
            },
        )

    def test_mechanisms_from_outside(self) -> None:
        """Whatever a client calls its mechanism, it makes no count of its own."""
        self.start(guests=True)
        for number in range(50):
            self.refuse(Auth(f"mechanism{number}", name="ann"))
        self.assertEqual(self.outcomes, {("other", "refused"): 50})

    def test_throttled(self) -> None:
        """Who has failed too often, and who comes when too many are being checked, is throttled."""
        checker = OwnChecker(UnauthorizedLogin())
        self.start(checker)
        for _ in range(USER_FAILURES + 2):
            self.refuse(password())
        checker.answer = Refusal(CloseReason.THROTTLED)
        self.refuse(password("other"), reason=CloseReason.THROTTLED)
        self.assertEqual(
            self.outcomes, {("password", "refused"): USER_FAILURES, ("password", "throttled"): 3}
        )

    def test_broken(self) -> None:
        """A checker that breaks is not the client's fault."""
        self.start(OwnChecker(RuntimeError()))
        self.refuse(password(), reason=CloseReason.INTERNAL)
        self.assertEqual(self.outcomes, {("password", "broken"): 1})
        self.flushLoggedErrors(RuntimeError)

    def test_cancelled(self) -> None:
        """Who leaves meanwhile is counted as that, once, whatever comes later."""
        answer: Deferred[bytes] = Deferred()
        self.start(OwnChecker(answer))
        login = self.authenticator.authenticate(password(), TLS)
        self.assertEqual(self.outcomes, {})
        login.cancel()
        self.failureResultOf(login, CancelledError)
        answer.callback(b"zoe")
        self.assertEqual(self.outcomes, {("password", "cancelled"): 1})
