"""List how large a frame each function of the client has, and which frames lie on the heap.

    python3 tools/list_frames.py                   functions of profile full, largest frame first
    python3 tools/list_frames.py --profile tiny    of another profile
    python3 tools/list_frames.py FILE.mpy          of any compiled module

A call needs room for the function's variables and operands, and three words for each level of
`try`, `with` or `finally`. Up to 11 words lie on the C stack. MicroPython takes a larger frame
from the heap, at each call: fast in a roomy heap, a whole collection in a full one (py/objfun.c).
Under heap_lock() it quietly falls back to the C stack, so a test that counts allocations does not
see it. Hence this list, which is read out of the bytecode.

A generator takes its frame from the heap once, when it is made.
"""

import argparse
import pathlib
import sys

import build
import setup_env

# py/objfun.c: VM_MAX_STATE_ON_STACK, in words. The same on 32 and 64 bits.
STACK_WORDS_MAX = 11
EXCEPTION_WORDS = 3  # mp_exc_stack_t: handler, stack pointer, exception before

# Kinds of objects in a .mpy (py/persistentcode.h).
OBJECT_PLAIN_MAX = 4  # up to here it is its kind: None, False, True ...
OBJECT_BYTES = 6
OBJECT_TUPLE = 10

GENERATOR = 0x01  # flag of a function (py/bc.h)

# Names that each firmware has, so that a .mpy has only their numbers (py/makeqstrdata.py:
# static_qstr_list). Those before "<module>" are no names of functions.
FIXED_NAMES_FIRST = 7
FIXED_NAMES = """
<module> _ __call__ __class__ __delitem__ __enter__ __exit__ __getattr__ __getitem__ __hash__
__init__ __int__ __iter__ __len__ __main__ __module__ __name__ __new__ __next__ __qualname__
__repr__ __setitem__ __str__ ArithmeticError AssertionError AttributeError BaseException
EOFError Ellipsis Exception GeneratorExit ImportError IndentationError IndexError KeyError
KeyboardInterrupt LookupError MemoryError NameError NoneType NotImplementedError OSError
OverflowError RuntimeError StopIteration SyntaxError SystemExit TypeError ValueError
ZeroDivisionError abs all any append args bool builtins bytearray bytecode bytes callable chr
classmethod clear close const copy count dict dir divmod end endswith eval exec extend find
format from_bytes get getattr globals hasattr hash id index insert int isalpha isdigit
isinstance islower isspace issubclass isupper items iter join key keys len list little locals
lower lstrip main map micropython next object open ord pop popitem pow print range read
readinto readline remove replace repr reverse rfind rindex round rsplit rstrip self send sep
set setattr setdefault sort sorted split start startswith staticmethod step stop str strip
sum super throw to_bytes tuple type update upper utf-8 value values write zip
"""


class Frame:
    """What one function needs.

    Attributes: name, with that of its class before it; words; is_generator.
    """

    def __init__(self, name, words, is_generator):
        self.name = name
        self.words = words
        self.is_generator = is_generator

    @property
    def words_over(self):
        """How many words too many it has; 0 if no call takes it from the heap."""
        return 0 if self.is_generator else max(0, self.words - STACK_WORDS_MAX)


class Reader:
    """Reads a .mpy of version 6 (MicroPython's docs/reference/mpyfiles.rst).

    Attributes: names, its table.
    """

    def __init__(self, mpy):
        self._mpy = mpy
        self._at = 0
        if build.Header(mpy).version != 6 or build.Header(mpy).is_native:
            raise build.BuildError("only bytecode of version 6 can be read")
        self._take(4)
        name_count = self._uint()
        object_count = self._uint()
        self.names = [self._name() for _ in range(name_count)]
        for _ in range(object_count):
            self._skip_object()

    def _take(self, count):
        taken = self._mpy[self._at : self._at + count]
        if len(taken) < count:
            raise build.BuildError("the .mpy ends too early")
        self._at += count
        return taken

    def _uint(self):
        value = 0
        while True:
            byte = self._take(1)[0]
            value = value << 7 | byte & 0x7F
            if byte < 0x80:
                return value

    def _name(self):
        size = self._uint()
        if size & 1:  # one of those that each firmware has
            number = (size >> 1) - FIXED_NAMES_FIRST
            return FIXED_NAMES.split()[number] if number >= 0 else ""
        return self._take((size >> 1) + 1)[:-1].decode()

    def _skip_object(self):
        kind = self._take(1)[0]
        if kind <= OBJECT_PLAIN_MAX:
            return
        size = self._uint()
        if kind == OBJECT_TUPLE:
            for _ in range(size):
                self._skip_object()
        else:
            self._take(size + (kind <= OBJECT_BYTES))  # text and bytes end with a zero

    def frames(self, prefix=""):
        """Return the Frame list of the code that comes now, and of all code in it."""
        size = self._uint()
        if size & 3:
            raise build.BuildError("there is machine code in the .mpy")
        frame = self._frame(self._take(size >> 3), prefix)
        found = [frame]
        if size & 4:
            inner = "" if frame.name == "<module>" else frame.name + "."
            for _ in range(self._uint()):
                found += self.frames(inner)
        return found

    # The prelude of the bytecode (py/bc.h: MP_BC_PRELUDE_SIG_DECODE and _SIZE_DECODE).
    def _frame(self, code, prefix):
        byte = code[0]
        at = 1
        state = byte >> 3 & 0x0F
        tries = byte >> 2 & 1
        flags = turn = 0
        while byte & 0x80:
            byte = code[at]
            state |= (byte & 0x30) << 2 * turn
            tries |= (byte & 0x02) << turn
            flags |= (byte >> 6 & 1) << turn
            at += 1
            turn += 1
        while code[at] & 0x80:  # sizes of what follows
            at += 1
        at += 1
        number = 0
        while True:
            number = number << 7 | code[at] & 0x7F
            if code[at] < 0x80:
                break
            at += 1
        words = state + 1 + tries * EXCEPTION_WORDS
        return Frame(prefix + self.names[number], words, bool(flags & GENERATOR))


def read_frames(mpy):
    """Return the Frame list of a .mpy, the largest first."""
    return sorted(Reader(mpy).frames(), key=lambda frame: (-frame.words, frame.name))


def frames_of(profile, keeps_names=False):
    """Return the Frame list of the client's build for a profile.

    Args:
        keeps_names: of one with all functions of the file.
    """
    text = build.read_source()
    switches = build.find_switches(text)
    parts = build.parts_of(profile, switches)
    return read_frames(
        build.compile_mpy(build.configure(text, switches, parts), keeps_names=keeps_names)
    )


def parse_arguments(arguments):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", nargs="?", type=pathlib.Path, metavar="FILE.mpy")
    parser.add_argument("--profile", choices=build.PROFILES, default="full")
    return parser.parse_args(arguments)


def main(arguments=None):
    options = parse_arguments(arguments)
    setup_env.reexec_in_venv(build.REQUIREMENTS)
    try:
        if options.file:
            frames = read_frames(options.file.read_bytes())
        else:
            frames = frames_of(options.profile)
    except (OSError, build.BuildError) as error:
        print("list_frames: %s" % error, file=sys.stderr)
        return 1
    rows = [("function", "frame, words", "from the heap at each call")]
    for frame in frames:
        note = "%d over" % frame.words_over if frame.words_over else ""
        rows.append((frame.name, frame.words, "a generator" if frame.is_generator else note))
    build.print_table(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
