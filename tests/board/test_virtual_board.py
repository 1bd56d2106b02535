"""mpremote takes the virtual board for a board, and the board starts, stops and breaks as one.

The simulated Wi-Fi has its own file, as have pins, timers and the like. Both kinds of board are
tried where they differ; what is the same program for both is tried on one.
"""

import contextlib
import hashlib
import json
import os
import socket
import ssl
import subprocess
import sys
import threading

import pexpect
import pytest
from consoles import BoardFailed, RawRepl, end
from virtual_board import ESP32, PICO_W, BoardTimeout, VirtualBoard

import certificates
import web_server

EXPECT_TIMEOUT_S = 20


# ---------------------------------------------------------------------------
# mpremote
# ---------------------------------------------------------------------------


def test_mpremote_runs_programs(board, mpremote, tmp_path):
    assert mpremote(board, "exec", "print('hello')") == "hello\n"
    assert mpremote(board, "eval", "6 * 7") == "42\n"
    script = tmp_path / "script.py"
    script.write_text("for i in range(3):\n    print(i)\n")
    assert mpremote(board, "run", script) == "0\n1\n2\n"
    traceback = mpremote(board, "exec", "def f():\n    1 / 0\nf()", status=1)
    assert traceback == (
        "Traceback (most recent call last):\n"
        '  File "<stdin>", line 3, in <module>\n'
        '  File "<stdin>", line 2, in f\n'
        "ZeroDivisionError: divide by zero\n"
    )
    assert "SyntaxError" in mpremote(board, "exec", "print(", status=1)


def test_mpremote_sees_the_machine(board, mpremote, board_kind):
    found = mpremote(
        board,
        "exec",
        "import sys, os\n"
        "print(sys.platform, sys.implementation._machine, sys.implementation.version[:2])\n"
        "print(sys.implementation._mpy, os.uname().sysname, os.uname().release, sys.path)",
    ).splitlines()
    if board_kind == ESP32:
        assert found[0] == "esp32 Generic ESP32 module with ESP32 (1, 25)"
        assert found[1] == "11014 esp32 1.25.0 ['', '.frozen', '/lib']"
    else:
        assert found[0] == "rp2 Raspberry Pi Pico W with RP2040 (1, 25)"
        assert found[1] == "4870 rp2 1.25.0 ['', '.frozen', '/lib']"


def test_a_program_sees_nothing_of_this_machine(board, mpremote):
    # Names of the unix port and of the simulation, which a board has not.
    found = mpremote(
        board,
        "exec",
        "import os, sys\n"
        "print(hasattr(os, 'system'), hasattr(os, 'getenv'), os.listdir('/..'), os.getcwd())\n"
        "print(sorted(globals()), sys.argv, hasattr(sys, 'executable'))\n"
        "for name in ('board_bus', 'board_flash'):\n"
        "    try:\n"
        "        __import__(name)\n"
        "    except ImportError:\n"
        "        print('no', name)\n",
    )
    listed = sorted(os.listdir(board.files))
    assert found.splitlines() == [
        "False False %r /" % listed,
        "['__file__', '__name__', 'os', 'sys'] [] False",
        "no board_bus",
        "no board_flash",
    ]


def test_mpremote_copies_lists_and_removes_files(virtual_board, mpremote, tmp_path):
    board = virtual_board(ESP32)
    data = bytes(range(256)) * 20
    source = tmp_path / "data.bin"
    source.write_bytes(data)
    mpremote(board, "fs", "mkdir", ":lib", "+", "fs", "cp", source, ":lib/data.bin")
    assert (board.files / "lib" / "data.bin").read_bytes() == data
    assert "5120 data.bin" in mpremote(board, "fs", "ls", ":lib")
    digest = hashlib.sha256(data).hexdigest()
    assert digest in mpremote(board, "fs", "sha256sum", ":lib/data.bin")
    # The same again: mpremote compares the hashes and copies nothing.
    assert "Up to date" in mpremote(board, "fs", "cp", source, ":lib/data.bin")
    back = tmp_path / "back.bin"
    mpremote(board, "fs", "cp", ":lib/data.bin", back)
    assert back.read_bytes() == data
    mpremote(board, "fs", "rm", ":lib/data.bin", "+", "fs", "rmdir", ":lib")
    assert not (board.files / "lib").exists()
    assert "No such file" in mpremote(board, "fs", "cat", ":lib/data.bin", status=1)


