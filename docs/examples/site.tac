"""A web site whose visitors play: ``twistd -n -y site.tac``

The site was there before. Proxy and site are services of one application and share its objects: the site gives codes to
visitors, with which the proxy lets them in, and shows what the proxy tells of sessions that are over.
"""

import os
import secrets
import sys
from collections import Counter

from twisted.application.internet import StreamServerEndpointService
from twisted.application.service import Application
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.error import UnauthorizedLogin
from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.web.resource import Resource
from twisted.web.server import Site
from zope.interface import implementer

from gameproxy.auth import ITicket
from gameproxy.config import Config, GameConfig
from gameproxy.service import GameProxy

HERE = "127.0.0.1"
CODE_LIFETIME = 60.0


@implementer(ICredentialsChecker)
class Codes:
    """Codes that let in one player once: what clients send as their ticket."""

    credentialInterfaces = (ITicket,)

    def __init__(self):
        self._players = {}

    def give(self, player):
        code = secrets.token_urlsafe()
        self._players[code] = player
        reactor.callLater(CODE_LIFETIME, self._players.pop, code, None)
        return code

    def requestAvatarId(self, credentials):
        player = self._players.pop(credentials.token, None)
        if player is None:
            raise UnauthorizedLogin("no such code")
        return player


class NewestFirst:
    """Sends players to the game server that was started last: old ones run empty after an update."""

    def pick(self, cursor, game, excluded=()):
        statement = "SELECT id FROM game_servers WHERE open = 1 AND game = ? ORDER BY started_at DESC"
        tried = set(excluded)
        return next((id for (id,) in cursor.execute(statement, (game,)) if id not in tried), None)


class Play(Resource):
    """POST /play gives a code. A real site knows who is signed in; this one believes what it is told."""

    def render_POST(self, request):
        player = request.args[b"player"][0].decode()
        return codes.give(player).encode()


class Played(Resource):
    """GET /played tells how often each player has played."""

    def render_GET(self, request):
        request.setHeader("Content-Type", "text/plain; charset=utf-8")
        return "".join(f"{player}: {count}\n" for player, count in played.items()).encode()


def session_ended(record):
    if record.player is not None:
        played[record.player] += 1


codes = Codes()
played = Counter()
pages = Resource()
pages.putChild(b"play", Play())
pages.putChild(b"played", Played())

proxy = GameProxy(
    Config(
        games=[
            GameConfig(
                name="echo",
                command=[sys.executable, "-m", "gameproxy.arena.echo"],
                capacity=8,
                max_servers=2,
            )
        ]
    ),
    reactor,
    selector=NewestFirst(),
    on_session_end=session_ended,
    endpoints=[TCP4ServerEndpoint(reactor, int(os.environ.get("PORT", "7777")), interface=HERE)],
    checkers=[codes],
)
web = TCP4ServerEndpoint(reactor, int(os.environ.get("WEB_PORT", "8080")), interface=HERE)

application = Application("arcade")
StreamServerEndpointService(web, Site(pages)).setServiceParent(application)
proxy.setServiceParent(application)
