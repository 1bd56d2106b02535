"""The REPLs of a board: raw, raw-paste, friendly and paste, after shared/runtime/pyexec.c.

Each function says which one it stands for. What the terminal needs as "\\r\\n" is written "\\n"
here: our standard output is a pseudo-terminal that puts the "\\r" in, as a board's console does
with what programs print.

Left out of the friendly REPL's line editor (shared/readline/readline.c): completion with Tab,
which puts four spaces; the Emacs keys; movement by words. The history is eight lines, as there.
"""

import io
import select
import sys

import board_bus as bus
from board_flash import INPUT

_CTRL_A = 1
_CTRL_B = 2
_CTRL_C = 3
_CTRL_D = 4
_CTRL_E = 5

# What execute() and the REPLs answer (shared/runtime/pyexec.h).
FAILED = 0
NORMAL = 1
FORCED_EXIT = 0x100

# Bytes that raw-paste mode lets a host send ahead: half of MICROPY_REPL_STDIN_BUFFER_MAX.
_WINDOW_BYTES = 128

_HISTORY_LINES = 8
_COMPOUND = ("if", "while", "for", "try", "with", "def", "class", "async")

_stdin = sys.stdin.buffer
_input = select.poll()
_input.register(sys.stdin, select.POLLIN)
_stdout = sys.stdout
_print_exception = sys.print_exception
_own_folder = __file__[: __file__.rfind("/")] if "/" in __file__ else ""


def put(text):
    """Print, with "\\r" before each "\\n"."""
    _stdout.write(text)


def get():
    """Return the next byte of input; a Ctrl-C comes as one."""
    bus.page[bus.INTERRUPT] = bus.INTERRUPT_IS_DATA
    while not _input.poll(1000):  # where callbacks run, in every case
        pass
    byte = _stdin.read(1)
    if not byte:
        bus._exit(1)  # the other side is gone
    return byte[0]


# ---------------------------------------------------------------------------
# parse_compile_execute()
# ---------------------------------------------------------------------------


def execute_line(text, variables):
    """Run a line of the friendly REPL: the values of expressions are printed."""

    def run():
        code = compile(text, "<stdin>", "single")
        bus.interrupts_on()
        exec(code, variables)

    return _execute(run, False)


def execute_input(read, variables, prints_eof):
    """Run what `read(file)` writes into a file; it may raise KeyboardInterrupt.

    A board compiles while it reads. The file keeps a program's text out of the heap, too.
    """

    def run():
        with open(INPUT, "wb") as file:
            read(file)
        _execute_file(INPUT, variables)

    return _execute(run, prints_eof)


def execute_text(text, variables, prints_eof):
    """Run a program that is here as bytes."""
    return execute_input(lambda file: file.write(text), variables, prints_eof)


def execute_file(name, variables):
    """Run a file of the flash (pyexec_file())."""
    return _execute(lambda: _execute_file(name, variables), False)


def _execute_file(name, variables):
    variables["__file__"] = "<stdin>" if name == INPUT else name
    bus.interrupts_on()  # a little earlier than on a board, which does not interrupt the compiler
    execfile(name, variables)  # noqa: F821  the unix port has it


# Call run(), print what it raises. With prints_eof a Ctrl-D follows the output and another one
# the error, as the raw REPL wants it. Returns NORMAL, FAILED or FORCED_EXIT.
def _execute(run, prints_eof):
    result = NORMAL
    bus.page[bus.INTERRUPT] = bus.INTERRUPT_HOLD
    try:
        run()
        bus.interrupts_off()
        if prints_eof:
            put("\x04")
    except BaseException as error:
        while True:
            try:
                bus.interrupts_off()
                break
            except KeyboardInterrupt:
                pass
        if prints_eof:
            put("\x04")
        if isinstance(error, SystemExit):
            result = FORCED_EXIT
        else:
            result = FAILED
            put(_traceback(error))
    if prints_eof:
        put("\x04")
    return result


# The lines of this folder's files are the simulation's: a board's traceback has none of them.
def _traceback(error):
    text = io.StringIO()
    _print_exception(error, text)
    lines = text.getvalue().replace('"' + INPUT + '"', '"<stdin>"').split("\n")
    return "\n".join(line for line in lines if not line.startswith('  File "' + _own_folder))


def print_exception(error, file=None):
    """sys.print_exception()."""
    (file or _stdout).write(_traceback(error))