def test_mpremote_copies_folders_and_tells_the_room(virtual_board, mpremote, tmp_path):
    board = virtual_board(PICO_W)
    folder = tmp_path / "package"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "a.py").write_text("print('a')\n")
    (folder / "b.py").write_text("print('b')\n")
    mpremote(board, "fs", "cp", "-r", folder, ":")
    assert (board.files / "package" / "inner" / "a.py").read_text() == "print('a')\n"
    assert "b.py" in mpremote(board, "fs", "tree")
    # Three folders of two blocks, two files of one.
    assert "868352" in mpremote(board, "df")
    assert "    32768 " in mpremote(board, "df")
    mpremote(board, "fs", "touch", ":new", "+", "fs", "rm", "-r", ":package")
    assert os.listdir(board.files) == ["new"]


def test_mpremote_edits_a_file(virtual_board, mpremote, tmp_path):
    board = virtual_board(ESP32, files={"note.txt": "old"})
    editor = tmp_path / "editor"
    editor.write_text("#!/bin/sh\nprintf new > $1\n")
    editor.chmod(0o755)
    mpremote(board, "edit", ":note.txt", env=dict(os.environ, EDITOR=str(editor)))
    assert (board.files / "note.txt").read_text() == "new"


def test_mpremote_mounts_a_folder_of_the_host(board, mpremote, tmp_path):
    # Its protocol is binary and goes through sys.stdin and sys.stdout of the board.
    (tmp_path / "here.py").write_bytes(b"text = 'a\\r\\nb'\n#\n" + b"# \xc3\xa4\r\n" * 300)
    assert mpremote(board, "mount", tmp_path, "exec", "import here; print(repr(here.text))") == (
        "Local directory %s is mounted at /remote\n'a\\r\\nb'\n" % tmp_path
    )


@pytest.fixture
def package(tmp_path):
    """A folder with a package as mip wants it."""
    folder = tmp_path / "server"
    folder.mkdir()
    (folder / "thing.py").write_text("NAME = 'thing'\n")
    listing = {"version": "1.0", "urls": [["thing.py", "thing.py"]]}
    (folder / "package.json").write_text(json.dumps(listing))
    return folder


def test_mpremote_installs_a_package(board, mpremote, package):
    with web_server.serve(package) as web:
        mpremote(board, "mip", "install", "--no-mpy", web.url + "/package.json")
    assert (board.files / "lib" / "thing.py").read_text() == "NAME = 'thing'\n"
    assert mpremote(board, "exec", "import thing; print(thing.NAME)") == "thing\n"


def test_mip_on_the_board_installs_a_package_through_its_wifi(board, mpremote, package):
    board.world.add_network("home", "password1")
    with web_server.serve(package) as web:
        # The mip of 1.25 takes no address relative to the package's.
        listing = {"version": "1.0", "urls": [["thing.py", web.url + "/thing.py"]]}
        (package / "package.json").write_text(json.dumps(listing))
        program = (
            "import network, time, mip\n"
            "wlan = network.WLAN(network.STA_IF)\n"
            "wlan.active(True)\n"
            "wlan.connect('home', 'password1')\n"
            "while not wlan.isconnected():\n"
            "    time.sleep_ms(5)\n"
            "mip.install('%s/package.json', mpy=False)\n" % web.url
        )
        assert "Done" in mpremote(board, "exec", program)
    assert (board.files / "lib" / "thing.py").read_text() == "NAME = 'thing'\n"


def test_resume_keeps_variables_and_soft_reset_forgets_them(board, mpremote):
    mpremote(board, "exec", "kept = 1")
    assert mpremote(board, "resume", "exec", "print(kept)") == "1\n"
    mpremote(board, "soft-reset")
    assert "NameError" in mpremote(board, "resume", "exec", "print(kept)", status=1)


