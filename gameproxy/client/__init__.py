"""For clients written in Python: one code for Twisted and asyncio (docs/clients).

A program in asyncio::

    async def main() -> None:
        client = Client(AsyncioLoop(), "127.0.0.1", 7777, Guest("ana"))
        async with await client.connect() as session:
            session.send(b"\\x10hello")
            print(await session.receive())

    asyncio.run(main())
"""

from gameproxy.client.client import (
    Client,
    Guest,
    NotWelcomed,
    Password,
    ProtocolError,
    Refused,
    Ticket,
)
from gameproxy.client.connection import End, Ending
from gameproxy.client.reconnecting import Backoff, keep_playing
from gameproxy.client.session import SendBufferFull, Session, SessionEnded

__all__ = [
    "Backoff",
    "Client",
    "End",
    "Ending",
    "Guest",
    "NotWelcomed",
    "Password",
    "ProtocolError",
    "Refused",
    "SendBufferFull",
    "Session",
    "SessionEnded",
    "Ticket",
    "keep_playing",
]
