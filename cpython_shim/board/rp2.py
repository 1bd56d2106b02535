"""The board's `rp2`, as far as programs for Wi-Fi use it."""

import board_bus
from network import country  # noqa: F401  its older place

if board_bus.PORT != "rp2":
    raise ImportError("no module named 'rp2'")


def bootsel_button():
    """Return 1 while the BOOTSEL button is held: the World's pin "BOOTSEL"."""
    return board_bus.call("bootsel")