def test_mpremote_resets_the_board(virtual_board, mpremote, board_kind):
    board = virtual_board(board_kind, files={"main.py": "print('main')\n"})
    board.wait_for_output("main\n")
    since = len(board.output)
    mpremote(board, "reset")
    board.wait_for_output("main\n", since=since)
    # rp2 makes its resets with the watchdog; resume, as a soft reset changes ESP32's answer.
    cause = mpremote(board, "resume", "exec", "import machine; print(machine.reset_cause())")
    assert cause == ("2\n" if board_kind == ESP32 else "3\n")


def test_mpremote_sets_the_clock(board, mpremote):
    mpremote(board, "rtc", "--set")
    assert mpremote(board, "exec", "import time; print(time.gmtime()[0] >= 2024)") == "True\n"


def test_a_second_program_finds_the_port_busy(virtual_board, mpremote):
    board = virtual_board(ESP32, files={"main.py": "print('main')\n"})
    board.wait_for_output(">>> ")
    holder = pexpect.spawn(
        sys.executable,
        ["-m", "mpremote", "connect", board.port, "repl"],
        timeout=EXPECT_TIMEOUT_S,
    )
    try:
        holder.expect("Connected to MicroPython")
        assert "in use by another program" in mpremote(board, "exec", "1", status=1)
    finally:
        end(holder)


def test_raw_paste_takes_a_large_program(virtual_board, mpremote, tmp_path):
    # 40 KB through a window of 128 bytes, into a heap of 128 KB.
    board = virtual_board(ESP32)
    script = tmp_path / "large.py"
    lines = ["# %s" % ("x" * 90)] * 400 + ["total = 0"] + ["total += 1"] * 200 + ["print(total)"]
    script.write_text("\n".join(lines))
    assert script.stat().st_size > 38_000
    assert mpremote(board, "run", script) == "200\n"


# ---------------------------------------------------------------------------
# A person at the prompt
# ---------------------------------------------------------------------------


@pytest.fixture
def prompt(virtual_board):
    """mpremote repl on a terminal, at the prompt."""
    board = virtual_board(ESP32)
    board.wait_for_output(">>> ")
    terminal = pexpect.spawn(
        sys.executable,
        ["-m", "mpremote", "connect", board.port, "repl"],
        timeout=EXPECT_TIMEOUT_S,
        encoding="utf-8",
        echo=False,
    )
    terminal.delaybeforesend = 0
    terminal.board = board
    terminal.expect("Use Ctrl-]")
    terminal.send("\r")
    terminal.expect(">>> ")
    yield terminal
    end(terminal)


def test_the_repl_evaluates_lines(prompt):
    prompt.send("6 * 7\r")
    prompt.expect("6 \\* 7\r\n42\r\n>>> ")
    prompt.send("None\r1 / 0\r")
    prompt.expect('File "<stdin>", line 1, in <module>\r\nZeroDivisionError.*\r\n>>> ')


def test_the_repl_indents_and_takes_compound_statements(prompt):
    prompt.send("for i in range(3):\r")
    prompt.expect("\\.\\.\\.     ")
    prompt.send("print(i * 11)\r")
    prompt.expect("\\.\\.\\.     ")
    prompt.send("\x7f\r")  # out of the indentation: an empty line ends it
    prompt.expect("0\r\n11\r\n22\r\n>>> ")
    prompt.send("[1,\r")
    prompt.expect("\\.\\.\\. ")
    prompt.send("2]\r")
    prompt.expect("\\[1, 2\\]\r\n>>> ")


def test_the_repl_edits_lines_and_remembers_them(prompt):
    prompt.send("12x\x7f + 30\r")
    prompt.expect("\r\n42\r\n>>> ")
    prompt.send("\x1b[A\x1b[D\x1b[D1\r")  # the last line, cursor before the 30: 12 + 130
    prompt.expect("\r\n142\r\n>>> ")
    prompt.send("wrong\x03")
    prompt.expect("\r\n>>> ")


def test_paste_mode_takes_text_as_it_is(prompt):
    prompt.send("\x05")
    prompt.expect("paste mode; Ctrl-C to cancel, Ctrl-D to finish\r\n=== ")
    prompt.send("if True:\r    print('pasted')\r\x04")
    prompt.expect("\r\npasted\r\n>>> ")


