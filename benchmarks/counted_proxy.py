"""Runs a gameproxy that tells what it has relayed: counted_proxy.py CONFIGURATION

It is what ``twist gameproxy`` runs, embedded. Whenever its last session has ended, it writes a file ``relayed.json``
beside its configuration: how many sessions there have been since the start, why they ended, and the frames and bytes
that they have counted.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import cast

from twisted.internet import reactor
from twisted.logger import globalLogBeginner, textFileLogObserver

from gameproxy.config import load
from gameproxy.interfaces import Reactor, SessionRecord, Traffic
from gameproxy.service import GameProxy


class Counts:
    """What the sessions that are over have relayed."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._reasons: Counter[str] = Counter()
        self._traffic = Traffic()

    def add(self, record: SessionRecord) -> None:
        self._reasons[record.reason.value] += 1
        self._traffic += record.traffic

    def write(self) -> None:
        document = {"reasons": dict(self._reasons), "traffic": asdict(self._traffic)}
        unfinished = self._file.with_suffix(".new")
        unfinished.write_text(json.dumps(document))
        unfinished.replace(self._file)


def main() -> None:
    configuration = Path(sys.argv[1])
    counts = Counts(configuration.with_name("relayed.json"))

    def session_ended(record: SessionRecord) -> None:
        counts.add(record)
        if not proxy.sessions:
            counts.write()

    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stdout)], redirectStandardIO=False)
    config = load(configuration)
    proxy = GameProxy(config, cast(Reactor, reactor), on_session_end=session_ended)
    proxy.startService()
    reactor.addSystemEventTrigger("before", "shutdown", proxy.stopService)
    reactor.run()


if __name__ == "__main__":
    main()
