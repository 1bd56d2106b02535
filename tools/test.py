"""Set up everything the tests need, check the style, run all tests.

    python3 tools/test.py                          everything
    python3 tools/test.py tests/host -k pipe       arguments that are not below go to pytest
    python3 tools/test.py --broker=docker          which broker: auto, docker, mosquitto or a URI
    python3 tools/test.py --no-lint                leave out ruff
    python3 tools/test.py --no-broker              leave out the tests that need a broker
    python3 tools/test.py --no-micropython         leave out the tests in real MicroPython
    python3 tools/test.py --no-lwip                leave out the tests on the emulated board
    python3 tools/test.py --micropython=PATH       a unix port to take for the one of its width
    python3 tools/test.py --no-esp32-sockets       leave out those on the ESP32's sockets

    python3 tools/test.py --long FILE              the long forms, too; hours without a FILE

The long forms are:

    tests/broker/test_chaos_tool.py        minutes of every fault of a network (tools/chaos.py)
    tests/broker/test_soak.py              a client's months, in minutes (tools/soak.py)
    tests/broker/test_load.py              2,000 clients, cut at once (tools/load.py)
    tests/host/test_fuzz.py                1,000,000 streams of bytes (tools/fuzz.py)
    tests/host/test_model_check.py         100,000 lives of a client and a model of a server
    tests/host/test_threads_with_policies.py   80,000 messages of threads, for each policy
    tests/broker/test_threads.py           8 threads publish 10,000 messages each
    tests/broker/test_leaks.py             1,000 connections of each kind, and nothing left of them
    tests/broker/test_failing_calls.py     every call of the system fails, not every n-th
    tests/broker/test_idle.py              an idle client is looked at for a minute
    tests/broker/test_other_brokers.py     RabbitMQ, ActiveMQ, aedes and amqtt
    tests/broker/test_mqtt5_at_rabbitmq.py MQTT 5.0 at RabbitMQ 4
    tests/broker                           with what is slow as an ESP32, an rp2, on its sockets
    tests/host/test_measure_size.py        what each switch and part of the file costs, too
    tests/host/test_build.py               each two switches; each profile as source
    tests/host/test_stall_matrix.py        the short matrix in 64-bit MicroPython, too
    tests/host/test_full_heap_levels.py    the heap is filled to every level, in steps of 8 bytes
    tests/host/test_interrupted_steps.py   Ctrl-C each time that a line runs
    tests/board/test_examples_home_assistant.py   Home Assistant's own keys, a download of 68 MB
    tests/lwip/test_portable_on_lwip.py    each profile, and the tests that take minutes there
    tests/test_portable.py                 each failing call, and each personality, everywhere

Set up, once: `.venv` with pytest and the like (tools/setup_env.py), for all tests with what each
tool needs, MicroPython 64-bit, 32-bit and
Debian's newest in `.cache` (tools/get_micropython.py), beside them one with the ESP32's sockets
and the emulated board (tools/get_esp32_sockets.py, tools/get_lwip_board.py: minutes), and
mosquitto unless docker has one (tests/servers.py).
The exit status is pytest's, or 1 if the style check failed: then the tests do not run.
"""

import argparse
import compileall
import os
import subprocess
import sys
import threading

import get_esp32_sockets
import get_lwip_board
import get_micropython
import setup_env

LINTED = ("micropython", "cpython_shim", "boards", "tests", "tools")
LINT_TIMEOUT_S = 60
IMPORTED = ("micropython", "cpython_shim", "tests", "tools")

# Options that are conftest.py's as well, and what each leaves out.
LEFT_OUT = {
    "--no-micropython": "in real MicroPython",
    "--no-lwip": "on the emulated board",
    "--no-esp32-sockets": "on the ESP32's sockets",
    "--no-broker": "that need a broker",
}

# All tests run in several processes, a file in one of them, as some files have costly fixtures of
# their own: but for the long ones, which begin first: see tests/workers.py.
SIDE_BY_SIDE = ["--dist=loadfile", "--no-loadscope-reorder"]
# Most of a test's time is waiting: for a network, an emulated board, a pause that is tested.
WORKERS_PER_PROCESSOR = 3
WORKERS_MAX = 6


# What the tools that all tests start would install first thing, each by itself. A test that gives
# one a time-out, on a busy machine, would kill pip half way, and the next tool would make the
# environment anew, below all tests that run.
FOR_ALL_TESTS = (
    "build bench chaos demo deploy measure mutate package pages release stall-matrix types".split()
)


def say(text):
    print("test: " + text, flush=True)


def install_for_tools():
    for name in FOR_ALL_TESTS:
        try:
            setup_env.ensure_venv("requirements-%s.txt" % name)
        except setup_env.SetupError as error:
            say(str(error))


def compile_modules():
    """Keep the bytecode of all that the programs import which the tests start by the thousand.

    Python does that by itself, but not with PYTHONDONTWRITEBYTECODE set: then each of them would
    compile the client first, in an eighth of a second.
    """
    for folder in IMPORTED:
        compileall.compile_dir(setup_env.ROOT / folder, quiet=2)


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


def parse_arguments(arguments):
    """Return the options that are known here, and the arguments for pytest, a list."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s [option ...] [argument of pytest ...]",
        allow_abbrev=False,
    )
    hidden = {"help": argparse.SUPPRESS}  # the text above has it
    parser.add_argument("--no-lint", action="store_true", **hidden)
    for name in LEFT_OUT:
        parser.add_argument(
            name, action="append_const", const=name, dest="left_out", default=[], **hidden
        )
    options, others = parser.parse_known_args(arguments)
    return options, options.left_out + [absolute_path(argument) for argument in others]


def main(arguments):
    options, for_pytest = parse_arguments(arguments)
    setup_env.reexec_in_venv("requirements-test.txt")

    is_whole = all(argument.startswith("--") for argument in for_pytest)
    # What can't be had says why; the tests that need it fail then.
    installing = threading.Thread(target=install_for_tools)
    if is_whole:
        installing.start()  # while the board below is compiled
    if "--no-micropython" not in options.left_out:
        for bits in get_micropython.BITS:
            get_micropython.ensure(bits)
        get_micropython.ensure(64, "sid")
    if "--no-lwip" not in options.left_out:
        get_lwip_board.ensure()
    if not {"--no-micropython", "--no-esp32-sockets"} & set(options.left_out):
        get_esp32_sockets.ensure()
    if is_whole:
        installing.join()
    for name in options.left_out:
        say("%s: the tests %s are LEFT OUT" % (name, LEFT_OUT[name]))
    if options.no_lint:
        say("--no-lint: the style check is LEFT OUT")
    elif not check_style():
        say("the tests did not run; repair that, or give --no-lint")
        return 1

    compile_modules()
    processors = os.cpu_count() or 1
    workers = min(processors * WORKERS_PER_PROCESSOR, WORKERS_MAX)
    if processors > 1 and is_whole:
        for_pytest = [*SIDE_BY_SIDE, "-n%d" % workers, *for_pytest]
    os.chdir(setup_env.ROOT)
    sys.stdout.flush()
    # In the place of this process: status, Ctrl-C and the last line are pytest's own.
    os.execv(sys.executable, [sys.executable, "-m", "pytest", *for_pytest])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
