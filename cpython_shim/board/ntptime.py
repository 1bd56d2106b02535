"""The board's `ntptime`, simulated: the time server is the World's "ntp".

The names and the behaviour of micropython-lib's ntptime: `settime()` waits up to `timeout`
seconds for one datagram and raises OSError if none comes. No network is asked.
"""

import board_bus

try:
    from time import gmtime, sleep_ms
except ImportError:
    from shim_time import gmtime, sleep_ms

host = "pool.ntp.org"
timeout = 1

_ETIMEDOUT = 110


def time():
    """Return the seconds since the port's epoch, from the server."""
    seconds = _ask()
    return int(seconds) - (0 if gmtime(0)[0] == 1970 else 946684800)


def settime():
    """Set the clock from the server."""
    board_bus.clock_changed(board_bus.call("set_clock", int(_ask())))


def _ask():
    if not board_bus.does_traffic_flow():
        raise OSError(-202 if board_bus.PORT == "esp32" else -2)  # of getaddrinfo()
    seconds = board_bus.call("ntp")
    if seconds is None:
        sleep_ms(int(timeout * 1000))
        raise OSError(_ETIMEDOUT)
    return seconds
