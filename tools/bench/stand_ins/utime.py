"""As usocket.py."""

from time import *  # noqa: F403
from time import ticks_add, ticks_diff, ticks_ms  # noqa: F401