def test_ctrl_d_restarts_and_ctrl_c_interrupts(prompt):
    (prompt.board.files / "main.py").write_text(
        "import time\nprint('main', 'x' in globals())\nwhile True:\n    time.sleep(1)\n"
    )
    prompt.send("x = 1\r")
    prompt.expect(">>> ")
    prompt.send("\x04")
    prompt.expect("MPY: soft reboot\r\nmain False\r\n")
    prompt.send("\x03")
    prompt.expect('File "main.py", line 4, in <module>\r\nKeyboardInterrupt')
    prompt.expect("MicroPython v1.25.0 on .*; Generic ESP32 module with ESP32\r\n")
    prompt.expect(">>> ")


def test_a_program_reads_what_is_typed(prompt):
    prompt.send("import sys, select\rp = select.poll(); p.register(sys.stdin, 1)\r")
    prompt.send("print('empty', p.poll(0)); name = sys.stdin.readline()\r")
    prompt.expect("empty \\[\\]\r\n")
    prompt.send("Ada\n")
    prompt.expect(">>> ")
    prompt.send("name\r")
    prompt.expect("'Ada\\\\n'")


# ---------------------------------------------------------------------------
# Starting
# ---------------------------------------------------------------------------


def test_a_blank_esp32_makes_its_boot_py_and_a_pico_makes_none(virtual_board):
    board = virtual_board(ESP32)
    board.wait_for_output(">>> ")
    assert (board.files / "boot.py").read_text().startswith("#")
    board = virtual_board(PICO_W)
    board.wait_for_output(">>> ")
    assert os.listdir(board.files) == []


def test_boot_py_runs_first_and_shares_its_variables(virtual_board, mpremote):
    board = virtual_board(
        PICO_W, files={"boot.py": "x = 1\nprint('boot')\n", "main.py": "print('main', x)\n"}
    )
    board.wait_for_output("^boot\nmain 1\nMicroPython v1.25.0 on .*\nType .*\n>>> ")
    # In the raw REPL a soft reset runs boot.py alone.
    since = len(board.output)
    mpremote(board, "exec", "print(x)")
    later = board.output[since:]
    assert "soft reboot\nboot\nraw REPL" in later and "main" not in later


def test_an_exception_in_main_py_leads_to_the_prompt(virtual_board):
    board = virtual_board(PICO_W, files={"main.py": "def f():\n    1 / 0\nf()\n"})
    board.wait_for_output(
        "^Traceback \\(most recent call last\\):\n"
        '  File "main.py", line 3, in <module>\n'
        '  File "main.py", line 2, in f\n'
        "ZeroDivisionError: divide by zero\nMicroPython .*\nType .*\n>>> "
    )


def test_an_exception_in_boot_py_skips_main_py(virtual_board):
    board = virtual_board(PICO_W, files={"boot.py": "1 / 0\n", "main.py": "print('main')\n"})
    board.wait_for_output(">>> ")
    assert "main\n" not in board.output


def test_the_end_of_a_program_by_exit_is_a_soft_reset(virtual_board):
    board = virtual_board(PICO_W, files={"boot.py": "print('boot')\nimport sys\nsys.exit()\n"})
    board.wait_for_output("(boot\nMPY: soft reboot\n){3}")  # and so on for ever, as on a board


def test_machine_soft_reset_starts_main_py_again(virtual_board, mpremote):
    program = (
        "import machine, os\n"
        "print('run')\n"
        "if 'once' not in os.listdir():\n"
        "    open('once', 'w').close()\n"
        "    machine.soft_reset()\n"
    )
    board = virtual_board(ESP32, files={"main.py": program})
    board.wait_for_output("run\nMPY: soft reboot\nrun\nMicroPython")
    cause = mpremote(board, "resume", "exec", "print(machine.reset_cause())")
    assert cause == "5\n"


