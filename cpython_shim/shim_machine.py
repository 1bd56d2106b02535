"""The board's `machine`, as far as the client uses it: `unique_id()`.

What differs, and how it is bridged
-----------------------------------
- A board has a number burnt into its chip. A PC has none that fits: the client makes its MQTT
  client identifier from this number, and a server disconnects the older of two clients with
  one identifier. Two processes on one PC with the machine's number would throw each other out
  for ever, each reconnecting. So a process is a board: 8 random bytes, drawn once a process
  (8 is what an RP2040 has; an ESP32 has 6), and again in a child made by `os.fork()`.
- A board's number survives a restart; this one does not. Who needs a lasting session from a PC
  passes `client_id`, or calls `set_unique_id()` first.
"""

import os

_UNIQUE_ID_BYTES = 8

_unique_id = None  # drawn at the first question; set_unique_id() and a fork change it


def unique_id():
    """Return the 8 bytes that tell this process from every other."""
    global _unique_id
    if _unique_id is None:
        _unique_id = os.urandom(_UNIQUE_ID_BYTES)
    return _unique_id


def set_unique_id(value):
    """For tests: answer `value` (bytes) from now on; None draws a new one."""
    global _unique_id
    _unique_id = value


# Without this a forked child would share the parent's identity, the case described above.
os.register_at_fork(after_in_child=lambda: set_unique_id(None))
