"""The client's end: a process of this machine, or the emulated board. Both say events.

Each has .tell(order, ...), .next(event), .is_over(), .story(), .slow_steps() and .close().
"""

import contextlib
import json
import pathlib
import shutil
import threading

import ends

import build
import setup_env

PARTS = pathlib.Path(__file__).resolve().parent
ROOT = setup_env.ROOT

CPYTHON = "cpython"
BOARD = "lwip"
# name -> (name for people, width, heap)
MICROPYTHONS = {
    "micropython": ("MicroPython 64-bit", 64, "192k"),
    "micropython32": ("MicroPython 32-bit", 32, "112k"),
}
PROFILES = {4: "full", 5: "mqtt5"}
# Beside the heap above: the client is larger.
MORE_HEAP_5 = {"112k": "128k"}
LINE_TIMEOUT_S = 2

# As docs/user-guide.md advises: TLS needs 17 KB in one piece, and a pipe full of messages that lie
# all over the heap would keep the client offline, and so stay there.
PREPARE = """\
import gc
gc.threshold(16384)
import json, sys
from chaos_client import Program
"""


def compile_client(protocol=4):
    """Return what goes on a board: file name -> bytes. The client, and what drives it here."""
    text = build.read_source()
    switches = build.find_switches(text)
    client = build.compile_mpy(
        build.configure(text, switches, build.parts_of(PROFILES[protocol], switches))
    )
    files = {"mqttpipe.mpy": client}
    for name in ("chaos_client", "chaos_shared"):
        source = (PARTS / (name + ".py")).read_text(encoding="utf-8")
        files[name + ".mpy"] = build.cross_compile(name + ".py", source)
    return files


def write_client(folder, protocol=4):
    """Write it for a Process with a small heap; return the script that starts it."""
    for name, data in compile_client(protocol).items():
        (pathlib.Path(folder) / name).write_bytes(data)
    script = pathlib.Path(folder) / "start.py"
    script.write_text("import chaos_client\nchaos_client.main()\n")
    return script


class Process(ends.Scenario):
    """A client in an interpreter of this machine.

    Args:
        interpreter: .name and .command. script: Path. heap: its size, "" as it is.
        folder: with the compiled client; None: it takes the source.
    """

    def __init__(self, interpreter, script, config, folder, heap, on_event):
        super().__init__(interpreter, str(script), [config], folder, on_event, heap)
        self.name = interpreter.name

    def close(self):
        """End it; what it said of slow steps is looked at before."""
        self._watchdog.clear()
        super().close()


class OnBoard(ends.Events):
    """The client on the emulated board, whose clock counts instructions.

    Args:
        board: a Board, online, that has the compiled client.
    """

    def __init__(self, board, config, on_event):
        super().__init__("emulated board", on_event)
        self.board = board
        self._is_closed = False
        board.run(PREPARE)
        board.start("Program(json.loads(%r), sys.stdin).run()" % json.dumps(config))
        self._thread = threading.Thread(target=self._read, name="board", daemon=True)
        self._thread.start()

    def _read(self):
        import emulated_board

        while not self._is_closed:
            try:
                line = self.board.read_until(b"\n", LINE_TIMEOUT_S)
            except emulated_board.BoardError:
                if self.board.is_on():
                    continue  # it has nothing to say
                break
            except (OSError, ValueError, AttributeError):  # switched off meanwhile
                break
            text = line.decode(errors="replace").strip("\r\n\x04>")
            self.take(text)
            if text.startswith('["bye"') or "Error" in text and not text.startswith("["):
                break
        self.end()

    def story(self):
        return "its last lines:\n" + "\n".join(list(self._lines)[-ends.SHOWN :])

    def tell(self, *order):
        self.board.write(json.dumps(order).encode() + b"\n")

    def close(self):
        self._is_closed = True
        self._thread.join(2 * LINE_TIMEOUT_S)


@contextlib.contextmanager
def board_with_client(folder, protocol=4):
    """A Board that is online and has the client in its flash."""
    import emulated_board

    flash = pathlib.Path(folder) / "flash"
    with emulated_board.Board(flash=flash) as board:
        for name, data in compile_client(protocol).items():
            board.put("/" + name, data)
    copy = pathlib.Path(folder) / "flash-used"
    shutil.copyfile(flash, copy)
    with emulated_board.Board(flash=copy, clock="steady") as board:
        board.go_online()
        yield board