def test_a_module_of_the_flash_is_imported_source_or_compiled(
    virtual_board, mpremote, compile_mpy, tmp_path
):
    (tmp_path / "compiled.py").write_text("NAME = 'compiled'\n")
    board = virtual_board(ESP32, files={"lib/source.py": "NAME = 'source'\n"})
    compile_mpy(tmp_path / "compiled.py", board.files / "compiled.mpy")
    program = "import source, compiled; print(source.NAME, compiled.NAME, source.__file__)"
    assert mpremote(board, "exec", program) == "source compiled /lib/source.py\n"


def test_firmware_of_another_mpy_version_refuses_compiled_modules(
    virtual_board, mpremote, compile_mpy, tmp_path
):
    (tmp_path / "compiled.py").write_text("NAME = 'compiled'\n")
    board = virtual_board(PICO_W, firmware=(1, 18, 0), mpy=0x1205)
    compile_mpy(tmp_path / "compiled.py", board.files / "compiled.mpy")
    refusal = mpremote(board, "exec", "import compiled", status=1)
    assert "ValueError: incompatible .mpy file" in refusal
    # It can be read and hashed all the same, and source can be imported.
    size = (board.files / "compiled.mpy").stat().st_size
    program = (
        "import sys, os\n"
        "print(sys.implementation.version, sys.implementation._mpy & 0xFF)\n"
        "print(len(open('compiled.mpy', 'rb').read()))\n"
        "open('plain.py', 'w').write('X = 1')\n"
    )
    (board.files / "plain.py").write_text("X = 1\n")
    program += "import plain; print(plain.X)"
    assert mpremote(board, "exec", program).splitlines()[0::2] == ["(1, 18, 0, '') 5", "1"]
    assert str(size) in mpremote(board, "fs", "ls")


# ---------------------------------------------------------------------------
# Stopping
# ---------------------------------------------------------------------------

BUSY = "print('begun')\nwhile True:\n    pass\n"
ASLEEP = "import time\nprint('begun')\nwhile True:\n    time.sleep(100)\n"
PRINTING = "print('begun')\nwhile True:\n    print('x' * 500)\n"
POLLING = (
    "import select, socket\n"
    "s = socket.socket()\n"
    "s.bind(socket.getaddrinfo('127.0.0.1', 0)[0][-1])\n"
    "s.listen(1)\n"
    "p = select.poll()\n"
    "p.register(s)\n"
    "print('begun')\n"
    "p.poll()\n"
)


@pytest.mark.parametrize("program", [BUSY, ASLEEP, PRINTING, POLLING])
def test_ctrl_c_interrupts_main_py(virtual_board, mpremote, program):
    board = virtual_board(ESP32, files={"main.py": program})
    board.wait_for_output("begun")
    assert mpremote(board, "resume", "exec", "print('alive')") == "alive\n"
    assert "KeyboardInterrupt" in board.output


def test_ctrl_c_interrupts_a_name_that_is_asked_without_a_link_on_rp2(virtual_board, mpremote):
    main = "import socket\nprint('begun')\nsocket.getaddrinfo('broker.lan', 1883)\n"
    board = virtual_board(PICO_W, files={"main.py": main})
    board.wait_for_output("begun")
    assert mpremote(board, "resume", "exec", "print('alive')") == "alive\n"


def test_many_ctrl_c_in_a_row_interrupt_and_harm_nothing(virtual_board):
    board = virtual_board(PICO_W, files={"main.py": BUSY})
    board.wait_for_output("begun")
    with RawRepl(board) as console:
        for _ in range(20):
            console.start("while True:\n    pass")
            console.write(b"\x03\x03\x03" * 5)
            console.read_until(b"KeyboardInterrupt: \r\n\x04>")
        assert console.run("print('alive')") == "alive\n"
    assert board.events("crash") == []


def test_kbd_intr_lets_a_program_read_ctrl_c(virtual_board):
    board = virtual_board(ESP32)
    board.wait_for_output(">>> ")
    with RawRepl(board) as console:
        console.start(
            "import micropython, sys\n"
            "micropython.kbd_intr(-1)\n"
            "print('reading')\n"
            "print(sys.stdin.buffer.read(3))\n"
        )
        console.read_until(b"reading")
        console.write(b"a\x03b")
        console.read_until(b"b'a\\x03b'")


