"""Who a client is: tickets, passwords and guests, through twisted.cred."""

from gameproxy.auth.authenticator import CredAuthenticator
from gameproxy.auth.guests import Guest, IGuest
from gameproxy.auth.names import BadName, normalise_name, player_name
from gameproxy.auth.password_file import PasswordFileError, hash_password, user_name
from gameproxy.auth.passwords import HashingThreads, RunInThread
from gameproxy.auth.portal import SUPPORTED, build_portal
from gameproxy.auth.realm import Attempt, IPlayer, PlayerRealm
from gameproxy.auth.tickets import ITicket, SigningKey, Ticket, VerifyingKey, issue_ticket

__all__ = [
    "SUPPORTED",
    "Attempt",
    "BadName",
    "CredAuthenticator",
    "Guest",
    "HashingThreads",
    "IGuest",
    "IPlayer",
    "ITicket",
    "PasswordFileError",
    "PlayerRealm",
    "RunInThread",
    "SigningKey",
    "Ticket",
    "VerifyingKey",
    "build_portal",
    "hash_password",
    "issue_ticket",
    "normalise_name",
    "player_name",
    "user_name",
]
