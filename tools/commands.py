"""The command `mqttpipe`, which `pip install mqttpipe` brings: it starts the other tools.

    mqttpipe sub -h broker.example -t 'lamp/#' -v     python3 tools/mqtt.py sub ...
    mqttpipe board deploy --port /dev/ttyUSB0         python3 tools/deploy.py --port ...
    mqttpipe --help                                   all of them
    mqttpipe --version

On the left without a checkout, on the right in one; it is the same code. For the tools: said()
and argument_parser() have what is printed name the commands that are there, put() prints it, and
exit_with() is how one ends.
"""

import argparse
import contextlib
import errno
import os
import re
import runpy
import sys

import setup_env

# The words of a command: the tool, what goes before the arguments, what it does.
COMMANDS = {
    "pub": ("mqtt.py", ["pub"], "publish: what mosquitto_pub does, and its options"),
    "sub": ("mqtt.py", ["sub"], "subscribe: what mosquitto_sub does"),
    "shell": ("mqtt.py", ["shell"], "a prompt; messages appear while you type"),
    "board deploy": ("deploy.py", [], "put the client and a program on a board"),
    "board doctor": ("deploy.py", ["--doctor"], "look at a board: memory, Wi-Fi, server, clock"),
    "board repl": ("repl.py", [], "the REPL of a board, for MQTT by hand"),
    "board report": ("board_report.py", [], "print how a board has fared, for a report"),
    "board emulate": ("emulated_board.py", [], "start a board in QEMU (Debian)"),
}

# Tool: how it is called where there is no checkout.
NAMES = {
    tool: "mqttpipe" if tool == "mqtt.py" else "mqttpipe " + words
    for words, (tool, before, _) in COMMANDS.items()
    if not before or tool == "mqtt.py"
}


def said(text):
    """Return a text of a tool with the commands and folders as they are here.

    In a checkout that is the text itself. Installed by pip, `python3 tools/deploy.py` is
    `mqttpipe board deploy`, and what is yours lies in the folder in which you are.
    """
    if setup_env.IS_CHECKOUT:
        return text
    text = re.sub(r"python3 tools/(\w+\.py)", lambda found: NAMES.get(found[1], found[0]), text)
    # Not in a path, which may have a folder of that name.
    text = re.sub(r"(?<![\w/\\-])boards/secrets\.py", "secrets.py", text)
    example = str(setup_env.ROOT / "boards" / "secrets_example.py")
    text = re.sub(r"(?<![\w/\\-])boards/secrets_example\.py", lambda _: example, text)
    text = text.replace("Set up, once: `.venv`", "Set up, once, without mqttpipe[board]: `.venv`")
    return text.replace("`.venv`", str(setup_env.VENV)).replace(" (tools/setup_env.py)", "")


def name_of(tool):
    """Return what a tool is called: "deploy.py", or "mqttpipe board deploy" without a checkout."""
    return tool if setup_env.IS_CHECKOUT else NAMES.get(tool, tool)


def put(text, end="\n", file=None):
    """Print a text, at once; return whether it was printed. Raises nothing for the screen.

    What it shows is not the work: a reader that has gone (`| head`) or a full disk behind `>`
    neither ends that nor is taken for an error of it. A full disk is told on stderr, once. What
    the encoding of the screen lacks is escaped.

    Args:
        file: None: sys.stdout, which may be None itself: whoever has started us has closed it.
    """
    file = file or sys.stdout
    if file is None:
        return False
    encoding = getattr(file, "encoding", None) or "utf-8"
    try:
        print(
            text.encode(encoding, "backslashreplace").decode(encoding),
            end=end,
            file=file,
            flush=True,
        )
        return True
    except OSError as error:
        # From here on it goes nowhere, with what is left in the buffer, also when Python ends.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), file.fileno())
        if error.errno != errno.EPIPE and file is not sys.stderr:
            put("what is printed can't be written: %s" % error.strerror, file=sys.stderr)
        return False


def exit_with(main):
    """Exit with the status that a tool's main() returns; at Ctrl-C in a word, with the shell's."""
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        tool = os.path.splitext(os.path.basename(sys.argv[0]))[0]
        put(tool + ": stopped", file=sys.stderr)
        sys.exit(130)


def argument_parser(doc):
    """Return the ArgumentParser of the tool that was started; its help begins with `doc`."""
    return _Parser(
        prog=name_of(os.path.basename(sys.argv[0])),
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


class _Parser(argparse.ArgumentParser):
    def format_help(self):
        return said(super().format_help())


def version():
    sys.path.append(str(setup_env.ROOT / "cpython_shim"))
    sys.path.append(str(setup_env.ROOT / "micropython"))
    import mqttpipe

    return mqttpipe.__version__


def usage():
    lines = ["usage: mqttpipe COMMAND [option ...]", ""]
    lines += ["  mqttpipe %-15s %s" % (words, about) for words, (_, _, about) in COMMANDS.items()]
    lines += ["", "`mqttpipe COMMAND --help` has the options; `mqttpipe --version` the version."]
    return "\n".join(lines)


def main(words):
    """Run the command that `words` begin with; return the exit status, or exit."""
    asked = words[1:] if words[:1] == ["board"] else words
    if not words or asked[:1] in (["-h"], ["--help"], ["help"]):
        put(usage())
        return 0 if words else 2
    if words == ["--version"]:
        put("mqttpipe " + version())
        return 0
    for length in (1, 2):
        command = " ".join(words[:length])
        if command in COMMANDS:
            tool, before, _ = COMMANDS[command]
            # As if it had been started itself: it may start again, under another python.
            sys.argv = [str(setup_env.TOOLS / tool), *before, *words[length:]]
            runpy.run_path(sys.argv[0], run_name="__main__")
            return 0
    typed = " ".join(words[: 2 if words[0] == "board" else 1])
    if "board " + typed in COMMANDS:
        known = "mqttpipe board %s is meant?" % typed
    else:
        known = "there are " + ", ".join(COMMANDS)
    put("mqttpipe: no command '%s': %s" % (typed, known), file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