def test_a_program_gets_what_was_typed_while_it_ran(virtual_board):
    board = virtual_board(ESP32)
    board.wait_for_output(">>> ")
    with RawRepl(board) as console:
        console.start("import sys\nprint('reading')\nprint(sys.stdin.read(5))")
        console.read_until(b"reading")
        console.write(b"hello")
        console.read_until(b"hello\r\n")


# ---------------------------------------------------------------------------
# Breaking
# ---------------------------------------------------------------------------


def test_the_watchdog_resets_a_board_whose_main_py_hangs(virtual_board, board_kind):
    program = (
        "import machine, time\n"
        "print('cause', machine.reset_cause())\n"
        "wdt = machine.WDT(timeout=2000)\n"
        "for i in range(8):\n"
        "    time.sleep_ms(300)\n"
        "    wdt.feed()\n"
        "print('hangs')\n"
        "while True:\n"
        "    pass\n"
    )
    board = virtual_board(board_kind, files={"main.py": program})
    board.wait_for_output("cause 1\nhangs\n(rst:.*\n)?cause 3\n")
    assert board.events("watchdog")[0] == (2000,)


def test_the_watchdog_stays_on_at_the_prompt(virtual_board):
    # Nobody feeds it there: an mpremote that interrupts main.py has until then.
    board = virtual_board(PICO_W)
    board.wait_for_output(">>> ")
    with RawRepl(board) as console:
        # On a busy machine it comes before the answer.
        console.write(b"import machine\nmachine.WDT(timeout=200)\x04")
        board.wait_for_event("watchdog", 200)


def test_the_heap_has_an_end(virtual_board, mpremote):
    board = virtual_board(ESP32, heap="64k")
    assert "MemoryError" in mpremote(board, "exec", "b = bytearray(80 * 1024)", status=1)
    free = int(mpremote(board, "exec", "import gc; gc.collect(); print(gc.mem_free())"))
    # What the board has is the program's: the simulation's own share was added.
    assert 60 * 1024 < free < 72 * 1024


def test_files_survive_the_power_and_variables_do_not(virtual_board):
    board = virtual_board(PICO_W)
    board.wait_for_output(">>> ")
    with RawRepl(board) as console:
        console.run("x = 1\nwith open('kept', 'w') as f:\n    f.write('words')")
    board.power_off()
    assert not os.path.lexists(board.port)
    since = len(board.output)
    board.power_on()
    board.wait_for_output(">>> ", since=since)
    with RawRepl(board) as console:
        assert console.run("print(open('kept').read(), 'x' in globals())") == "words False\n"


def test_a_file_that_is_not_closed_is_lost_with_the_power(virtual_board):
    # As with littlefs: the old contents stay until the new ones are whole.
    board = virtual_board(PICO_W, files={"old": "old words"})
    board.wait_for_output(">>> ")
    with RawRepl(board) as console:
        console.run("f = open('old', 'w')\nf.write('half of the n')")
        console.run("g = open('new', 'w')\ng.write('half of the n')")
        console.run("h = open('flushed', 'w')\nh.write('whole')\nh.flush()\nh.write('half')")
        assert console.run("print(open('old').read())") == "old words\n"
    board.power_off()
    contents = {path.name: path.read_text() for path in board.files.iterdir()}
    assert contents == {"old": "old words", "new": "", "flushed": "whole"}


def test_a_file_that_is_not_closed_is_closed_by_a_soft_reset(virtual_board, mpremote):
    board = virtual_board(PICO_W)
    mpremote(board, "exec", "f = open('words', 'w'); f.write('all of them')")
    assert (board.files / "words").read_text() == ""
    mpremote(board, "soft-reset")
    assert (board.files / "words").read_text() == "all of them"


