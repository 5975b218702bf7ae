"""A proxy and its game in one program, without twistd: ``python embedded.py``

The game server is listed in place of being started. It is reached through the proxy as any other: over TCP, and with
the key that the farm's secret gives it.
"""

import os

from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ServerEndpoint

from gameproxy.arena.echo import Echo
from gameproxy.config import AuthConfig, Config, ProxyConfig, ServerConfig
from gameproxy.gameserver import GameServerService, Place
from gameproxy.handshake import derive_server_key
from gameproxy.keys import read_secret
from gameproxy.service import GameProxy

HERE = "127.0.0.1"

auth = AuthConfig(guests=True)
# A farm of its own: in another's database the proxy would use that farm's game servers too.
farm = ProxyConfig(database="sqlite:///embedded.db")
secret = read_secret(Config(auth=auth).secret_path, os.urandom)
place = Place("echo-1", derive_server_key(secret, "echo-1"), HERE, port=0, capacity=8)
game = GameServerService(Echo(), place, reactor)
game.startService()

listed = ServerConfig(id="echo-1", game="echo", host=HERE, port=game.server.port, capacity=8)
proxy = GameProxy(
    Config(proxy=farm, auth=auth, servers=[listed]),
    reactor,
    endpoints=[TCP4ServerEndpoint(reactor, int(os.environ.get("PORT", "7777")), interface=HERE)],
)
proxy.startService()
proxy.started.addCallback(
    lambda _: print(f"Listening on port {proxy.ports[0].getHost().port}", flush=True)
)


def stop():
    """Players are told by the proxy, so it ends first."""
    return proxy.stopService().addCallback(lambda _: game.stopService())


reactor.addSystemEventTrigger("before", "shutdown", stop)
reactor.run()
