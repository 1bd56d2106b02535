"""Draw the connection's state machine from the table that the client runs on.

    python3 tools/draw_states.py            write docs/states.svg
    python3 tools/draw_states.py --check    exit 1 if docs/states.svg is not current (for CI)
    python3 tools/draw_states.py --text     print the transitions: STATE --EVENT--> STATE

States, events, transitions and the words that explain them are read from the source text of
micropython/mqttpipe.py: STATE_NAMES, the constants before _EVENTS, _NEXT_STATE and the comments
behind them. Nothing is imported. Only the places in the picture are laid by hand, below: BOXES
says where a state stands and ROUTES where an arrow goes. A state or an arrow without a place is
an error that names it, so the picture never leaves anything out. The same source makes the same
bytes.
"""

import ast
import io
import sys
import tokenize
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "micropython" / "mqttpipe.py"
PICTURE = ROOT / "docs" / "states.svg"

ILLEGAL = 0xFF


class DrawError(Exception):
    """The source or the layout is not what this tool knows how to draw."""


# ---------------------------------------------------------------------------
# Reading the source
# ---------------------------------------------------------------------------


class Machine:
    """The state machine: names, transitions, and what the source says about them.

    states, events      lists of names, in the order of the table's rows and columns
    transitions         list of (state, event, next state), names, in the table's order
    notes               name -> the comment behind its constant
    unused_events       events that the code never causes (they stand in the table alone)
    """

    def __init__(self, source):
        try:
            body = ast.parse(source).body
        except SyntaxError as error:
            raise DrawError("the source is not Python: %s" % error)
        constants = [
            (node.targets[0].id, value_of(node), node.lineno)
            for node in body
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        ]
        values = {name: value for name, value, _ in constants}
        for name in ("STATE_NAMES", "_EVENTS", "_NEXT_STATE"):
            if values.get(name) is None:
                raise DrawError("the source has no constant %s" % name)
        self.states = list(values["STATE_NAMES"])
        count = values["_EVENTS"]
        at = [name for name, _, _ in constants].index("_EVENTS")
        columns = constants[max(at - count, 0) : at]
        if [value for _, value, _ in columns] != list(range(count)):
            raise DrawError("the constants before _EVENTS do not count from 0 to %d" % (count - 1))
        self.events = [name.lstrip("_") for name, _, _ in columns]
        self.transitions = self._walk(values["_NEXT_STATE"])

        comments = comments_of(source)
        self.notes = {name.lstrip("_"): comments.get(line, "") for name, _, line in constants}
        loaded = {node.id for node in ast.walk(ast.parse(source)) if is_loaded(node)}
        self.unused_events = {name.lstrip("_") for name, _, _ in columns if name not in loaded}

    def _walk(self, table):
        if len(table) != len(self.states) * len(self.events):
            raise DrawError(
                "_NEXT_STATE has %d cells, %d states and %d events need %d"
                % (
                    len(table),
                    len(self.states),
                    len(self.events),
                    len(self.states) * len(self.events),
                )
            )
        transitions = []
        for i in range(len(table)):
            state = self.states[i // len(self.events)]
            event = self.events[i % len(self.events)]
            if table[i] == ILLEGAL:
                continue
            if table[i] >= len(self.states):
                raise DrawError("%s --%s--> %d: there is no such state" % (state, event, table[i]))
            transitions.append((state, event, self.states[table[i]]))
        return transitions

    def unused_states(self):
        """Return the states that only unused events lead to."""
        used = {following for _, event, following in self.transitions if self.is_used(event)}
        return set(self.states[1:]) - used

    def is_used(self, event):
        return event not in self.unused_events


def value_of(node):
    """Return what an assignment assigns: a literal or const(literal); else None."""
    value = node.value
    if isinstance(value, ast.Call) and getattr(value.func, "id", "") == "const":
        value = value.args[0]
    try:
        return ast.literal_eval(value)
    except ValueError:
        return None


def is_loaded(node):
    return isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)


