"""Set up everything the tests need, check the style, run all tests.

    python3 tools/test.py                          everything
    python3 tools/test.py tests/host -k pipe       arguments that are not below go to pytest
    python3 tools/test.py --broker=docker          which broker: auto, docker, mosquitto or a URI
    python3 tools/test.py --brokers=all            those with RabbitMQ, ActiveMQ, aedes, amqtt, too
    python3 tools/test.py --no-lint                leave out ruff
    python3 tools/test.py --no-broker              leave out the tests that need a broker
    python3 tools/test.py --no-micropython         leave out the tests in real MicroPython
    python3 tools/test.py --no-lwip                leave out the tests on the emulated board
    python3 tools/test.py --micropython=PATH       a unix port to take for the one of its width
    python3 tools/test.py --no-esp32-sockets       leave out those on the ESP32's sockets

More of what takes minutes, each for one file of tests as well as for all:

    --all-personalities    also what is slow in CPython as an ESP32, as an rp2, ..., on the
                           ESP32's sockets
    --long-chaos           a chaos of cut connections that goes on for longer
    --long-threads         8 threads publish 10,000 messages each, on 32 bits as well
    --long-leaks           1,000 connections of each kind, and nothing left of them
    --long-lwip            on the emulated board, the portable tests that take minutes as well
    --every-call           let every call of the system fail, not every n-th
    --every-level          fill the heap to every level, in steps of 8 bytes, not to some
    --idle-s=60            look that many seconds at how much an idle client takes

Set up, once: `.venv` with pytest and the like (tools/setup_env.py), MicroPython 64-bit, 32-bit and
Debian's newest in `.cache` (tools/get_micropython.py), beside them one with the ESP32's sockets
and the emulated board (tools/get_esp32_sockets.py, tools/get_lwip_board.py: minutes), and
mosquitto unless docker has one (tests/servers.py).
The exit status is pytest's, or 1 if the style check failed: then the tests do not run.
"""

import contextlib
import os
import subprocess
import sys
import tempfile

import get_esp32_sockets
import get_lwip_board
import get_micropython
import setup_env

LINTED = ("micropython", "cpython_shim", "boards", "tests", "tools")
LINT_TIMEOUT_S = 60

# So divided that all take about as long.
MOVED = "tests/host/test_stall_matrix.py"
PARTS = (
    ("tests/broker", "tests/test_portable.py", MOVED),
    ("tests/host", "tests/board", "tests/lwip", "--ignore=" + MOVED),
)
NO_TESTS = 5  # pytest's status if an option such as -k has left none


def say(text):
    print("test: " + text, flush=True)


def check_style():
    """Run ruff's two checks; return whether both are content."""
    folders = [folder for folder in LINTED if (setup_env.ROOT / folder).is_dir()]
    content = True
    for command in (["check", "--quiet"], ["format", "--check", "--quiet"]):
        ran = subprocess.run(
            [sys.executable, "-m", "ruff", *command, *folders],
            cwd=setup_env.ROOT,
            timeout=LINT_TIMEOUT_S,
        )
        if ran.returncode != 0:
            say("failed: ruff " + " ".join(command[:1]))
            content = False
    return content


def absolute_path(argument):
    """Return an argument with its path made absolute, as pytest starts in the project's folder."""
    path, colons, test = argument.partition("::")
    option, equals, program = argument.partition("=")
    if option == "--micropython" and equals:
        return option + equals + os.path.abspath(program)
    looks_like_path = path.endswith(".py") or os.sep in path
    if looks_like_path and not path.startswith("-") and os.path.exists(path):
        return os.path.abspath(path) + colons + test
    return argument


def run_side_by_side(options):
    """Run all tests, in parts beside each other; return the exit status.

    Most of their time is waiting: for deadlines, for brokers, for other processes.
    """
    command = [sys.executable, "-m", "pytest", *options]
    say("%d parts run beside each other; those after the first are shown at the end" % len(PARTS))
    sys.stdout.flush()
    with contextlib.ExitStack() as stack:
        outputs = [None] + [stack.enter_context(tempfile.TemporaryFile()) for _ in PARTS[1:]]
        processes = [
            subprocess.Popen([*command, *part], stdout=output, stderr=output)
            for part, output in zip(PARTS, outputs)
        ]
        try:
            statuses = [process.wait() for process in processes]
        except KeyboardInterrupt:  # the terminal has sent it to them as well
            statuses = [process.wait() for process in processes]
        for output in outputs[1:]:
            output.seek(0)
            sys.stdout.buffer.write(output.read())
    sys.stdout.flush()
    for part, status in zip(PARTS, statuses):
        say("%s: pytest's status %d" % (" ".join(part), status))
    return max(0 if status == NO_TESTS else abs(status) for status in statuses)


def main(arguments):
    if "-h" in arguments or "--help" in arguments:
        print(__doc__.strip())
        return 0
    setup_env.reexec_in_venv("requirements-test.txt")

    if "--no-micropython" in arguments:
        say("--no-micropython: the tests in real MicroPython are LEFT OUT")
    else:
        for bits in get_micropython.BITS:
            get_micropython.ensure(bits)  # says why not; the tests that need it fail then
        get_micropython.ensure(64, "sid")
    if "--no-lwip" in arguments:
        say("--no-lwip: the tests on the emulated board are LEFT OUT")
    else:
        get_lwip_board.ensure()  # says why not; the tests that need it fail then
    if {"--no-micropython", "--no-esp32-sockets"} & set(arguments):
        say("--no-esp32-sockets: the tests on the ESP32's sockets are LEFT OUT")
    else:
        get_esp32_sockets.ensure()  # the same
    if "--no-broker" in arguments:
        say("--no-broker: the tests that need a broker are LEFT OUT")
    if "--no-lint" in arguments:
        say("--no-lint: the style check is LEFT OUT")
    elif not check_style():
        say("the tests did not run; repair that, or give --no-lint")
        return 1

    for_pytest = [absolute_path(argument) for argument in arguments if argument != "--no-lint"]
    os.chdir(setup_env.ROOT)
    sys.stdout.flush()
    if all(argument.startswith("--") for argument in for_pytest):
        return run_side_by_side(for_pytest)
    # In the place of this process: status, Ctrl-C and the last line are pytest's own.
    os.execv(sys.executable, [sys.executable, "-m", "pytest", *for_pytest])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