def test_files_have_all_modes(virtual_board):
    board = virtual_board(ESP32)
    board.wait_for_output(">>> ")
    with RawRepl(board) as console:
        console.run("with open('a', 'w') as f:\n    print('one', file=f)\n    f.write('two\\n')")
        console.run("with open('a', 'a') as f:\n    f.write('three\\n')")
        console.run("with open('a', 'r+') as f:\n    f.seek(4)\n    f.write('TWO')")
        assert console.run("print(list(open('a')))") == "['one\\n', 'TWO\\n', 'three\\n']\n"
        console.run("import json\nwith open('j', 'w') as f:\n    json.dump({'a': [1, 2]}, f)")
        assert console.run("print(json.load(open('j')), open('a', 'rb').read(3))") == (
            "{'a': [1, 2]} b'one'\n"
        )
        console.run("import os\nos.mkdir('d')\nos.chdir('d')\nopen('../d/e', 'wb').close()")
        assert console.run("print(os.getcwd(), os.listdir(), os.listdir('/'))") == (
            "/d ['e'] ['a', 'boot.py', 'd', 'j']\n"
        )
        console.run("os.rename('e', '/f')\nos.chdir('/')\nos.rmdir('d')\nos.rename('a', 'j')")
        assert console.run("print(os.listdir(), os.stat('j')[6])") == (
            "['boot.py', 'f', 'j'] 14\n"
        )
        for program, error in (
            ("open('x')", "ENOENT"),
            ("open('x', 'r+')", "ENOENT"),
            ("os.remove('x')", "ENOENT"),
            ("os.mkdir('f')", "EEXIST"),
            ("os.stat('x')", "ENOENT"),
        ):
            with pytest.raises(BoardFailed, match=error):
                console.run(program)


def test_a_full_disk_says_enospc_and_keeps_the_old_file(virtual_board, mpremote, tmp_path):
    board = virtual_board(ESP32, disk_bytes=32 * 1024, files={"old": b"old words"})
    board.wait_for_output(">>> ")
    large = tmp_path / "large"
    large.write_bytes(b"x" * 24_000)
    assert "No space left on device" in mpremote(board, "fs", "cp", large, ":old", status=1)
    assert (board.files / "old").read_bytes() == b"old words"
    with RawRepl(board) as console:
        # mpremote has left its file open, with the blocks that it has got.
        console.run("f.close()\nimport os\nfree = os.statvfs('/')[3]")
        with pytest.raises(BoardFailed, match="OSError: 28|ENOSPC"):
            console.run(
                "with open('new', 'wb') as f:\n"
                "    for i in range(free + 1):\n"
                "        f.write(bytes(4096))"
            )
        # There is room for exactly so much, and old and new of one file do not fit together.
        console.run(
            "os.remove('new')\n"
            "with open('new', 'wb') as f:\n    for i in range(free):\n        f.write(bytes(4096))"
        )
        with pytest.raises(BoardFailed, match="OSError: 28|ENOSPC"):
            console.run("open('new2', 'w').write('x')")
        assert console.run("print(os.statvfs('/')[3])") == "0\n"
        console.run("os.remove('new')\nopen('new2', 'w').write('x')")


def test_a_reset_ends_whatever_the_board_does(virtual_board, board_kind):
    board = virtual_board(board_kind, files={"main.py": "print('begun')\nwhile True:\n    pass\n"})
    board.wait_for_output("begun")
    since = len(board.output)
    board.reset_button()
    board.wait_for_output("begun", since=since)
    assert ("rst:0x1 (" in board.output[since:]) == (board_kind == ESP32)


