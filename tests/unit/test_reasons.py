"""Close reasons, and what people are told."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from gameproxy.reasons import ADVICE, CloseReason, Refusal

CODES = """
    left client_lost server_lost protocol_error unsupported_version auth_timeout auth_failed unknown_game banned
    throttled limit_exceeded proxy_full queue_full queue_timeout no_server start_failed server_unreachable
    handshake_failed refused already_connected replaced idle kicked draining internal
"""


class CloseReasonTests(SynchronousTestCase):
    """The codes."""

    def test_codes(self) -> None:
        """These are all codes there are: clients in the world rely on each."""
        self.assertEqual([reason.value for reason in CloseReason], CODES.split())

    def test_advice(self) -> None:
        """For each there is a message of one line that says what has happened and what to do."""
        self.assertEqual(list(ADVICE), list(CloseReason))
        for reason, message in ADVICE.items():
            self.assertTrue(message.isprintable() and message.endswith("."), reason)
            self.assertGreaterEqual(message.count(". "), 1, reason)

    def test_no_hint_for_guessers(self) -> None:
        """Who fails to sign in does not learn which of name and password was wrong."""
        message = ADVICE[CloseReason.AUTH_FAILED].lower()
        for word in ("name", "user", "password", "ticket", "player", "unknown"):
            self.assertNotIn(word, message)


class RefusalTests(SynchronousTestCase):
    """What carries a reason to the end of its session."""

    def test_advice_when_nothing_is_said(self) -> None:
        """Without a message of its own it has the reason's advice; an empty message is a message."""
        refusal = Refusal(CloseReason.BANNED)
        self.assertEqual(refusal.message, ADVICE[CloseReason.BANNED])
        self.assertIsNone(refusal.retry_after)
        self.assertEqual(Refusal(CloseReason.BANNED, "").message, "")

    def test_text(self) -> None:
        """As text it has the code and the message."""
        refusal = Refusal(CloseReason.QUEUE_FULL, "Later.", 5.0)
        self.assertEqual(str(refusal), "queue_full: Later.")
        self.assertEqual(refusal.retry_after, 5.0)
        self.assertIs(refusal.reason, CloseReason.QUEUE_FULL)

    def test_retry_after_is_a_time(self) -> None:
        """What is no number of seconds is no advice: JSON could not say it."""
        for wrong in (float("inf"), float("nan"), None):
            self.assertIsNone(Refusal(CloseReason.INTERNAL, retry_after=wrong).retry_after)
        self.assertEqual(Refusal(CloseReason.INTERNAL, retry_after=0.5).retry_after, 0.5)
