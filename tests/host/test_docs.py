"""docs/ tells the truth: its programs run and print what it says, its API page is complete.

Every block of Python in docs/ is run as it stands, but for the server's address, on CPython and on
MicroPython, against the real broker:

    ```python   a complete program, or a file for pytest if it has tests (on CPython only)
    ```pycon    what somebody types at a REPL, with the answers
    ```text     directly behind a program: what it prints, line for line

A program with an endless loop is stopped when it has printed its lines. Behind a comment
`<!-- file: NAME -->` stands a program of micropython/examples/, as it is there, which is not run
here: tests/board/test_examples.py does. A block that begins with `# NAME.py` is a file beside the
tests of its page, such as a conftest.py.
"""

import ast
import doctest
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import mqttpipe

TOP = Path(__file__).resolve().parents[2]
DOCS = TOP / "docs"
PAGES = {path.name: path.read_text(encoding="utf-8") for path in sorted(DOCS.glob("*.md"))}
API = PAGES["api.md"]
SOURCE = ast.parse((TOP / "micropython" / "mqttpipe.py").read_text(encoding="utf-8"))

SERVER = "mqtt://localhost"
TIMEOUT_S = 60

FENCED = re.compile(r"^```(\w*)\n(.*?)^```\n(?:```text\n(.*?)^```$)?", re.M | re.S)
EXAMPLE = re.compile(r"<!-- file: [\w.]+ -->\n$")
FILE = re.compile(r"# (\w+\.py)\n")

# What a board has and a PC has not: for the program that starts the Wi-Fi.
NETWORK = """\
STA_IF = 0

class WLAN:
    def __init__(self, interface):
        self._calls = 0

    def active(self, is_active):
        pass

    def connect(self, name, password):
        pass

    def isconnected(self):
        self._calls += 1
        return self._calls > 2

    def ifconfig(self):
        return ("127.0.0.1", "255.0.0.0", "127.0.0.1", "127.0.0.1")
"""

# The same for the program with an interrupt, which comes at once: its message waits.
MACHINE = """\
class Pin:
    IN = 0
    PULL_UP = 1
    IRQ_FALLING = 2

    def __init__(self, number, mode, pull):
        pass

    def irq(self, handler, trigger):
        handler(self)
"""

STAND_INS = {"network": NETWORK, "machine": MACHINE}

# Each is typed by itself, as at a REPL: the value of an expression is printed.
TYPE_IN = """\
for typed in %r:
    exec(compile(typed, "<stdin>", "single"))
"""


class Block:
    """A block of Python in a page."""

    def __init__(self, page, match):
        text = PAGES[page]
        self.name = "%s:%d" % (page, text.count("\n", 0, match.start()) + 1)
        self.language, self.text, self.output = match.groups()
        self.line_count = len([line for line in self.text.splitlines() if line.strip()])
        if self.language == "pycon":
            examples = doctest.DocTestParser().get_examples(self.text)
            self.text = TYPE_IN % [example.source for example in examples]
            self.output = "".join(example.want for example in examples)
        self.page = page
        self.is_test = "def test_" in self.text
        named = FILE.match(self.text)
        self.file = named.group(1) if named and not self.is_test else None
        self.is_endless = "while True:" in self.text


def blocks_of(page):
    return [
        Block(page, match)
        for match in FENCED.finditer(PAGES[page])
        if match.group(1) in ("python", "pycon")
        and not EXAMPLE.search(PAGES[page], match.start() - 80, match.start())
    ]


BLOCKS = [block for page in PAGES for block in blocks_of(page)]
FILES = [block for block in BLOCKS if block.file]
PROGRAMS = [block for block in BLOCKS if not block.is_test and not block.file]
TESTS = [block for block in BLOCKS if block.is_test]


def names_of(blocks):
    return [block.name for block in blocks]


# ---------------------------------------------------------------------------
# The programs
# ---------------------------------------------------------------------------


def program(block, broker, folder):
    """Write the block's program, with the broker's address, and return its path."""
    path = folder / "test_program.py"
    path.write_text(block.text.replace(SERVER, broker.uri), encoding="utf-8")
    for name, source in STAND_INS.items():
        if re.search(r"^(import|from) %s\b" % name, block.text, re.M):
            (folder / (name + ".py")).write_text(source, encoding="utf-8")
    return path


