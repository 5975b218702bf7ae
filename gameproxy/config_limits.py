"""The section ``[limits]`` of the configuration (docs/configuration)."""

from __future__ import annotations

from typing import Final, Self

from pydantic import model_validator

from gameproxy.config_problems import invalid
from gameproxy.config_values import Burst, CountOrZero, Factor, LimitMode, Rate, Seconds, Section
from gameproxy.limit_counts import LIMITS

BURST_TIME: Final = 10.0
"""Seconds at the rate of a limit that may come at once, where its burst is not given: as much as a network or a program
that paused for so long delivers together."""


class _RatedConfig(Section):
    mode: LimitMode = "off"
    rate: float | None = None

    @property
    def needed_rate(self) -> float:
        """The rate; there is one when the limit is not off."""
        assert self.rate is not None
        return self.rate

    @model_validator(mode="after")
    def _has_rate(self) -> Self:
        if self.mode != "off" and self.rate is None:
            raise invalid([(("rate",), f'must be there with mode = "{self.mode}"')])
        return self


class LimitConfig(_RatedConfig):
    """One of ``[limits.NAME]``: ``rate`` is what may go on for ever, ``burst`` what may come at once."""

    rate: Rate | None = None
    burst: Burst | None = None

    @property
    def allowed_burst(self) -> float:
        """The burst; without one, what may come in :data:`BURST_TIME`."""
        return max(1.0, self.needed_rate * BURST_TIME) if self.burst is None else self.burst


class SessionsLimitConfig(_RatedConfig):
    """``[limits.sessions_per_address]``: ``rate`` is how many; ``burst`` has no meaning."""

    rate: Burst | None = None
    burst: Burst | None = None


class IdleLimitConfig(_RatedConfig):
    """``[limits.idle_seconds]``: ``rate`` is the seconds."""

    rate: Seconds | None = None


class LimitsConfig(Section):
    """``[limits]``: how much a client may do, and for how long those are banned who do more again and again."""

    connections_per_second: LimitConfig = LimitConfig()
    frames_per_second: LimitConfig = LimitConfig()
    bytes_per_second: LimitConfig = LimitConfig()
    sessions_per_address: SessionsLimitConfig = SessionsLimitConfig()
    idle_seconds: IdleLimitConfig = IdleLimitConfig()
    ban_after: CountOrZero = 0
    ban_for: Seconds = 60.0
    ban_factor: Factor = 4.0
    ban_most: Seconds = 86400.0

    @property
    def modes(self) -> dict[str, str]:
        """The mode of each limit."""
        return {name: getattr(self, name).mode for name in LIMITS}
