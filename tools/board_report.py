"""Print how a board with mqttpipe has fared, as Markdown for a report "it ran on my board".

    python3 tools/board_report.py                        the board that is plugged in
    python3 tools/board_report.py --port /dev/ttyUSB0    this one

Board, firmware, the client's version and profile, hours up, connections, what the client has
counted (profile full), memory. The board has to run the main.py of boards/, or a program with a
Station (boards/common/station.py), which counts the hours; of another program only what its client
tells is known.

- The program is stopped for this, and the board reset at the end: it begins to count anew. So let
  it run as long as you want to report, and do this last.
- Nothing of secrets.py is read, and neither the names of Wi-Fi, server and user nor an address is
  in what is printed. What a board says is not trusted: it does nothing to the terminal, nor to the
  page that it is pasted into.

Set up, once: `.venv` with mpremote (tools/setup_env.py). The exit status is 1 if there is nothing
to report; the last line then says why.
"""

import re
import sys

import build
import commands
import deploy
import setup_env

VERSION = re.compile(r"[0-9A-Za-z.+-]{1,100}")
STATE = re.compile(r"[A-Z_]{1,40}")
NAME = re.compile(r"[a-z_]{1,40}")
PLAIN = re.compile(r"[^A-Za-z0-9 _.,;()+=%-]")  # what else there is may be Markdown, HTML, @name
LACKING = "+no."  # between the version and the parts that a build lacks


def is_none_or(is_good):
    return lambda value: value is None or is_good(value)


def is_text(pattern):
    return lambda value: isinstance(value, str) and bool(pattern.fullmatch(value))


# What tools/deploy/report.py prints, and of what form each part must be.
TOLD = {
    "firmware": lambda value: isinstance(value, str),
    "client": is_none_or(is_text(VERSION)),
    "state": is_none_or(is_text(STATE)),
    "stats": lambda value: (
        deploy.is_table(value, is_none_or(deploy.is_count)) and all(map(NAME.fullmatch, value))
    ),
    "uptime_s": is_none_or(deploy.is_count),
    "offline_s": is_none_or(deploy.is_count),
    "connections": is_none_or(deploy.is_count),
    "memory_free": is_none_or(deploy.is_count),
    "signal_dbm": is_none_or(lambda value: type(value) is int and -200 <= value <= 0),
}


def ask(board):
    """Return what the board tells: what deploy.ask() has, and TOLD."""
    told = board.evaluate((deploy.PARTS / "report.py").read_text())
    if not isinstance(told, dict) or set(told) != set(TOLD):
        raise deploy.Nonsense(board.port)
    if not all(is_good(told[name]) for name, is_good in TOLD.items()):
        raise deploy.Nonsense(board.port)
    if told["client"] is None:
        raise deploy.DeployError(
            "no mqttpipe runs on the board: python3 tools/deploy.py puts it there"
        )
    of_board = deploy.ask(board, [])
    # Rather as it was while the program ran: its client is gone.
    if told["memory_free"] is None:
        told["memory_free"] = of_board["memory_free"]
    return dict(of_board, **told)


def describe_client(version):
    """Return "0.1.0, profile standard" for a __version__ as tools/build.py makes it."""
    number, _, lacking = version.partition(LACKING)
    switches = build.find_switches(build.read_source())
    # A version does not tell whether MQTT 5.0 is there.
    names = {switch.name for switch in switches if build.is_lack_told(switch.name)}
    for profile in build.PROFILES:
        if names - build.parts_of(profile, switches) == set(filter(None, lacking.split("."))):
            return "%s, profile %s" % (number, profile)
    return "%s, without %s" % (number, lacking.replace(".", ", "))


def hours(seconds):
    return "%.2f" % (seconds / 3600)


def rows_of(told):
    """Return what is reported as (what, value) texts, in the order of the page."""
    rows = [
        ("board", "%s (%s)" % (told["machine"] or "not told", told["platform"])),
        ("firmware", told["firmware"] or ".".join(map(str, told["version"]))),
        ("mqttpipe", describe_client(told["client"])),
    ]
    if told["uptime_s"] is None:
        rows.append(("hours up", "not counted; the program has no Station"))
    else:
        rows.append(("hours up", hours(told["uptime_s"])))
        rows.append(("hours of these offline", hours(told["offline_s"])))
        rows.append(("connections", str(told["connections"])))
    rows.append(("state", told["state"] or "the program has no client that can be found"))
    if told["signal_dbm"] is not None:
        rows.append(("Wi-Fi signal", "%d dBm" % told["signal_dbm"]))
    for name, kind in (("memory", "memory"), ("disk", "disk")):
        free, whole = told[kind + "_free"], told[kind]
        rows.append((name, "%s of %s free" % (deploy.kib(free), deploy.kib(whole))))
    rows += [(name, str(value)) for name, value in sorted(told["stats"].items())]
    return rows


def cell(text):
    """Return a text as one cell of a Markdown table that can do nothing else."""
    return PLAIN.sub("?", deploy.shown(text))


def markdown(rows):
    lines = ["| | |", "|---|---|"]
    return "\n".join(lines + ["| %s | %s |" % (cell(what), cell(value)) for what, value in rows])


def main(arguments=None):
    parser = commands.argument_parser(__doc__)
    parser.add_argument(
        "--port", default="auto", help="the board's serial port (default: auto, the only one)"
    )
    options = parser.parse_args(arguments)
    setup_env.reexec_in_venv(deploy.REQUIREMENTS)
    try:
        port = deploy.find_port() if options.port == "auto" else options.port
        with deploy.Board(port, keeps_memory=True) as board:
            try:
                told = ask(board)
            finally:
                board.reset()
        return 0 if commands.put(markdown(rows_of(told))) else 1
    except deploy.FAILURES as error:
        commands.put("report: failed: " + deploy.shown(commands.said(str(error))))
        return 1
    except KeyboardInterrupt:
        commands.put("report: stopped")
        return 130


if __name__ == "__main__":
    deploy.end_as_at_ctrl_c()
    sys.exit(main())
