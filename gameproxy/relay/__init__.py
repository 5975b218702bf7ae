"""Relays: they move frames between a client and a game server until either side ends."""

from gameproxy.relay.transport import TransportRelay

__all__ = ["TransportRelay"]
