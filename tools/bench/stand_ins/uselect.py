"""As usocket.py."""

from select import *  # noqa: F403
from select import POLLERR, POLLHUP, POLLIN, POLLOUT, poll  # noqa: F401
