"""The parts of a session's way until it relays, each of which is timed."""

from __future__ import annotations

from enum import StrEnum


class Phase(StrEnum):
    """What takes time until a client is in. The first four have the names of the states in which it passes."""

    EXPECTING = "expecting"
    """From the connection to a complete AUTH."""
    AUTHENTICATING = "authenticating"
    """From AUTH until it is known who the client is."""
    SELECTING = "selecting"
    """From there, or from an attempt that failed, to a slot; time in the queue is part of it."""
    CONNECTING = "connecting"
    """From a slot until its game server has admitted the session."""
    QUEUED = "queued"
    """The part of selecting that was spent in the queue, of those who came out of it with a slot."""
    SETUP = "setup"
    """From the connection to WELCOME: all of it."""
