"""Make the unix port a board, and be its main(): boot.py, main.py, the REPLs, the soft reset.

    micropython -c "import board_boot; board_boot.main()"

virtual_board.py starts it so, for each life of the interpreter: a soft reset ends the process,
too, and the next one begins here. So nothing of the old program can be left, the heap included.

What a program finds is put into `sys.modules`, where an import looks first: `machine`, `network`,
`ntptime`, `rp2`, `socket`, and this file's own `sys`, `os`, `time`, `micropython` in place of the
unix port's. `open()` and `import` go to board_flash.py, which is mounted at "/".

TLS goes by this machine's clock: mbedTLS asks the system. But a board whose clock was never set
finds every certificate of today not yet valid, so with such a clock wrap_socket() raises what the
handshake would.

Left out: `esp32`, `esp`, and what else a board has frozen and the unix port has not.
"""

import builtins
import gc
import os
import sys
import time

import board_bus as bus
import board_flash
import board_repl as repl

_EPOCH_2000_S = 946684800
_YEAR_MIN = 2024  # certificates in use are younger

_BOOT_PY = """\
# This file is executed on every boot (including wake-boot from deepsleep)
"""


class _Module:
    # An object in sys.modules is a module to `import`, whatever its class.
    def __init__(self, name, native=None, without=()):
        self.__name__ = name
        for attribute in dir(native) if native else ():
            if attribute not in without and not attribute.startswith("__"):
                setattr(self, attribute, getattr(native, attribute))

    def __repr__(self):
        return "<module '%s'>" % self.__name__


# ---------------------------------------------------------------------------
# Modules that differ from the unix port's
# ---------------------------------------------------------------------------


def _make_sys():
    module = _Module("sys", sys, without=("executable", "exc_info", "atexit"))
    version = bus.FIRMWARE
    text = "v%d.%d.%d" % version
    mpy = bus.CONFIG["mpy"]
    if mpy is None:  # this interpreter's version, a board's processor (py/persistentcode.h)
        mpy = sys.implementation._mpy & 0x3FF | bus.CONFIG["native_arch"] << 10
    module.platform = bus.PORT
    module.implementation = _Implementation(version + ("",), bus.MACHINE, mpy, bus.CONFIG["build"])
    module.version = "3.4.0; MicroPython %s on %s" % (text, bus.CONFIG["built_on"])
    module.argv = []
    module.print_exception = repl.print_exception
    return module, text


class _Implementation:
    # A named tuple on a board; indexing is all that a program can tell it by.
    def __init__(self, version, machine, mpy, build):
        self.name = "micropython"
        self.version = version
        self._machine = machine
        self._mpy = mpy
        self._build = build

    def __getitem__(self, index):
        return (self.name, self.version, self._machine, self._mpy, self._build)[index]

    def __repr__(self):
        return "(name='%s', version=%r, _machine='%s', _mpy=%d, _build='%s')" % tuple(
            self[i] for i in range(5)
        )


def _make_os(version):
    module = _Module(
        "os",
        os,
        without=("VfsPosix", "errno", "getenv", "putenv", "unsetenv", "system", "sep"),
    )
    sysname = bus.PORT
    node = bus.PORT
    fields = (sysname, node, version[1:], "%s on %s" % (version, bus.CONFIG["built_on"]))
    fields += (bus.MACHINE,)
    from collections import namedtuple

    result = namedtuple("uname", ("sysname", "nodename", "release", "version", "machine"))
    module.uname = lambda: result(*fields)
    module.sync = lambda: None
    return module


def _make_time():
    # ESP32 counts from 2000, rp2 from 1970 (MICROPY_EPOCH_IS_1970 in its mpconfigport.h).
    shift = _EPOCH_2000_S if bus.PORT == "esp32" else 0
    module = _Module("time", time, without=("clock",))
    native_time, native_gmtime, native_mktime = time.time, time.gmtime, time.mktime
    bus.clock[0] = bus.call("clock_offset_s")

    def now():
        return int(native_time() + bus.clock[0]) - shift

    def now_ns():
        return int((native_time() + bus.clock[0]) * 1000) * 1_000_000 - shift * 1_000_000_000

    def gmtime(seconds=None):
        return native_gmtime((now() if seconds is None else seconds) + shift)[:8]

    module.time = now
    module.time_ns = now_ns
    module.gmtime = gmtime
    module.localtime = gmtime
    # In this machine's time zone, on the unix port; a board has none.
    zone_s = native_mktime(native_gmtime(86400 * 366)[:8] + (0,)) - 86400 * 366
    module.mktime = lambda parts: int(native_mktime(tuple(parts[:8]) + (0,)) - zone_s) - shift
    return module