def test_the_usb_of_a_pico_is_away_for_a_moment_and_an_esp32s_port_stays(virtual_board):
    for kind, stays in ((ESP32, True), (PICO_W, False)):
        board = virtual_board(kind)
        board.wait_for_output(">>> ")
        before = os.readlink(board.port)
        fd = os.open(board.port, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        board.reset_button()
        # (It may be back already, as another one: `fd` keeps the old one's name.)
        after = None
        with contextlib.suppress(FileNotFoundError):
            after = os.readlink(board.port)
        assert (after == before) == stays
        try:
            if stays:
                os.write(fd, b"\r")
            else:
                with pytest.raises(OSError):
                    os.write(fd, b"\r")
        finally:
            os.close(fd)
        with RawRepl(board) as console:
            assert console.run("print(1)") == "1\n"


def test_sockets_are_closed_by_a_soft_reset(virtual_board, mpremote):
    board = virtual_board(ESP32)
    board.world.add_network("home")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        mpremote(
            board,
            "exec",
            "import network, socket\n"
            "wlan = network.WLAN()\n"
            "wlan.active(True)\n"
            "wlan.connect('home')\n"
            "while not wlan.isconnected():\n"
            "    pass\n"
            "s = socket.socket()\n"
            "s.connect(socket.getaddrinfo(%r, %d)[0][-1])\n" % listener.getsockname(),
        )
        accepted = listener.accept()[0]
        accepted.settimeout(10)
        mpremote(board, "soft-reset")
        with accepted:
            assert accepted.recv(10) == b""
    # ESP32 leaves Wi-Fi as it was.
    assert mpremote(board, "exec", "import network; print(network.WLAN().isconnected())") == (
        "True\n"
    )


@contextlib.contextmanager
def tls_server(made):
    """A TLS server on loopback that answers one line with the same; its address."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.server.cert_pem_file, made.server.key_pem_file)

    def serve(listener):
        while True:
            try:
                accepted = listener.accept()[0]
            except OSError:
                return  # the end of the test
            with accepted, contextlib.suppress(OSError):
                accepted.settimeout(10)
                with context.wrap_socket(accepted, server_side=True) as stream:
                    stream.sendall(stream.recv(100))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        yield listener.getsockname()
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_tls_verifies_once_the_clock_is_set(virtual_board, tmp_path):
    made = certificates.make(tmp_path)
    board = virtual_board(PICO_W, files={"ca.der": made.ca.cert_der})
    board.world.add_network("home")
    board.wait_for_output(">>> ")
    with tls_server(made) as address, RawRepl(board) as console:
        console.run(
            "import network, ntptime, socket, tls\n"
            "wlan = network.WLAN()\n"
            "wlan.active(True)\n"
            "wlan.connect('home')\n"
            "while not wlan.isconnected():\n"
            "    pass\n"
            "def talk(name='localhost'):\n"
            "    context = tls.SSLContext(tls.PROTOCOL_TLS_CLIENT)\n"
            "    context.verify_mode = tls.CERT_REQUIRED\n"
            "    context.load_verify_locations(open('ca.der', 'rb').read())\n"
            "    s = socket.socket()\n"
            "    s.connect(socket.getaddrinfo(%r, %d)[0][-1])\n"
            "    try:\n"
            "        stream = context.wrap_socket(s, server_hostname=name)\n"
            "        stream.write(b'hello\\n')\n"
            "        print(stream.readline())\n"
            "    finally:\n"
            "        s.close()\n" % address
        )
        with pytest.raises(BoardFailed, match="ValueError: .* starts in the future"):
            console.run("talk()")
        console.run("ntptime.settime()")
        assert console.run("talk()") == "b'hello\\n'\n"
        with pytest.raises(BoardFailed, match="ValueError"):
            console.run("talk('elsewhere')")


def test_nothing_is_left_of_a_board_that_is_switched_off(tmp_path, get_interpreter):
    get_interpreter("MicroPython 32-bit")
    fds = set(os.listdir("/proc/self/fd"))
    threads = threading.active_count()
    with VirtualBoard(tmp_path / "board") as board:
        board.wait_for_output(">>> ")
        pid = board._process.pid
        with pytest.raises(BoardTimeout, match="nothing of the kind"):
            board.wait_for_output("nothing of the kind", timeout_s=0.05)
    assert set(os.listdir("/proc/self/fd")) == fds
    assert threading.active_count() == threads
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_board_dies_with_its_test(tmp_path, get_interpreter):
    get_interpreter("MicroPython 32-bit")
    script = (
        "import sys, time\n"
        "sys.path.insert(0, %r)\n"
        "import virtual_board\n"
        "board = virtual_board.VirtualBoard(%r).__enter__()\n"
        "board.wait_for_output('>>> ')\n"
        "print(board._process.pid, flush=True)\n"
        "time.sleep(60)\n" % (os.path.dirname(__file__), str(tmp_path / "board"))
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as test:
        pid = int(test.stdout.readline())
        test.kill()
    end = threading.Event()
    for _ in range(500):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        end.wait(0.01)
    pytest.fail("process %d still runs" % pid)
