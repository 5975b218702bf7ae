"""A proxy in a Twisted application: ``twistd -n -y embedded.tac``

It listens where this file says, lets in whom this file knows, and tells this file when a session is over.
"""

import hmac
import os
import sys

from twisted.application.service import Application
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import Portal
from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ServerEndpoint
from zope.interface import implementer

from gameproxy.auth import PlayerRealm
from gameproxy.config import AuthConfig, Config, GameConfig
from gameproxy.service import GameProxy


@implementer(ICredentialsChecker)
class Members:
    """Lets members in. A real one would ask a database, and answer with a Deferred."""

    credentialInterfaces = (IUsernamePassword,)

    def __init__(self, passwords):
        self._passwords = passwords

    def requestAvatarId(self, credentials):
        password = self._passwords.get(credentials.username, b"")
        if password and hmac.compare_digest(password, credentials.password):
            return credentials.username
        raise UnauthorizedLogin("not a member")


def say_goodbye(record):
    seconds = record.ended_at - record.started_at
    print(f"{record.player!r} played {seconds:.0f} s on {record.server}: {record.reason}")


def say_hello(_):
    print(f"Listening on port {proxy.ports[0].getHost().port}")


config = Config(
    # On this machine alone passwords need no TLS; elsewhere they do.
    auth=AuthConfig(password_without_tls=True),
    games=[
        GameConfig(
            name="echo",
            command=[sys.executable, "-m", "gameproxy.arena.echo"],
            capacity=8,
            max_servers=2,
        )
    ],
)
door = TCP4ServerEndpoint(reactor, int(os.environ.get("PORT", "7777")), interface="127.0.0.1")
proxy = GameProxy(
    config,
    reactor,
    portal=Portal(PlayerRealm(), [Members({b"ana": b"correct horse"})]),
    on_session_end=say_goodbye,
    endpoints=[door],
)
proxy.started.addCallback(say_hello)

application = Application("arcade")
proxy.setServiceParent(application)
