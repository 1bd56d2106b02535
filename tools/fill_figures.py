"""Write the measured figures of README.md: those of docs/ports.md and docs/benchmarks.md.

    python3 tools/fill_figures.py            writes them into README.md and docs/zh/README.md
    python3 tools/fill_figures.py --check    writes nothing; status 1 if one is out of date

Run it after tools/measure_lwip.py or tools/bench.py has written its page.
"""

import argparse
import pathlib
import re
import sys

import outputs

ROOT = pathlib.Path(__file__).resolve().parent.parent
BEGIN = "<!-- figures: begin (written by tools/fill_figures.py) -->\n"
END = "<!-- figures: end -->\n"
COLUMNS = ("mqttpipe", "umqtt.simple", "mqtt_as", "paho")

# Where a figure stands: page, heading, its row's first cell. None: the row's own name is that of
# a client, and the column is given.
BOARD = ("ports.md", "", None, "all three")
ROWS = (
    (BOARD, "RAM on the emulated board, connected, bytes", "模拟开发板上连接后占用的 RAM（字节）"),
    (
        ("ports.md", "", "publish() and send, 64 bytes at QoS 0", None),
        "instructions for a message published there",
        "同上，发布一条消息所需的指令数",
    ),
    (
        ("ports.md", "", "receive, taking topic name and payload", None),
        "instructions for a message received there",
        "同上，接收一条消息所需的指令数",
    ),
    (
        ("benchmarks.md", "MicroPython 32-bit", "published/s, QoS 0, 64 bytes", None),
        "MicroPython 32-bit on a PC: published/s, QoS 0",
        "PC 上 32 位 MicroPython：每秒发布，QoS 0",
    ),
    (
        ("benchmarks.md", "MicroPython 32-bit", "published/s, QoS 1, 64 bytes", None),
        "the same, QoS 1",
        "同上，QoS 1",
    ),
    (
        ("benchmarks.md", "MicroPython 32-bit", "received/s, QoS 0, 64 bytes", None),
        "received/s, QoS 0",
        "每秒接收，QoS 0",
    ),
    (
        ("benchmarks.md", "CPython", "published/s, QoS 0, 64 bytes", None),
        "CPython: published/s, QoS 0",
        "CPython：每秒发布，QoS 0",
    ),
    (
        ("benchmarks.md", "CPython", "published/s, QoS 1, 64 bytes", None),
        "the same, QoS 1",
        "同上，QoS 1",
    ),
)
PAGES = (("README.md", 1, "measured"), ("docs/zh/README.md", 2, "实测"))


def tables_of(page, heading):
    """Return the tables of a page, or of one chapter: [[cells of the head], [cells], ...]."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    if heading:
        text = re.split(r"^## %s\n" % re.escape(heading), text, flags=re.M)[1].split("\n## ")[0]
    tables = []
    for block in re.findall(r"(?:^\|.*\|\n)+", text, re.M):
        rows = [
            [cell.strip() for cell in line.strip("|\n").split("|")] for line in block.split("\n")
        ]
        tables.append([row for row in rows if len(row) > 1])
    return tables


def look_up(source, client):
    """Return a client's figure, without what stands in brackets behind it; "" if there is none."""
    page, heading, row_name, column_name = source
    for head, _, *rows in tables_of(page, heading):
        table = {row[0]: dict(zip(head[1:], row[1:])) for row in rows}
        if row_name is None:
            name = {"mqttpipe": "standard"}.get(client, client)
            found = table.get("%s, .mpy in littlefs" % name, {}).get(column_name, "")
        else:
            cells = table.get(row_name, {})
            found = cells.get(client, cells.get("standard", "") if client == "mqttpipe" else "")
        found = re.sub(r" \(.*\)$", "", found)
        if re.match(r"\d", found):
            return found
    return ""


def make_table(name_at, title):
    names = [{"paho": "paho-mqtt"}.get(client, client) for client in COLUMNS]
    lines = ["| %s | %s |" % (title, " | ".join(names)), "|---|%s" % ("---:|" * len(COLUMNS))]
    for row in ROWS:
        figures = [look_up(row[0], client) for client in COLUMNS]
        if not figures[0]:
            sys.exit("fill_figures: docs/%s has no %r" % (row[0][0], row[0][2] or row[0][3]))
        lines.append("| %s | %s |" % (row[name_at], " | ".join(figures)))
    return re.sub(r" +\|", " |", "\n".join(lines)) + "\n"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing")
    options = parser.parse_args()
    status = 0
    for name, name_at, title in PAGES:
        path = ROOT / name
        before = path.read_text(encoding="utf-8")
        head, begin, rest = before.partition(BEGIN)
        _, end, tail = rest.partition(END)
        if not (begin and end):
            sys.exit("fill_figures: %s has not the two lines that enclose the figures" % name)
        after = head + begin + "\n" + make_table(name_at, title) + "\n" + end + tail
        if after != before:
            status = 1 if options.check else 0
            print("fill_figures: %s is %s" % (name, "out of date" if options.check else "written"))
            if not options.check:
                outputs.write(path, after)
    return status


if __name__ == "__main__":
    sys.exit(main())
