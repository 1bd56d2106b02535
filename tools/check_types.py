"""Check the client and the board files against what MicroPython has on each port.

    python3 tools/check_types.py             both ports
    python3 tools/check_types.py esp32       one: esp32, rp2

mypy reads the annotations, with the stubs of MicroPython's modules for that port in the place of
Python's own library: a call of `machine` or `network` that the port has not, or with arguments
that it does not take, is found without a board. What is checked is what a board runs, so the
bodies of `except ImportError:`, which other interpreters run, are left out. Of the board files
each function is checked, of the client those that have annotations.

Set up, once: mypy in `.venv`, the stubs in `.cache/types/<port>`, where nothing else finds them.
Both come from PyPI, with pip. The exit status is 1 if anything was found.
"""

import argparse
import ast
import hashlib
import pathlib
import shutil
import subprocess
import sys

import setup_env
from commands import exit_with

ROOT = setup_env.ROOT
CACHE = setup_env.CACHE / "types"
REQUIREMENTS = "requirements-types.txt"

# Port: the folder of its boards.
PORTS = {"esp32": "esp32", "rp2": "rp2_pico_w"}

MYPY_TIMEOUT_S = 120

# secrets.py is the example's: a board's own has the same names.
CONFIG = """\
[mypy]
python_version = 3.10
platform = micropython
custom_typeshed_dir = {stubs}
mypy_path = {stubs}:{view}
no_site_packages = True
follow_imports = silent
follow_imports_for_stubs = True
# An attribute that is None until there is something to hold is the rule here.
strict_optional = False
cache_dir = {cache}

[mypy-secrets,station,wifi,wifi_core]
check_untyped_defs = True

[mypy-main,service]
check_untyped_defs = True
# The client's callbacks are None until they are set.
disable_error_code = assignment

[mypy-mqttpipe]
# What is left is what a port may lack: names, attributes, arguments. The rest is inference that
# starts from a None, or from a parameter that serves twice (index, operator). And call-overload:
# the stub of Timer wants the identifier, which rp2 does without (machine_timer_make_new() in
# extmod/machine_timer.c).
disable_error_code = assignment, call-overload, index, misc, operator, var-annotated

# How the client tells the ports with lwip from the others; and what CPython has in place of both.
[mypy-lwip,mqttpipe_host]
ignore_missing_imports = True
"""


class CheckError(Exception):
    """Why nothing can be checked, in one line."""


def say(text):
    print("check_types: " + text, flush=True)


# ---------------------------------------------------------------------------
# Set-up
# ---------------------------------------------------------------------------


def ensure_packages(name, requirement_file, *options):
    """Install packages into `.cache/types/<name>`, apart from everything; return that folder.

    Args:
        requirement_file: a file of tools/. options: more arguments of pip install.

    Raises:
        SetupError: they can't be had; the message says why.
    """
    requirement_file = setup_env.TOOLS / requirement_file
    folder = CACHE / name
    stamp = CACHE / ("stamp-" + name)
    wanted = hashlib.sha256(requirement_file.read_bytes()).hexdigest()
    if folder.is_dir() and stamp.exists() and stamp.read_text() == wanted:
        return folder
    with setup_env.one_at_a_time(setup_env.CACHE / "setup.lock"):
        say("installing %s" % requirement_file.name)
        shutil.rmtree(folder, ignore_errors=True)
        setup_env.run(
            [sys.executable, "-m", "pip", "install", "--target", folder, "--no-deps", *options]
            + ["-r", requirement_file],
            setup_env.PIP_TIMEOUT_S,
            env={"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"},
        )
        stamp.write_text(wanted)
    return folder


# ---------------------------------------------------------------------------
# What a board runs
# ---------------------------------------------------------------------------


def board_view(text):
    """Return a file's text with `raise` for the body of each `except ImportError:`.

    Every line keeps its number.
    """
    lines = text.splitlines()

    def strip(node):
        if isinstance(node, ast.ExceptHandler) and getattr(node.type, "id", "") == "ImportError":
            lines[node.lineno : node.body[-1].end_lineno] = [
                " " * node.body[0].col_offset + "raise",
                *[""] * (node.body[-1].end_lineno - node.lineno - 1),
            ]
            return
        for child in ast.iter_child_nodes(node):
            strip(child)

    strip(ast.parse(text))
    return "\n".join(lines) + "\n"


def sources(port):
    """Return name -> path of the files that are on a board of this port."""
    folder = ROOT / "boards" / PORTS[port]
    paths = [ROOT / "micropython" / "mqttpipe.py", *(ROOT / "boards" / "common").glob("*.py")]
    found = {path.name: path for path in [*paths, *folder.glob("*.py")]}
    found["secrets.py"] = ROOT / "boards" / "secrets_example.py"
    return found


def check(port):
    """Check one port; return mypy's lines, with the paths of the project's files."""
    stubs = ensure_packages(port, "requirements-types-%s.txt" % port)
    view = CACHE / ("view-" + port)
    shutil.rmtree(view, ignore_errors=True)
    view.mkdir()
    found = sources(port)
    for name, path in found.items():
        (view / name).write_text(board_view(path.read_text(encoding="utf-8")), encoding="utf-8")
    config = CACHE / (port + ".ini")
    config.write_text(CONFIG.format(stubs=stubs, view=view, cache=CACHE / ("mypy-" + port)))
    ran = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", config, "--no-error-summary"]
        + [view / name for name in sorted(found)],
        cwd=view,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=MYPY_TIMEOUT_S,
        text=True,
    )
    if ran.returncode not in (0, 1):
        raise CheckError("mypy fails: %s" % setup_env.last_words(ran.stdout))
    lines = []
    for line in ran.stdout.splitlines():
        name, colon, rest = line.partition(":")
        path = found.get(pathlib.Path(name).name)
        shown = path.as_posix() if path else name
        if path and ROOT in path.parents:
            shown = path.relative_to(ROOT).as_posix()
        lines.append(shown + colon + rest)
    return lines


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("port", nargs="*", help="esp32, rp2 (default: both)")
    ports = parser.parse_args(arguments).port or list(PORTS)
    if set(ports) - set(PORTS):
        parser.error("there are %s" % " and ".join(PORTS))
    setup_env.reexec_in_venv(REQUIREMENTS)
    status = 0
    try:
        for port in ports:
            lines = check(port)
            for line in lines:
                print("%s, %s" % (port, line))
            errors = sum(": error:" in line for line in lines)
            say("%s: %d errors in %d files" % (port, errors, len(sources(port))))
            status |= bool(lines)
    except (CheckError, setup_env.SetupError) as error:
        say("failed: %s" % error)
        return 1
    return status


if __name__ == "__main__":
    exit_with(main)