def run(command, environment, block):
    """Return what the program printed, and its exit status (None: it was stopped)."""
    # Its folder, so the stand-in for a board's module is found, comes first by itself.
    process = subprocess.Popen(
        [str(word) for word in command],
        env=dict(os.environ, **environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        if block.is_endless:
            return "".join(process.stdout.readline() for _ in block.output.splitlines()), None
        return process.communicate(timeout=TIMEOUT_S)[0], process.returncode
    finally:
        process.kill()
        process.wait(TIMEOUT_S)


# The commands of the REPL tell times and the port, and a message may come before or after the
# line that says that it was sent.
def steady(block, text):
    if "mqttpipe_repl" not in block.text:
        return text
    text = re.sub(r"after \d+ ms", "after N ms", re.sub(r"\S+ port \d+", "server", text))
    return sorted(text.splitlines())


def check(block, printed, status):
    assert steady(block, printed) == steady(block, block.output)
    assert status == (None if block.is_endless else 0)


def cpython_environment():
    path = os.pathsep.join([str(TOP / "micropython"), str(TOP / "cpython_shim")])
    return {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}


@pytest.mark.parametrize("block", PROGRAMS, ids=names_of(PROGRAMS))
def test_each_program_runs_on_cpython(block, broker, tmp_path):
    path = program(block, broker, tmp_path)
    check(block, *run([sys.executable, path], cpython_environment(), block))


@pytest.mark.parametrize("block", PROGRAMS, ids=names_of(PROGRAMS))
def test_each_program_runs_on_micropython(block, broker, micropython, tmp_path):
    path = program(block, broker, tmp_path)
    environment = {"MICROPYPATH": "%s:%s:.frozen" % (tmp_path, TOP / "micropython")}
    check(block, *run([*micropython.command, path], environment, block))


@pytest.mark.parametrize("block", TESTS, ids=names_of(TESTS))
def test_each_test_file_passes(block, broker, tmp_path):
    path = program(block, broker, tmp_path)
    for one in FILES:
        if one.page == block.page:
            text = one.text.replace(SERVER, broker.uri)
            (tmp_path / one.file).write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", path]
    printed, status = run(command, cpython_environment(), block)
    assert status == 0 and "1 passed" in printed, printed


def test_each_block_says_what_it_is():
    for page, text in PAGES.items():
        fences = re.findall(r"^```(.*)$", text, re.M)
        assert fences[1::2] == [""] * (len(fences) // 2), "%s: a block without an end" % page
        assert set(fences[::2]) <= {"python", "pycon", "text", "mermaid"}, page
        outputs = len(re.findall(r"^```text$", text, re.M))
        assert outputs == sum(match.group(3) is not None for match in FENCED.finditer(text)), page
    for block in PROGRAMS:
        assert block.output, "%s: what does it print?" % block.name


def test_a_sample_has_at_most_20_lines():
    for block in blocks_of("samples.md"):
        assert block.line_count <= 20, block.name


@pytest.mark.parametrize(
    "call",
    ("mqtt_start(", ".step(", ".start()", ".run()", ".pollables()", ".publish_isr("),
)
def test_each_way_to_drive_it_is_shown_in_a_program_of_at_most_20_lines(call):
    """Each of PROGRAMS is run, see above."""
    guide = [block for block in PROGRAMS if block.name.startswith("user-guide.md")]
    assert min(block.line_count for block in guide if call in block.text) <= 20


# ---------------------------------------------------------------------------
# The API page
# ---------------------------------------------------------------------------


def top_level(nodes):
    """The statements of the module, those inside `if _PART:` included."""
    for node in nodes:
        if isinstance(node, ast.If):
            yield from top_level(node.body)
        else:
            yield node


def class_of(name):
    return next(node for node in SOURCE.body if getattr(node, "name", "") == name)


def bases_of(name):
    """A class and those it is derived from, of this file."""
    names = {node.name for node in SOURCE.body if isinstance(node, ast.ClassDef)}
    found = []
    while name in names:
        found.append(class_of(name))
        bases = found[-1].bases
        name = bases[0].id if bases else None
    return found


def is_property(function):
    return any(getattr(each, "id", "") == "property" for each in function.decorator_list)


def methods_of(name):
    return [
        node
        for each in bases_of(name)
        for node in top_level(each.body)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and not node.name.startswith("_")
    ]


def attributes_of(name):
    """The public attributes that the methods of a class assign."""
    return {
        node.attr
        for each in bases_of(name)
        for node in ast.walk(each)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and getattr(node.value, "id", "") == "self"
        and not node.attr.startswith("_")
    }


def signature(name, function):
    """What the page must show: name and arguments, without `self` and annotations."""
    for argument in function.args.args:
        argument.annotation = None
    arguments = ast.unparse(function.args)
    return plain("%s(%s)" % (name, re.sub(r"^self(, |$)", "", arguments)))


# Without blanks, line ends, and the underscores of 10_000; one kind of quotes.
def plain(text):
    return re.sub(r"(?<=\d)_(?=\d)|\s", "", text).replace('"', "'")


def signatures_shown():
    shown = re.findall(r"^#### (.+)$", API, re.M)
    shown += re.findall(r"<!-- signature: \w+ -->\n((?:    .+\n)+)", API)
    return {plain(each) for each in shown}


def test_the_api_page_shows_each_call_as_it_is():
    expected = set()
    for node in class_of("MQTTClient").body:
        if getattr(node, "name", "") == "__init__":
            expected.add(signature("MQTTClient", node))
    for method in methods_of("MQTTClient"):
        if not is_property(method):
            expected.add(signature("MQTTClient." + method.name, method))
    for node in top_level(SOURCE.body):
        if getattr(node, "name", "") in ("parse_uri", "topic_matches"):
            expected.add(signature("mqttpipe." + node.name, node))
    assert signatures_shown() == expected


def test_the_api_page_names_everything_public():
    names = attributes_of("MQTTClient") | attributes_of("Message")
    names |= {method.name for method in methods_of("Message")}
    names |= set(mqttpipe.MQTTClient("mqtt://localhost").stats)
    for node in top_level(SOURCE.body):
        if isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        names.add(getattr(node, "name", "_"))
    public = {name for name in names if not name.startswith("_")} | {"__version__"}
    shown = set(re.findall(r"\w+", API))
    assert not public - shown, "not in docs/api.md: %s" % sorted(public - shown)


def test_each_callback_and_argument_is_explained():
    guide = PAGES["user-guide.md"]
    for name in attributes_of("MQTTClient"):
        if name.startswith("on_"):
            assert "| `%s(client" % name in API and "| `%s(client" % name in guide, name
    for method in [each for each in class_of("MQTTClient").body if hasattr(each, "args")]:
        if method.name in ("__init__", "publish", "subscribe"):
            for argument in method.args.args[1:]:
                assert "*%s*" % argument.arg in API, argument.arg


def test_each_error_is_explained():
    for node in SOURCE.body:
        bases = {getattr(base, "id", "") for base in getattr(node, "bases", ())}
        if "MQTTError" in bases:
            assert "| `%s` |" % node.name in PAGES["user-guide.md"], node.name


# ---------------------------------------------------------------------------
# The other pages
# ---------------------------------------------------------------------------


def test_each_state_is_explained():
    for name in mqttpipe.STATE_NAMES:
        assert "`%s`" % name in PAGES["user-guide.md"], name


def test_each_stage_is_explained():
    words = mqttpipe._STAGE_WORDS.split()
    timers = words[mqttpipe._TIMER_WORDS + mqttpipe._TIMER_PINGRESP :]
    assert timers[0] == "PINGRESP" and len(timers) == 4
    stages = set(timers) | {"DNS", "TCP", "CONNACK", "SUBACK"}
    section = PAGES["user-guide.md"].split("## Time-outs")[1].split("\n## ")[0]
    for stage in stages:
        assert '`"%s"`' % stage in section, stage


def test_the_versions_page_and_the_changelog_have_this_version():
    version = re.escape(mqttpipe.__version__)
    assert re.search(r"^\| %s \|" % version, PAGES["versions.md"], re.M)
    changelog = (TOP / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## \[%s\] - \d{4}-\d\d-\d\d$" % version, changelog, re.M)


def anchors_of(page):
    """The anchors that a page's headings make, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", PAGES[page], re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_each_link_leads_somewhere():
    for page, text in PAGES.items():
        for target in re.findall(r"\]\(([^)]+)\)", text):
            path, _, anchor = target.partition("#")
            if target.startswith("https:"):
                continue
            assert (DOCS / (path or page)).is_file(), "%s: %s" % (page, target)
            if anchor and path in (*PAGES, ""):
                assert anchor in anchors_of(path or page), "%s: %s" % (page, target)


def test_every_page_is_in_the_introduction():
    for page in PAGES:
        assert page == "index.md" or "](%s)" % page in PAGES["index.md"], page