# ---------------------------------------------------------------------------
# Raw REPL: pyexec_raw_repl(), do_reader_stdin()
# ---------------------------------------------------------------------------


def raw_repl(variables):
    """Talk with a program. Returns 0 to change to the friendly REPL, or FORCED_EXIT."""
    put("raw REPL; CTRL-B to exit\n")
    while True:
        line = bytearray()
        put(">")
        result = None
        while True:
            c = get()
            if c == _CTRL_A:
                if len(line) == 2 and line[0] == _CTRL_E:
                    result = _raw_paste(line[1], variables)
                    break
                line = bytearray()
                put("raw REPL; CTRL-B to exit\n>")
            elif c == _CTRL_B:
                put("\n")
                bus.page[bus.REPL_MODE] = 0
                return 0
            elif c == _CTRL_C:
                line = bytearray()
            elif c == _CTRL_D:
                break
            else:
                line.append(c)
        if result is None:
            put("OK")
            if not line:
                put("\n")
                return FORCED_EXIT
            result = execute_text(line, variables, True)
        if result & FORCED_EXIT:
            return result


def _raw_paste(command, variables):
    if command != 65:  # "A"
        put("R\x00")
        return NORMAL
    put("R\x01")
    _write_raw(bytes((_WINDOW_BYTES & 0xFF, _WINDOW_BYTES >> 8, 1)))

    def read(file):
        window = bytearray(_WINDOW_BYTES)
        count = 0
        while True:
            c = get()
            if c == _CTRL_C or c == _CTRL_D:
                put("\x04")
                if c == _CTRL_C:
                    raise KeyboardInterrupt
                file.write(memoryview(window)[:count])
                return
            window[count] = c
            count += 1
            if count == _WINDOW_BYTES:
                file.write(window)
                count = 0
                put("\x01")

    return execute_input(read, variables, True)


def _write_raw(data):
    _stdout.buffer.write(data)


# ---------------------------------------------------------------------------
# Friendly REPL: pyexec_friendly_repl()
# ---------------------------------------------------------------------------


def friendly_repl(variables, banner):
    """Talk with a person. Returns 0 to change to the raw REPL, or FORCED_EXIT."""
    put(banner)
    editor = _Editor()
    while True:
        ended_by, line = editor.read(">>> ")
        if ended_by == _CTRL_A:
            put("\n")
            bus.page[bus.REPL_MODE] = 1
            return 0
        if ended_by == _CTRL_B:
            put("\n" + banner)
            continue
        if ended_by == _CTRL_C:
            put("\n")
            continue
        if ended_by == _CTRL_D:
            put("\n")
            return FORCED_EXIT
        if ended_by == _CTRL_E:
            pasted = _paste()
            if pasted is None:
                continue
            if execute_text(pasted, variables, False) & FORCED_EXIT:
                return FORCED_EXIT
            continue
        if not line:
            continue
        while needs_more(line):
            line += "\n"
            ended_by, line = editor.read("... ", line)
            if ended_by == _CTRL_C or ended_by == _CTRL_D:
                break
        if ended_by == _CTRL_C:
            put("\n")
            continue
        if execute_line(line, variables) & FORCED_EXIT:
            return FORCED_EXIT


def _paste():
    put("\npaste mode; Ctrl-C to cancel, Ctrl-D to finish\n=== ")
    line = bytearray()
    while True:
        c = get()
        if c == _CTRL_C:
            put("\n")
            return None
        if c == _CTRL_D:
            put("\n")
            return bytes(line)
        line.append(c)
        if c == 13:
            put("\n=== ")
        else:
            _write_raw(bytes((c,)))


# mp_repl_continue_with_input() of py/repl.c.
def needs_more(text):
    """Return whether `text` is only the beginning of a statement."""
    if not text:
        return False
    is_compound = text[0] == "@"
    for word in _COMPOUND:
        following = text[len(word) : len(word) + 1]
        if text.startswith(word) and not (following.isalpha() or following.isdigit()):
            is_compound = is_compound or following != "_"
    depth = 0
    quote = None
    i = 0
    while i < len(text):
        c = text[i]
        if quote:
            if c == "\\":
                i += 1
            elif text.startswith(quote, i):
                i += len(quote) - 1
                quote = None
        elif c in "'\"":
            quote = c * 3 if text.startswith(c * 3, i) else c
            i += len(quote) - 1
        elif c == "\\" and text[i + 1 : i + 2] == "\n":
            i += 1
        elif c in "([{":
            depth += 1
        elif c in ")]}":
            depth -= 1
        i += 1
    if quote and len(quote) == 3 or depth > 0 or text[-1] == "\\":
        return True
    return is_compound and text[-1] != "\n"


