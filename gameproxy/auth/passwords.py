"""Passwords: checked against the password file, in threads of their own, a bounded number at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorThreads
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

from gameproxy.auth.names import normalise_name
from gameproxy.auth.password_file import PasswordFile, PasswordFileError
from gameproxy.reasons import CloseReason, Refusal

T = TypeVar("T")
RunInThread = Callable[[Callable[[], T]], Deferred[T]]
"""Runs a function that blocks where it holds up nobody. The Deferred fires in the reactor's thread."""

CHECKS_MAX: Final = 32
"""Most passwords that are checked or wait for it at once; at 100 ms each the last one waits for about 2 s."""
RETRY_AFTER: Final = 5.0
"""Seconds after which a client may try again when there were too many, or the file cannot be used."""


class HashingThreads:
    """The threads in which passwords are checked, so that nothing else on the proxy waits for them.

    :param pool: the threads, neither started nor stopped by anybody else; ``None``: two at most, made when needed.
    """

    def __init__(self, reactor: IReactorThreads, pool: ThreadPool | None = None) -> None:
        self._reactor = reactor
        self._pool = pool or ThreadPool(minthreads=0, maxthreads=2, name="passwords")
        self._stopping = False

    def start(self) -> None:
        """Accept work. The program calls it once, when it starts."""
        self._pool.start()

    def stop(self) -> Deferred[None]:
        """End the threads; what waits for them fails.

        :return: fires when what they are busy with is done.
        """
        self._stopping = True
        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), self._pool.stop)

    def run(self, work: Callable[[], T]) -> Deferred[T]:
        """Run ``work`` in one of the threads (a :data:`RunInThread`)."""

        def unless_stopping() -> T:
            if self._stopping:
                raise Refusal(CloseReason.DRAINING)
            return work()

        return deferToThreadPool(self._reactor, self._pool, unless_stopping)


@implementer(ICredentialsChecker)
class PasswordFileChecker:
    """Accepts the passwords of a password file."""

    credentialInterfaces: Final = (IUsernamePassword,)
    _log = Logger()

    def __init__(self, file: PasswordFile, run_in_thread: RunInThread[bool]) -> None:
        self._file = file
        self._run_in_thread = run_in_thread
        self._running = 0
        self._reported: str | None = None

    def requestAvatarId(self, credentials: IUsernamePassword) -> Deferred[bytes | tuple[()]]:
        """The user's name, normalised, in UTF-8.

        :return: fails with :class:`~twisted.cred.error.UnauthorizedLogin`; or with
            :class:`~gameproxy.reasons.Refusal`: ``throttled`` when too many are being checked, ``internal`` when the
            file cannot be used. May be cancelled; the thread's work still counts until it is done.
        """
        if self._running >= CHECKS_MAX:
            return fail(Refusal(CloseReason.THROTTLED, retry_after=RETRY_AFTER))
        name = normalise_name(credentials.username.decode("utf-8"))
        password = credentials.password
        answer: Deferred[bytes | tuple[()]] = Deferred()

        def done(result: bool | Failure) -> None:
            self._running -= 1
            self._answer(answer, name, result)

        self._running += 1
        self._run_in_thread(lambda: self._file.check(name, password)).addBoth(done)
        return answer

    def _answer(
        self, answer: Deferred[bytes | tuple[()]], name: str, result: bool | Failure
    ) -> None:
        if isinstance(result, Failure):
            if result.check(PasswordFileError):
                self._report(result.getErrorMessage())
                result = Failure(Refusal(CloseReason.INTERNAL, retry_after=RETRY_AFTER))
            answer.errback(result)
            return
        self._reported = None
        if result:
            answer.callback(name.encode("utf-8"))
        else:
            answer.errback(UnauthorizedLogin())

    def _report(self, fault: str) -> None:
        """Log a fault of the file once, not for every client that comes meanwhile."""
        if fault != self._reported:
            self._reported = fault
            self._log.error("the password file cannot be used: {fault}", fault=fault)