def _make_tls(own_time):
    import tls

    class SSLContext:
        # Not a subclass: the attribute verify_mode of the native class would not be reached.
        def __init__(self, protocol):
            self._context = context = tls.SSLContext(protocol)
            self.load_cert_chain = context.load_cert_chain
            self.load_verify_locations = context.load_verify_locations
            self.get_ciphers = context.get_ciphers
            self.set_ciphers = context.set_ciphers

        @property
        def verify_mode(self):
            return self._context.verify_mode

        @verify_mode.setter
        def verify_mode(self, mode):
            self._context.verify_mode = mode

        def wrap_socket(self, *arguments, **named):
            if self.verify_mode == tls.CERT_REQUIRED and own_time.gmtime()[0] < _YEAR_MIN:
                raise ValueError("The certificate validity starts in the future")
            return self._context.wrap_socket(*arguments, **named)

    module = _Module("tls", tls)
    module.SSLContext = SSLContext

    # micropython-lib's python-stdlib/ssl/ssl.py, frozen in every board: a client's context starts
    # without verification there.
    class FrozenSSLContext(SSLContext):
        def __init__(self, protocol):
            super().__init__(protocol)
            if protocol == tls.PROTOCOL_TLS_CLIENT:
                self.verify_mode = tls.CERT_NONE

    frozen = _Module("ssl", module)
    frozen.SSLContext = FrozenSSLContext

    def wrap_socket(sock, server_side=False, server_hostname=None):
        context = FrozenSSLContext(
            tls.PROTOCOL_TLS_SERVER if server_side else tls.PROTOCOL_TLS_CLIENT
        )
        return context.wrap_socket(sock, server_side=server_side, server_hostname=server_hostname)

    frozen.wrap_socket = wrap_socket
    return module, frozen


def _make_micropython():
    import micropython

    module = _Module("micropython", micropython)
    module.kbd_intr = bus.kbd_intr
    return module


def _make_thread():
    import _thread

    module = _Module("_thread", _thread)
    module.start_new_thread = bus.start_new_thread
    return module


# Firmware of another .mpy version: the flash is told that what is opened now is to be imported.
def _watch_imports(flash):
    native_import = __import__

    def watched_import(*arguments):
        flash.is_importing += 1
        try:
            return native_import(*arguments)
        finally:
            flash.is_importing -= 1

    builtins.__import__ = watched_import


def install():
    """Put the board's modules in their places, and its flash at "/"."""
    own_sys, version = _make_sys()
    modules = sys.modules
    own = {
        "sys": own_sys,
        "os": _make_os(version),
        "time": _make_time(),
        "micropython": _make_micropython(),
        "_thread": _make_thread(),
    }
    for name in own:
        modules[name] = own[name]
    own["tls"], own["ssl"] = _make_tls(own["time"])
    import board_socket
    import network
    import ntptime

    import machine

    own["socket"] = board_socket
    own["machine"] = machine
    own["network"] = network
    own["ntptime"] = ntptime
    if bus.PORT == "rp2":
        import rp2

        own["rp2"] = rp2
    for name in list(modules):
        del modules[name]
    for name in own:
        modules[name] = own[name]
        if name in ("sys", "os", "time", "socket", "machine", "ssl"):
            modules["u" + name] = own[name]  # their older names

    flash = board_flash.Flash(bus.CONFIG["folder"], bus.CONFIG["disk_bytes"])
    mpy = bus.CONFIG["mpy"]
    if mpy is not None and mpy & 0xFF != sys.implementation._mpy & 0xFF:
        flash.mpy_version = mpy & 0xFF
        _watch_imports(flash)
    os.umount("/")
    os.mount(flash, "/")
    sys.path[:] = ["", ".frozen", "/lib"]
    return version, flash


# ---------------------------------------------------------------------------
# main() of esp32/main.c and rp2/main.c
# ---------------------------------------------------------------------------


def main():
    """Be the board until the next reset."""
    import __main__

    variables = __main__.__dict__
    version, flash = install()
    variables.clear()
    variables["__name__"] = "__main__"
    gc.collect()

    # inisetup.py of ESP32 leaves this when it has made the file system.
    if bus.PORT == "esp32" and bus.CONFIG["is_blank"]:
        with open("boot.py", "w") as file:
            file.write(_BOOT_PY)

    banner = 'MicroPython %s on %s; %s\nType "help()" for more information.\n' % (
        version,
        bus.CONFIG["built_on"],
        bus.MACHINE,
    )
    result = _run_file("boot.py", variables)
    if not result & repl.FORCED_EXIT:
        if not bus.page[bus.REPL_MODE] and result != repl.FAILED:
            result = _run_file("main.py", variables)
        while not result & repl.FORCED_EXIT:
            if bus.page[bus.REPL_MODE]:
                result = repl.raw_repl(variables)
            else:
                result = repl.friendly_repl(variables, banner)
    bus.page[bus.INTERRUPT] = bus.INTERRUPT_HOLD
    repl.put("MPY: soft reboot\n")
    flash.close_all()  # gc_sweep_all()
    bus.exit_for_soft_reset()


# pyexec_file_if_exists(): no file is as good as an empty one.
def _run_file(name, variables):
    try:
        if os.stat(name)[0] & 0x4000:
            return repl.NORMAL
    except OSError:
        return repl.NORMAL
    return repl.execute_file(name, variables)