def comments_of(source):
    """Return line number -> text of the comment on that line."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {
        token.start[0]: token.string.lstrip("# ")
        for token in tokens
        if token.type == tokenize.COMMENT
    }


def text_of(machine):
    """Return the transitions as lines."""
    return "".join("%s --%s--> %s\n" % transition for transition in machine.transitions)


# ---------------------------------------------------------------------------
# The layout, by hand
# ---------------------------------------------------------------------------
# The way to ONLINE runs straight down. What fails runs down on the right into WAITING, which
# stands below and tries again; what has been closed runs up on the left to DOWN. Pixels; the
# origin is at the top left.

WIDTH = 980
HEIGHT = 976
BOX_WIDTH = 360
BOX_HEIGHT = 54
LEFT = 170  # of the main column
MIDDLE = LEFT + BOX_WIDTH // 2
RIGHT = LEFT + BOX_WIDTH
ROW_TOP = 78
ROW_STEP = 96

DOWN_BUS = 44  # x of the line that leads up to DOWN
BYPASS = 124  # x of what passes a state on the left
WAITING_BUS = 908  # x of the line that leads down to WAITING
AGAIN = 946  # x of the line from WAITING back to the start
TLS_LEFT = 574


def row(number):
    return ROW_TOP + ROW_STEP * number


# State: (left, top, width, class).
BOXES = {
    "DOWN": (LEFT, row(0), BOX_WIDTH, "rest"),
    "RESOLVING": (LEFT, row(1), BOX_WIDTH, "way"),
    "TCP_CONNECTING": (LEFT, row(2), BOX_WIDTH, "way"),
    "TLS_HANDSHAKE": (TLS_LEFT, row(3), 302, "way"),
    "AWAITING_CONNACK": (LEFT, row(4), BOX_WIDTH, "way"),
    "SUBSCRIBING": (LEFT, row(5), BOX_WIDTH, "way"),
    "ONLINE": (LEFT, row(6), BOX_WIDTH, "online"),
    "CLOSING": (LEFT, row(7), BOX_WIDTH, "way"),
    "WAITING": (LEFT, row(8) + 14, BOX_WIDTH, "waiting"),
}

# Where a state's line to a bus leaves its side, below the box's top; else half way.
DOWN_PORTS = {"TCP_CONNECTING": 16, "CLOSING": 40}
WAITING_PORTS = {"RESOLVING": 42, "TCP_CONNECTING": 10, "AWAITING_CONNACK": 42}


def straight(state, following):
    """Return the route from the bottom of a state to the top of one below it."""
    start = BOXES[state][1] + BOX_HEIGHT
    end = BOXES[following][1]
    return [(MIDDLE, start), (MIDDLE, end)], (MIDDLE + 10, start + 17, "start"), "go"


# (state, next state): (points, (x, y, anchor) of the label, class).
ROUTES = {
    ("DOWN", "RESOLVING"): straight("DOWN", "RESOLVING"),
    ("RESOLVING", "TCP_CONNECTING"): straight("RESOLVING", "TCP_CONNECTING"),
    ("TCP_CONNECTING", "AWAITING_CONNACK"): straight("TCP_CONNECTING", "AWAITING_CONNACK"),
    ("AWAITING_CONNACK", "SUBSCRIBING"): straight("AWAITING_CONNACK", "SUBSCRIBING"),
    ("SUBSCRIBING", "ONLINE"): straight("SUBSCRIBING", "ONLINE"),
    ("ONLINE", "CLOSING"): straight("ONLINE", "CLOSING"),
    ("SUBSCRIBING", "CLOSING"): (
        [(LEFT, row(5) + 27), (BYPASS, row(5) + 27), (BYPASS, row(7) + 14), (LEFT, row(7) + 14)],
        (BYPASS - 8, row(6) + 31, "end"),
        "go",
    ),
    # The next address of the same host: round the corner of the box.
    ("TCP_CONNECTING", "TCP_CONNECTING"): (
        [
            (LEFT + 36, row(2) + BOX_HEIGHT),
            (LEFT + 36, row(2) + BOX_HEIGHT + 24),
            (LEFT - 28, row(2) + BOX_HEIGHT + 24),
            (LEFT - 28, row(2) + 38),
            (LEFT, row(2) + 38),
        ],
        (LEFT - 28, row(2) + BOX_HEIGHT + 40, "start"),
        "go",
    ),
    ("TCP_CONNECTING", "TLS_HANDSHAKE"): (
        [(RIGHT, row(2) + 26), (TLS_LEFT + 122, row(2) + 26), (TLS_LEFT + 122, row(3))],
        (TLS_LEFT + 132, row(3) - 32, "start"),
        "go",
    ),
    ("TLS_HANDSHAKE", "TCP_CONNECTING"): (
        [(TLS_LEFT + 32, row(3)), (TLS_LEFT + 32, row(2) + 42), (RIGHT, row(2) + 42)],
        (TLS_LEFT + 40, row(3) - 18, "start"),
        "go",
    ),
    ("TLS_HANDSHAKE", "AWAITING_CONNACK"): (
        [(TLS_LEFT + 72, row(3) + BOX_HEIGHT), (TLS_LEFT + 72, row(4) + 14), (RIGHT, row(4) + 14)],
        (TLS_LEFT + 82, row(4) - 14, "start"),
        "go",
    ),
    ("WAITING", "RESOLVING"): (
        [
            (RIGHT, row(8) + 54),
            (AGAIN, row(8) + 54),
            (AGAIN, row(1) + 16),
            (RIGHT, row(1) + 16),
        ],
        (RIGHT + 14, row(8) + 70, "start"),
        "again",
    ),
    # The link is still down: round the corner of the box.
    ("WAITING", "WAITING"): (
        [
            (RIGHT - 90, row(8) + 14 + BOX_HEIGHT),
            (RIGHT - 90, row(8) + 38 + BOX_HEIGHT),
            (RIGHT - 40, row(8) + 38 + BOX_HEIGHT),
            (RIGHT - 40, row(8) + 14 + BOX_HEIGHT),
        ],
        (RIGHT - 100, row(8) + 34 + BOX_HEIGHT, "end"),
        "fail",
    ),
}
DOWN_LABEL = (DOWN_BUS + 10, row(1) - 26, "start")
WAITING_LABEL = (WAITING_BUS - 12, row(7) - 26, "end")

# ---------------------------------------------------------------------------
# Drawing
# ---------------------------------------------------------------------------
# The picture brings its own background, so that it is readable on any page; where the reader
# prefers dark, it is dark. Plain classes and colours: nothing that a simple viewer lacks.

# Name: (light, dark).
COLOURS = {
    "page": ("#ffffff", "#161b22"),
    "edge": ("#d0d7de", "#30363d"),
    "text": ("#1f2328", "#e6edf3"),
    "note": ("#59636e", "#9aa4ae"),
    "go": ("#0b5cad", "#6cb1ff"),
    "fail": ("#bc3d1f", "#ff9274"),
    "again": ("#8a5a00", "#e3b341"),
    "close": ("#6e7781", "#8b949e"),
    "way": ("#e8f1fb", "#13294a"),
    "rest": ("#eef0f2", "#262c34"),
    "online": ("#dcf5e3", "#12361f"),
    "online-edge": ("#1a7f37", "#3fb950"),
    "waiting": ("#fdf1d8", "#382a0a"),
}

STYLE = """\
.page { fill: PAGE; stroke: EDGE; }
text { fill: TEXT; font: 12px system-ui, "Segoe UI", Helvetica, Arial, sans-serif; }
.title { font-size: 17px; font-weight: 600; }
.state { font: 600 14px ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
.event { font: 600 12px ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
.note { fill: NOTE; }
.box { stroke-width: 1.5; }
.way { fill: WAY; stroke: GO; }
.rest { fill: REST; stroke: CLOSE; }
.online { fill: ONLINE; stroke: ONLINE-EDGE; stroke-width: 2.5; }
.waiting { fill: WAITING; stroke: AGAIN; }
.line { fill: none; stroke-width: 1.8; }
.under { fill: none; stroke: PAGE; stroke-width: 8; }
.unused { stroke-dasharray: 6 4; }
.line.go { stroke: GO; } .head.go, .event.go { fill: GO; }
.line.fail { stroke: FAIL; } .head.fail, .event.fail { fill: FAIL; }
.line.again { stroke: AGAIN; } .head.again, .event.again { fill: AGAIN; }
.line.close { stroke: CLOSE; } .head.close, .event.close { fill: CLOSE; }
"""


def style(which):
    text = STYLE
    # The longest first: ONLINE is the begin of ONLINE-EDGE.
    for name in sorted(COLOURS, key=len, reverse=True):
        text = text.replace(" %s;" % name.upper(), " %s;" % COLOURS[name][which])
    return text


def direction(start, end):
    """Return the unit step from one point to another that is level or plumb with it."""
    return tuple((e > s) - (e < s) for s, e in zip(start, end))


def path_of(points, radius=9):
    """Return the path data of a line through the points, with its corners rounded."""
    parts = ["M%d %d" % points[0]]
    for before, corner, after in zip(points, points[1:], points[2:]):
        coming = direction(before, corner)
        going = direction(corner, after)
        begin = (corner[0] - coming[0] * radius, corner[1] - coming[1] * radius)
        end = (corner[0] + going[0] * radius, corner[1] + going[1] * radius)
        parts.append("L%d %d Q%d %d %d %d" % (begin + corner + end))
    parts.append("L%d %d" % points[-1])
    return " ".join(parts)


class Picture:
    """The elements of the drawing: lines, then boxes over them, then words."""

    def __init__(self, machine):
        self.machine = machine
        self.lines = []
        self.boxes = []
        self.words = []
        self._noted = set()  # events whose note stands already

    def box(self, state):
        left, top, width, kind = BOXES[state]
        unused = " unused" if state in self.machine.unused_states() else ""
        self.boxes.append(
            '<rect class="box %s%s" x="%d" y="%d" width="%d" height="%d" rx="8"/>'
            % (kind, unused, left, top, width, BOX_HEIGHT)
        )
        centre = left + width // 2
        self.word(centre, top + 23, "middle", "state", state)
        self.word(centre, top + 41, "middle", "note", self.machine.notes.get(state, ""))

    def word(self, x, y, anchor, kind, text):
        if text:
            self.words.append(
                '<text class="%s" x="%d" y="%d" text-anchor="%s">%s</text>'
                % (kind, x, y, anchor, escape(text))
            )

    def label(self, place, kind, events):
        """Write the events' names, and below them the note of each that has none yet."""
        x, y, anchor = place
        self.word(x, y, anchor, "event " + kind, ", ".join(events))
        for event in events:
            if event not in self._noted:
                self._noted.add(event)
                y += 15
                self.word(x, y, anchor, "note", self.machine.notes.get(event, ""))

    def line(self, points, kind, is_used=True, has_head=True):
        data = path_of(points)
        self.lines.append('<path class="under" d="%s"/>' % data)
        self.lines.append(
            '<path class="line %s%s" d="%s"/>' % (kind, "" if is_used else " unused", data)
        )
        if has_head:
            self.head(points[-2], points[-1], kind)

    def head(self, before, point, kind):
        x, y = point
        dx, dy = direction(before, point)
        corners = (
            (x - 9 * dx - 5 * dy, y - 9 * dy - 5 * dx),
            (x - 9 * dx + 5 * dy, y - 9 * dy + 5 * dx),
        )
        self.boxes.append(
            '<path class="head %s" d="M%d %d L%d %d L%d %d Z"/>'
            % ((kind, x, y) + corners[0] + corners[1])
        )

    def bus(self, arrows, target, kind, place, x, ports):
        """Bundle the arrows from many states to one: a line from each into a common one.

        Args:
            arrows: state -> events. x: of the common line, left or right of all boxes.
        """
        events = sorted(
            {e for each in arrows.values() for e in each}, key=self.machine.events.index
        )
        if not events:
            return
        left, top, width, _ = BOXES[target]
        is_left = x < left
        end = ((left if is_left else left + width), top + (BOX_HEIGHT // 2 if is_left else 16))
        # The farthest first: it is the whole line, the others run into it.
        far = sorted(arrows, key=lambda state: -abs(BOXES[state][1] - top))
        for state in far:
            start_left, start_top, start_width, _ = BOXES[state]
            y = start_top + ports.get(state, BOX_HEIGHT // 2)
            start = (start_left if is_left else start_left + start_width, y)
            points = [start, (x, y), (x, end[1]), end]
            is_used = any(self.machine.is_used(event) for event in arrows[state])
            if state != far[0]:  # as far as the common line, and a little along it
                toward = 1 if end[1] > y else -1
                points = [start, (x, y), (x, y + 12 * toward)]
            is_used = is_used and state not in self.machine.unused_states()
            self.plain(points, kind, is_used)
        self.head((x, end[1]), end, kind)
        self.label(place, kind, events)

    def plain(self, points, kind, is_used):
        self.lines.append(
            '<path class="line %s%s" d="%s"/>'
            % (kind, "" if is_used else " unused", path_of(points))
        )

    def svg(self):
        dark = "".join("  %s\n" % line for line in style(1).splitlines())
        head = (
            '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d"'
            ' role="img" aria-labelledby="title">\n'
            '<title id="title">The states of the connection, and the events that move it</title>\n'
            "<!-- Made by tools/draw_states.py from _NEXT_STATE: edit that, not this. -->\n"
            "<style>\n%s@media (prefers-color-scheme: dark) {\n%s}\n</style>\n"
            '<rect class="page" x="0.5" y="0.5" width="%d" height="%d" rx="12"/>'
            % (WIDTH, HEIGHT, WIDTH, HEIGHT, style(0), dark, WIDTH - 1, HEIGHT - 1)
        )
        return "\n".join([head] + self.lines + self.boxes + self.words + ["</svg>", ""])


def draw(machine):
    """Return the picture, SVG as text.

    Raises:
        DrawError: a state or an arrow has no place in the layout.
    """
    for state in machine.states:
        if state not in BOXES:
            raise DrawError("state %s has no place: add it to BOXES" % state)
    to_down, to_waiting, others = {}, {}, {}
    for state, event, following in machine.transitions:
        if following == "DOWN" and state != "DOWN":
            to_down.setdefault(state, []).append(event)
        elif following == "WAITING" and state != "WAITING":
            to_waiting.setdefault(state, []).append(event)
        elif (state, following) in ROUTES:
            others.setdefault((state, following), []).append(event)
        else:
            raise DrawError(
                "arrow %s --%s--> %s has no place: add it to ROUTES" % (state, event, following)
            )

    picture = Picture(machine)
    unused = machine.unused_states()
    picture.word(24, 34, "start", "title", "The states of the connection")
    picture.word(
        24,
        54,
        "start",
        "note",
        "and the events that move it: a drawing of the table in mqttpipe.py",
    )
    if unused or machine.unused_events:
        picture.word(
            WIDTH - 24, 34, "end", "note", "dashed: in the table, but nothing leads there yet"
        )
    picture.bus(to_down, "DOWN", "close", DOWN_LABEL, DOWN_BUS, DOWN_PORTS)
    picture.bus(to_waiting, "WAITING", "fail", WAITING_LABEL, WAITING_BUS, WAITING_PORTS)
    for pair in ROUTES:
        if pair in others:
            points, place, kind = ROUTES[pair]
            is_used = any(machine.is_used(event) for event in others[pair])
            picture.line(points, kind, is_used and not unused.intersection(pair))
            picture.label(place, kind, others[pair])
    for state in machine.states:
        picture.box(state)
    return picture.svg()


# ---------------------------------------------------------------------------
# Command line
# ---------------------------------------------------------------------------


def main(arguments, source=SOURCE, picture=PICTURE):
    if arguments not in ([], ["--check"], ["--text"]):
        print(__doc__.strip())
        return 0 if arguments in (["-h"], ["--help"]) else 2
    try:
        machine = Machine(source.read_text(encoding="utf-8"))
        if arguments == ["--text"]:
            print(text_of(machine), end="")
            return 0
        made = draw(machine).encode("utf-8")
    except DrawError as error:
        print("draw_states: %s" % error, file=sys.stderr)
        return 1
    if arguments == ["--check"]:
        if not picture.is_file() or picture.read_bytes() != made:
            print(
                "draw_states: docs/%s is not current: run python3 tools/draw_states.py"
                % picture.name,
                file=sys.stderr,
            )
            return 1
        return 0
    picture.parent.mkdir(exist_ok=True)
    picture.write_bytes(made)
    print("draw_states: wrote docs/%s" % picture.name)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
