"""A simulated board in this process: `machine`, `network` and `ntptime` for CPython.

    with SimulatedBoard("Raspberry Pi Pico W with RP2040") as board:
        board.world.add_network("home", "password1")
        import wifi      # of boards/: it finds `network` and `machine`

Inside the `with` the modules of this folder can be imported, the shim's sockets have the
simulated Wi-Fi before them, and the shim's clock follows the board's. This folder is not on
the path otherwise: a program on a PC has no `network`, and asks its system.

Import what shall run on the board within the `with`: modules take what they need at import.
Those imported inside are forgotten at the end, so that each board has its own, as after a reset.

A reset ends a program in that it raises board_bus.BoardReset: from machine.reset() itself or,
when the watchdog was not fed, from the next thing that the program wants of the board. The test
calls `board.reset()` then, and starts the program again.
"""

import pathlib
import sys
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent

TICK_S = 0.005

# The simulation's state is in these: they are imported once, and stay.
_LASTING = ("board_simulation", "board_bus", "simulated_board")


class SimulatedBoard:
    """A context manager; `.world` `.hardware` `.log` `.events(kind)` as VirtualBoard has them."""

    def __init__(self, machine="Generic ESP32 module with ESP32", world=None, **options):
        # Not at import: this file may be found by its path alone.
        if str(HERE) not in sys.path:
            sys.path.insert(0, str(HERE))
            self._is_path_ours = True
        else:
            self._is_path_ours = False
        import board_bus
        import board_simulation

        self._bus = board_bus
        self.world = board_simulation.World() if world is None else world
        self.hardware = board_simulation.Hardware(
            machine, self.world, pull_reset=board_bus.on_reset, **options
        )
        self._end = threading.Event()
        self._before = set()
        self._patched = []
        if self._is_path_ours:
            sys.path.remove(str(HERE))

    @property
    def log(self):
        """Return the events of the hardware: (seconds, kind, details...) each."""
        return list(self.hardware.log)

    def events(self, kind):
        """Return the details of all events of one kind, oldest first."""
        return self.hardware.events(kind)

    def __enter__(self):
        import shim_socket
        import shim_time

        sys.path.insert(0, str(HERE))
        # What another path gave these names to would be taken for ours.
        self._hidden = {
            name: sys.modules.pop(name)
            for name in ("machine", "network", "ntptime", "rp2", "board_socket")
            if name in sys.modules
        }
        self._before = set(sys.modules)
        self._bus.attach(self.hardware)
        self.hardware.start(1)
        import board_socket

        self._patch(shim_socket, "socket", board_socket.socket)
        self._patch(shim_socket, "getaddrinfo", board_socket.getaddrinfo)
        self._patch(shim_time, "gmtime", self._gmtime)
        self._end.clear()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    # The world goes on while the program computes or sleeps.
    def _run(self):
        while not self._end.wait(TICK_S):
            self.hardware.tick()

    def __exit__(self, *_):
        self._end.set()
        self._thread.join(10)
        for module, name, value in reversed(self._patched):
            setattr(module, name, value)
        self._patched.clear()
        sys.path.remove(str(HERE))
        for name in set(sys.modules) - self._before:
            path = getattr(sys.modules[name], "__file__", None) or ""
            # Only what a board could have: the interpreter's own stay.
            if name not in _LASTING and str(HERE.parent.parent) in path and "site-" not in path:
                del sys.modules[name]
        sys.modules.update(self._hidden)
        self._bus.attach(None)

    def _patch(self, module, name, value):
        self._patched.append((module, name, getattr(module, name)))
        setattr(module, name, value)

    def _gmtime(self, secs=None):
        return tuple(time.gmtime(self.hardware.clock_s() if secs is None else secs)[:8])

    def sync(self):
        """Return when a change of the world has reached the board."""
        self.hardware.tick()

    def reset(self):
        """Begin anew after a BoardReset; return the cause."""
        cause = self._bus.take_reset() or 1
        self.hardware.start(cause)
        return cause
