"""Draw docs/demo.svg: what tools/demo.py prints in a terminal, at the pace at which it comes.

    python3 tools/draw_demo.py                    runs the demo, and draws it
    python3 tools/draw_demo.py --out FILE.svg     writes to another file

The picture plays once, and then stays as it is at the end. Where nothing is animated (in a page of
PyPI, or for somebody who has switched animations off) it shows the end at once.

Set up, once: `.venv` with pyte (tools/setup_env.py), and what the demo needs. The exit status is 1
if the demo fails; nothing is written then.
"""

import argparse
import os
import pathlib
import sys
import time
from xml.sax.saxutils import escape

import outputs
import setup_env

ROOT = setup_env.ROOT
DEMO_TIMEOUT_S = 120
LOOK_S = 0.01
SLOWER = 2  # the demo is over in five seconds, which is too fast to be read

COLUMNS, ROWS = 126, 24
CELL_X, CELL_Y, MARGIN, BAR = 7.25, 17, 14, 30
INK, PAPER = "#d4d7dd", "#1d2026"
COLORS = {
    "red": "#f2777a",
    "green": "#99cc99",
    "brown": "#ffcc66",  # pyte's name for yellow
    "blue": "#6699cc",
    "magenta": "#cc99cc",
    "cyan": "#66cccc",
}


def record():
    """Run the demo in a terminal; return [(seconds since the first byte, bytes)], in order."""
    sys.path.append(str(ROOT / "tests"))
    from terminal import Terminal

    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    command = [sys.executable, ROOT / "tools" / "demo.py"]
    pieces, length, began_s = [], 0, None
    deadline_s = time.monotonic() + DEMO_TIMEOUT_S
    with Terminal(command, env=environment, columns=COLUMNS, rows=ROWS) as terminal:
        while time.monotonic() < deadline_s:
            is_over = terminal.process.poll() is not None
            if is_over:
                terminal.wait_for_end()
            data = terminal.raw()[length:]
            if data:
                began_s = began_s or time.monotonic()
                pieces.append((time.monotonic() - began_s, data))
                length += len(data)
            if is_over:
                if terminal.process.returncode:
                    sys.exit("draw_demo: the demo has failed:\n" + "\n".join(terminal.lines()))
                return pieces
            time.sleep(LOOK_S)
    sys.exit("draw_demo: the demo did not end within %d s" % DEMO_TIMEOUT_S)


def show(pieces):
    """Return the rows of a screen that is long enough: [(seconds, [(text, style), ...])]."""
    import pyte

    screen = pyte.Screen(COLUMNS, 400)
    screen.set_mode(pyte.modes.LNM)
    stream = pyte.ByteStream(screen)
    times = []  # when each row was begun
    for at_s, data in pieces:
        for line in data.splitlines(keepends=True):
            stream.feed(line)
            begun = screen.cursor.y + (not line.endswith(b"\n"))
            times += [at_s] * (begun - len(times))
    rows = []
    for y, at_s in enumerate(times):
        spans = []
        for x in range(COLUMNS):
            cell = screen.buffer[y][x]
            style = (cell.fg, cell.bold)
            if spans and spans[-1][1] == style:
                spans[-1][0] += cell.data
            else:
                spans.append([cell.data, style])
        spans[-1][0] = spans[-1][0].rstrip()
        rows.append((at_s, spans))
    while rows and not any(text.strip() for text, _ in rows[-1][1]):
        rows.pop()
    return rows


def style_of(style):
    color, is_bold = style
    found = ""
    if color in COLORS:
        found += ' fill="%s"' % COLORS[color]
    if is_bold:
        found += ' font-weight="bold"'
    return found


def draw(rows):
    """Return the picture of these rows as SVG."""
    width = round(COLUMNS * CELL_X + 2 * MARGIN)
    height = ROWS * CELL_Y + 2 * MARGIN + BAR
    total_s = max(0.1, rows[-1][0] * SLOWER)
    texts, ups = [], {}
    for y, (at_s, spans) in enumerate(rows):
        if y >= ROWS:  # the screen is full: all goes up by one row
            ups[100 * at_s * SLOWER / total_s] = (y - ROWS + 1) * CELL_Y
        x = 0
        parts = ""
        for text, style in spans:
            if text.strip():
                parts += '<tspan x="%.2f"%s>%s</tspan>' % (
                    x * CELL_X,
                    style_of(style),
                    escape(text.rstrip()),
                )
            x += len(text)
        if parts:
            place = 'y="%d" style="animation-duration:%.2fs"' % (
                (y + 1) * CELL_Y - 4,
                at_s * SLOWER,
            )
            texts.append("<text %s>%s</text>" % (place, parts))
    last = max(0, len(rows) - ROWS) * CELL_Y
    return SVG.format(
        width=width,
        outer_width=width + 1,
        outer_height=height + 1,
        height=height,
        bar=BAR,
        bar_y=BAR + MARGIN,
        margin=MARGIN,
        screen_width=width - 2 * MARGIN,
        screen_height=ROWS * CELL_Y,
        paper=PAPER,
        ink=INK,
        total="%.2f" % total_s,
        last=last,
        steps="".join("%.2f%%{transform:translateY(-%dpx)}" % one for one in ups.items()),
        rows="\n".join(texts),
    )


SVG = """\
<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" \
viewBox="0 0 {outer_width} {outer_height}" role="img">
<!-- Made by tools/draw_demo.py; do not edit. -->
<title>python3 tools/demo.py</title>
<style>
text{{font:12px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;\
fill:{ink};white-space:pre}}
#rows{{transform:translateY(-{last}px)}}
@media (prefers-reduced-motion:no-preference){{
#rows text{{animation-name:wait}}
#rows{{animation:scroll {total}s step-end}}
}}
@keyframes wait{{from,to{{visibility:hidden}}}}
@keyframes scroll{{0%{{transform:none}}{steps}}}
</style>
<rect x="0.5" y="0.5" width="{width}" height="{height}" rx="8" fill="{paper}" stroke="#5c6370"/>
<g fill="#5c6370"><circle cx="20" cy="17" r="5"/><circle cx="38" cy="17" r="5"/>\
<circle cx="56" cy="17" r="5"/></g>
<text x="50%" y="21" text-anchor="middle">python3 tools/demo.py</text>
<svg x="{margin}" y="{bar_y}" width="{screen_width}" height="{screen_height}">
<g id="rows">
{rows}
</g>
</svg>
</svg>
"""


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out",
        type=pathlib.Path,
        default=ROOT / "docs" / "demo.svg",
        metavar="FILE",
        help="where to (default: docs/demo.svg)",
    )
    options = parser.parse_args()
    setup_env.reexec_in_venv("requirements-test.txt")
    outputs.write(options.out, draw(show(record())))
    print("draw_demo: %s: %d bytes" % (options.out, options.out.stat().st_size))
    return 0


if __name__ == "__main__":
    sys.exit(main())
