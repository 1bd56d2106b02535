"""The emulated board itself: what the other tests on it rely on."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time

import pytest

import build
import emulated_board
import setup_env
from emulated_board import HOST, Board, BoardError

WAIT_S = 20

CONNECT = (
    """
import socket, time
def connect(port):
    s = socket.socket()
    start = time.ticks_ms()
    s.connect((%r, port))
    return s, time.ticks_diff(time.ticks_ms(), start)
"""
    % HOST
)


@contextlib.contextmanager
def echo_server():
    """Yield the port of a server that sends back what it gets, to one connection after another."""
    listener = socket.create_server(("127.0.0.1", 0))
    connections = []

    def serve():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connections.append(connection)
            with connection, contextlib.suppress(OSError):
                connection.settimeout(WAIT_S)
                while data := connection.recv(65536):
                    connection.sendall(data)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        for sock in (*connections, listener):
            with contextlib.suppress(OSError):  # it is closed
                sock.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(WAIT_S)


def test_it_is_micropython_on_lwip_with_the_heap_of_a_pico_w(board):
    printed = board.run(
        "import sys, gc, lwip\nprint(sys.platform, gc.mem_free() + gc.mem_alloc())"
    )
    platform, heap = printed.split()
    assert platform == "rp2" and 180_000 < int(heap) <= 192_512


def test_what_a_program_prints_comes_back_and_what_it_raises_is_a_board_error(board):
    assert board.run("print('one')\nprint('two')") == "one\ntwo\n"
    assert board.evaluate("1 << 40") == 1 << 40
    with pytest.raises(BoardError, match="ZeroDivisionError"):
        board.run("1 / 0")
    long_program = "x = 0\n" + "x += 1\n" * 1000 + "print(x)"
    assert board.run(long_program) == "1000\n"


def test_a_program_that_does_not_end_is_stopped_at_the_deadline(board):
    with pytest.raises(BoardError, match="within 0.2 s, but: still"):
        board.run("print('still')\nwhile True: pass", timeout_s=0.2)
    board.enter_raw_repl()
    assert board.evaluate("1 + 1") == 2


def test_files_go_there_and_back(board):
    data = os.urandom(30_000)
    board.put("/data", data)
    assert board.get("/data") == data


def test_flash_outlives_a_reset_and_the_end_of_the_power(make_board, tmp_path):
    first = make_board(flash=tmp_path / "flash")
    first.put("/kept", b"yes")
    first.reset_button()
    first.enter_raw_repl()
    assert first.get("/kept") == b"yes"
    first.run("import machine")
    first.start("machine.reset()")
    first.enter_raw_repl()
    assert first.get("/kept") == b"yes"
    first.close()
    assert make_board(flash=tmp_path / "flash").get("/kept") == b"yes"
    assert make_board().evaluate("__import__('os').listdir('/')") == []


def test_a_flash_is_its_owner_s_alone(make_board, tmp_path):
    """It holds secrets.py: a password and a key."""
    flash = tmp_path / "flash"
    make_board(flash=flash)
    assert flash.stat().st_mode & 0o777 == 0o600


def test_a_board_has_the_room_for_its_files_from_the_start(make_board, monkeypatch, tmp_path):
    """Both this program and QEMU ended with SIGBUS, where the disk became full under them."""
    make_board(flash=tmp_path / "flash")
    assert (tmp_path / "flash").stat().st_blocks * 512 >= emulated_board.PSRAM_BYTES

    def fill_up(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(emulated_board.os, "posix_fallocate", fill_up)
    monkeypatch.setattr(emulated_board.tempfile, "tempdir", str(tmp_path))
    for flash in (tmp_path / "other", None):
        with pytest.raises(BoardError, match="can't write .*: No space left on device"):
            make_board(flash=flash)
    assert not list(tmp_path.glob("mqttpipe-board-*"))


def test_a_flash_is_of_one_board_at_a_time(make_board, tmp_path):
    first = make_board(flash=tmp_path / "flash")
    with pytest.raises(BoardError, match="another board has"):
        make_board(flash=tmp_path / "flash")
    first.put("/kept", b"yes")
    first.close()
    assert make_board(flash=tmp_path / "flash").get("/kept") == b"yes"


def test_a_file_that_is_no_board_s_flash_is_left_alone(tmp_path):
    program = tmp_path / "main.py"
    program.write_text("print('mine')\n")
    for path in (program, tmp_path, tmp_path / "no" / "flash", "/dev/null"):
        tool = [sys.executable, emulated_board.__file__, "--flash", str(path)]
        ran = subprocess.run(tool, stdout=subprocess.PIPE, text=True, timeout=WAIT_S)
        assert ran.returncode == 1
        assert ran.stdout.startswith("board: failed: ") and str(path) in ran.stdout
    assert program.read_text() == "print('mine')\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_where_nothing_can_be_printed_it_does_its_work_and_says_why(firmware, tmp_path):
    tool = [sys.executable, emulated_board.__file__, "--flash", str(tmp_path)]
    with open("/dev/full", "w") as full:
        ran = subprocess.run(tool, stdout=full, stderr=subprocess.PIPE, text=True, timeout=WAIT_S)
    told = "what is printed can't be written: No space left on device\n"
    assert (ran.returncode, ran.stderr) == (1, told)


def test_modules_in_a_romfs_are_found(make_board, tmp_path, compile_mpy):
    (tmp_path / "in_rom.py").write_text("answer = 42\n")
    compile_mpy(tmp_path / "in_rom.py", tmp_path / "in_rom.mpy")
    image = tmp_path / "image"
    image.write_bytes(build.make_romfs((tmp_path / "in_rom.mpy").read_bytes()))
    board = make_board(romfs=image)
    assert board.run("import mqttpipe as module\nprint(module.answer, module.__file__)") == (
        "42 /rom/mqttpipe.mpy\n"
    )


def test_boards_side_by_side_are_different_boards(make_board):
    boards = [make_board() for _ in range(3)]
    ids = {board.evaluate("__import__('machine').unique_id()") for board in boards}
    assert len(ids) == 3
    with echo_server() as port:
        for number, board in enumerate(boards):
            board.go_online()
            board.run(CONNECT)
            board.run("s, _ = connect(%d)\ns.write(b'%d')" % (port, number))
            assert board.evaluate("s.read(1)") == b"%d" % number
            board.run("s.close()")


def test_a_cable_that_is_pulled_is_seen_unless_nobody_looks(board):
    board.go_online()
    board.pull_cable()
    board.run("while lan.isconnected(): time.sleep_ms(10)", WAIT_S)
    board.plug_cable()
    board.run("while not lan.isconnected(): time.sleep_ms(10)", WAIT_S)
    board.run("lan.config(watch_phy=False)")
    board.pull_cable()
    with echo_server() as port:
        board.run(CONNECT)
        assert board.evaluate("lan.isconnected()") is True
        board.run("s = socket.socket()\ns.settimeout(0.5)")
        with pytest.raises(BoardError, match="ETIMEDOUT"):
            board.run("s.connect((%r, %d))" % (HOST, port))


def test_frames_are_held_back_for_as_long_as_asked(make_board):
    board = make_board(clock="steady")
    board.go_online()
    board.run(CONNECT)
    with echo_server() as port:
        assert int(board.run("s, took_ms = connect(%d)\ns.close()\nprint(took_ms)" % port)) < 400
        board.delay_frames(400)
        assert int(board.run("s, took_ms = connect(%d)\nprint(took_ms)" % port)) >= 400
        board.delay_frames(0)
        assert board.evaluate("s.write(b'echo'), s.read(4)") == (4, b"echo")


def test_lost_frames_are_counted_and_tcp_gets_over_them(make_board):
    board = make_board(clock="steady")
    board.go_online()
    board.run(CONNECT)
    with echo_server() as port:
        board.run("s, _ = connect(%d)\nlan.config(lose=10)" % port)
        code = (
            "n = 0\nfor i in range(10):\n s.write(bytes(1000))\n n += len(s.read(1000))\nprint(n)"
        )
        assert board.run(code) == "10000\n"
        assert board.evaluate("lan.config('frames')[2]") > 0


def test_with_a_steady_clock_the_same_work_takes_the_same_time(make_board):
    code = (
        "import time\nstart = time.ticks_us()\nfor i in range(20000): pass\n"
        "print(time.ticks_diff(time.ticks_us(), start))"
    )
    boards = [make_board(clock="steady") for _ in range(2)]
    first, second = (int(board.run(code)) for board in boards)
    assert abs(first - second) <= first // 100, "interrupts alone make no more than that"


def test_with_a_jumping_clock_a_minute_passes_in_a_moment(make_board):
    board = make_board(clock="jump")
    code = (
        "import time\nstart = time.ticks_ms()\ntime.sleep(60)\n"
        "print(time.ticks_diff(time.ticks_ms(), start))"
    )
    assert 60_000 <= int(board.run(code, timeout_s=30)) < 61_000


def test_no_time_passes_while_it_is_paused(board):
    board.run("import time\nstart = time.ticks_ms()")
    board.pause()
    threading.Event().wait(0.5)
    board.go_on()
    first = board.evaluate("time.ticks_diff(time.ticks_ms(), start)")
    threading.Event().wait(0.5)
    second = board.evaluate("time.ticks_diff(time.ticks_ms(), start)")
    assert second >= first + 500


def test_a_timer_calls_between_steps_of_the_program_and_a_hard_one_in_the_interrupt(board):
    board.run("""
