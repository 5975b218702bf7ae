"""Tells twist and twistd that there is a gameproxy service. Imports nothing of it: that would hide its errors."""

from twisted.application.service import ServiceMaker

gameproxy = ServiceMaker(
    "gameproxy",
    "gameproxy.tap",
    "A front door for game servers: authenticates, places and relays their clients.",
    "gameproxy",
)