class _Editor:
    # readline(): a line of printable characters, with cursor, history and indentation.

    def __init__(self):
        self._history = []

    def read(self, prompt, text=""):
        # Returns (0 or the control character that ended it, text with the line added).
        put(prompt)
        line = _indentation(text)
        put(line)
        cursor = len(line)
        escape = ""
        index = -1
        last_newline = 0
        while True:
            c = get()
            if escape:
                escape += chr(c)
                if escape == "\x1b[" or escape == "\x1bO" or escape[2:].isdigit():
                    continue
                old, old_cursor = line, cursor
                if escape == "\x1b[A" and index + 1 < len(self._history):
                    index += 1
                    line = self._history[index]
                    cursor = len(line)
                elif escape == "\x1b[B" and index >= 0:
                    index -= 1
                    line = self._history[index] if index >= 0 else ""
                    cursor = len(line)
                elif escape == "\x1b[C":
                    cursor = min(len(line), cursor + 1)
                elif escape == "\x1b[D":
                    cursor = max(0, cursor - 1)
                elif escape in ("\x1b[H", "\x1bOH", "\x1b[1~", "\x1b[7~"):
                    cursor = 0
                elif escape in ("\x1b[F", "\x1bOF", "\x1b[4~", "\x1b[8~"):
                    cursor = len(line)
                elif escape == "\x1b[3~":
                    line = line[:cursor] + line[cursor + 1 :]
                escape = ""
                _redraw(old, old_cursor, line, cursor)
                continue
            if _CTRL_A <= c <= _CTRL_E and not line:
                return c, text
            if c == _CTRL_C:
                return c, text
            old, old_cursor = line, cursor
            if c == _CTRL_A:
                cursor = 0
            elif c == _CTRL_E:
                cursor = len(line)
            elif c == _CTRL_B:
                cursor = max(0, cursor - 1)
            elif c == _CTRL_D:
                line = line[:cursor] + line[cursor + 1 :]
            elif c == 13 or c == 10:
                # The two of "\r\n" are one (process_nl()).
                if last_newline and last_newline != c:
                    last_newline = 0
                    continue
                put("\n")
                if line.strip() and self._history[:1] != [line]:
                    self._history.insert(0, line)
                    self._history = self._history[:_HISTORY_LINES]
                return 0, text + line
            elif c == 27:
                escape = "\x1b"
            elif c in (8, 127):
                if cursor:
                    count = 4 if cursor >= 4 and not line[:cursor].strip() else 1
                    line = line[: cursor - count] + line[cursor:]
                    cursor -= count
            elif c == 9:
                line = line[:cursor] + "    " + line[cursor:]
                cursor += 4
            elif 32 <= c <= 126:
                line = line[:cursor] + chr(c) + line[cursor:]
                cursor += 1
            _redraw(old, old_cursor, line, cursor)


# Show the new line in the place of the old one, from the first difference on.
def _redraw(old, old_cursor, line, cursor):
    same = 0
    while same < min(len(old), len(line), old_cursor, cursor) and old[same] == line[same]:
        same += 1
    if old == line:
        if cursor < old_cursor:
            put("\x1b[%dD" % (old_cursor - cursor) if old_cursor - cursor > 1 else "\b")
        else:
            put(line[old_cursor:cursor])
        return
    if old_cursor > same:
        put("\b" * (old_cursor - same))
    if len(line) < len(old):
        put("\x1b[K")
    put(line[same:])
    if len(line) > cursor:
        put("\b" * (len(line) - cursor))


# readline_auto_indent(): as deep as the line before, and deeper after a colon; not after two
# empty lines.
def _indentation(text):
    if not text.endswith("\n"):
        return ""
    lines = text[:-1].split("\n")
    last = lines[-1]
    if len(lines) > 1 and not last.strip() and not lines[-2].strip():
        return ""
    depth = (len(last) - len(last.lstrip(" "))) // 4
    return "    " * (depth + (1 if last.endswith(":") else 0))