import machine, time
soft = []
hard = [0, None]
def in_interrupt(timer):
    hard[0] += 1
    try:
        bytes(100)
        hard[1] = "there is a heap"
    except MemoryError:
        hard[1] = "the heap is locked"
one = machine.Timer(period=5, callback=lambda timer: soft.append(bytes(100)))
two = machine.Timer(period=5, callback=in_interrupt, hard=True)
time.sleep_ms(100)
one.deinit()
two.deinit()
""")
    soft, hard = board.evaluate("(len(soft), hard)")
    assert soft > 3 and hard[0] > 3 and hard[1] == "the heap is locked"
    board.run("time.sleep_ms(50)")
    assert board.evaluate("(len(soft), hard)") == (soft, hard), "they were ended"


def test_a_timer_whose_callback_raises_is_ended_and_told(board):
    printed = board.run("""
import machine, time
timer = machine.Timer(period=5, callback=lambda timer: 1 / 0, hard=True)
time.sleep_ms(50)
""")
    assert printed.count("ZeroDivisionError") == 1


def test_the_clock_is_the_host_s_and_can_be_set(board):
    board.run("import machine, time\nclock = machine.RTC()")
    assert board.evaluate("time.gmtime()[0]") >= 2025
    board.run("clock.datetime((2031, 2, 3, 0, 4, 5, 6, 0))")
    assert board.evaluate("time.gmtime()[:5]") == (2031, 2, 3, 4, 5)


def test_after_a_reset_the_clock_is_the_host_s_again(board):
    """Else a certificate that was made while the board was on is of the future."""
    board.run("import machine\nmachine.RTC().datetime((2021, 2, 3, 0, 4, 5, 6, 0))")
    board.start("machine.reset()")
    board.watch(WAIT_S)
    board.enter_raw_repl()
    assert board.evaluate("__import__('time').gmtime()[0]") >= 2025


def test_after_a_reset_random_numbers_are_others(board):
    """Else its first connection has the port of the last one, for which QEMU keeps the old."""
    seen = set()
    for _ in range(3):
        seen.add(board.evaluate("__import__('os').urandom(8)"))
        board.watch(0)
        board.run("import machine")
        board.start("machine.reset()")
        board.enter_raw_repl()
    assert len(seen) == 3


def test_a_watchdog_that_is_not_fed_resets_the_board(board):
    board.put("/boot.py", b"print('started')")
    board.run("import machine, time\nbefore = 1\ndog = machine.WDT(timeout=300)")
    board.run("for i in range(10):\n time.sleep_ms(50)\n dog.feed()")
    assert "started" not in board.output()
    board.start("while True: pass")
    board.read_until(b"started", WAIT_S)
    board.enter_raw_repl()
    assert board.evaluate("'before' in globals()") is False


def test_there_is_one_thread_and_locks_are_real(board):
    board.run("import _thread\nlock = _thread.allocate_lock()")
    assert board.evaluate("lock.acquire(), lock.acquire(False), lock.release()") == (
        True,
        False,
        None,
    )
    with pytest.raises(BoardError, match="OSError"):
        board.run("_thread.start_new_thread(print, ())")


STARTS_A_BOARD = """\
import sys, time
sys.path.insert(0, %r)
from emulated_board import Board
board = Board(%r)
print(board._process.pid, flush=True)
time.sleep(600)
"""


def test_a_program_that_is_killed_leaves_no_board_behind(firmware):
    """It would keep a processor busy for ever."""
    if not setup_env.dying_with_us([]):
        pytest.skip("no setpriv that knows --pdeathsig")
    code = STARTS_A_BOARD % (os.path.dirname(emulated_board.__file__), str(firmware))
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        board = int(program.stdout.readline())
        program.kill()
    deadline_s = time.monotonic() + WAIT_S
    while is_running(board):
        assert time.monotonic() < deadline_s
        time.sleep(0.1)


def is_running(pid):
    """False also for one that has ended, and that nobody has asked for its status."""
    try:
        with open("/proc/%d/stat" % pid) as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_board_without_firmware_is_told(tmp_path, firmware):
    with pytest.raises(BoardError, match="QEMU does not (start|answer): .*none.elf"):
        Board(tmp_path / "none.elf")
