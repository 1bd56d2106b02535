"""The name that umqtt.simple2 imports; MicroPython 1.25 has dropped the u-names."""

from socket import *  # noqa: F403
from socket import getaddrinfo, socket  # noqa: F401
