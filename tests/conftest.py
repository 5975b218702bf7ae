"""What holds for all tests."""

from __future__ import annotations

import os
import threading
from collections.abc import Generator

import pytest
from hypothesis import settings
from twisted.logger import globalLogBeginner

settings.register_profile("any machine", deadline=None)  # a busy one is slow, which is no failure
settings.load_profile("any machine")
pytest_plugins = ["gameproxy.simulation.fixture"]


def pytest_configure() -> None:
    """Log to nobody. Until logging begins Twisted keeps what is logged, with whoever logs it: proxies that a test has
    left would keep their databases open until there are no descriptors any more."""
    globalLogBeginner.beginLoggingTo([], redirectStandardIO=False, discardBuffer=True)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop() -> None:
    """Trace no threads but the main one. In Python 3.11 a traced thread that calls a function while a signal waits for
    the main thread stands still, and keeps the lock that the main thread needs: when that waits for the thread, as
    long as for SIGCHLD, both wait for ever."""
    threading.settrace(None)  # type: ignore[arg-type]  # as to sys.settrace


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With NO_TEST_SKIPPED set, a test that is skipped has failed: where all is installed, all must run."""
    report = yield
    if report.skipped and os.environ.get("NO_TEST_SKIPPED"):
        report.outcome = "failed"
        report.longrepr = f"skipped, where nothing may be: {report.longreprtext}"
    return report
