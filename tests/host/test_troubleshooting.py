"""docs/troubleshooting.md has an entry for every error text of client, tools and boards/.

The texts come from the sources: what a `raise` names, what an error class is called with, the
doctor's lines that begin with "- ", a Wi-Fi driver's reasons, what a function returns whose name
asks why. Of the client, every text counts,
wherever it stands. `…` on the page stands for a placeholder.
"""

import ast
import errno
import os
import re

import pytest

import mqttpipe
import setup_env

ROOT = setup_env.ROOT
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
CLIENT = ROOT / "micropython" / "mqttpipe.py"

# What somebody starts who uses mqttpipe. The other tools are for those who work on it.
FILES = sorted(
    [
        ROOT / "micropython" / "mqttpipe_repl.py",
        *(ROOT / "boards").glob("*/*.py"),
        *(ROOT / "tools" / "deploy").glob("*.py"),
        *(ROOT / "tools" / "demo").glob("*.py"),
        *(ROOT / "tools" / "mqtt").glob("*.py"),
        *(
            ROOT / "tools" / ("%s.py" % name)
            for name in (
                "board_report build build_firmware commands debian_sources demo deploy "
                "emulated_board get_esp32_sockets get_lwip_board get_micropython mqtt repl "
                "setup_env test"
            ).split()
        ),
    ]
)

# Texts that are no errors: names of arguments, parts of a sentence, patterns.
NO_ERRORS = {
    "DOWN LINK DNS TCP TLS CONNACK SUBACK ONLINE DISCONNECT PINGRESP ACK PACKET WRITE",
    "topic filter",
    "topic name",
    "will qos",
    "will payload",
    "auth method",
    "cert or key",
    "received message",
    "offline or expiry_s",
    "offline or pipe_bytes_max",
    "(Error: [^:]*):.*",
    "# Parts that a smaller build leaves out",
    "sends… messages at QoS… to…",
    "sent by…",
    "… messages were sent, all of them arrived",
    "--cert…, --key…",
    "in…, line…",
    "clock:…-…-…:… UTC",
}
PLACEHOLDER = re.compile(r"%[-#0-9.]*[a-zA-Z]")
ELLIPSIS = "…"
ENDS = "…,:; "


def plain(text):
    return re.sub(r"(?:\s*…)+", ELLIPSIS, PLACEHOLDER.sub(ELLIPSIS, text)).strip()


def is_error(text):
    words = re.findall(r"[A-Za-z']{2,}", re.sub(r"\[[^]]*\]", "", text))
    return len(words) >= 2 and not re.fullmatch(r"\S+", text) and text not in NO_ERRORS


def of_client():
    """Every text of the client but docstrings and annotations; lists are taken apart."""
    tree = ast.parse(CLIENT.read_text(encoding="utf-8"))
    others = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr):
                others.add(first.value)
        notes = [getattr(node, "annotation", None), getattr(node, "returns", None)]
        others.update(each for note in notes if note for each in ast.walk(note))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in others:
            is_list = re.search(r";\S*=|;[a-z]+ [^;]*;", node.value)
            parts = node.value.split(";") if is_list else [node.value]
            yield from (plain(re.sub("^[\\w -]+=", "", part)) for part in parts)


def of_errors(path):
    """The texts of a file's errors."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    known = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            known.setdefault(node.targets[0].id, []).append(node.value)
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise):
            parts = list(ast.walk(node))
        elif isinstance(node, ast.Call):
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            parts = list(ast.walk(node))
            if name == "print":
                first = node.args[0] if node.args else None
                first = first.left if isinstance(first, ast.BinOp) else first
                if not str(getattr(first, "value", "")).startswith("- "):
                    continue
            elif not re.search(
                r"(Error|Failed|Ended|^error|^exit|__init__|^_fail|^_lose|^end)$", name
            ):
                continue
        elif isinstance(node, ast.Dict) and path.name == "wifi.py":  # REASONS
            parts = node.values
        elif isinstance(node, ast.FunctionDef) and re.match("why_|hint$", node.name):
            returned = [one.value for one in ast.walk(node) if isinstance(one, ast.Return)]
            parts = [one for value in returned if value for one in ast.walk(value)]
        else:
            continue
        for part in parts:
            if isinstance(part, ast.Name):  # a text with a name of its own
                for value in known.get(part.id, ()):
                    value = value.left if isinstance(value, ast.BinOp) else value
                    if isinstance(value, ast.Constant) and isinstance(value.value, str):
                        yield plain(value.value)
            elif isinstance(part, ast.Constant) and isinstance(part.value, str):
                yield plain(part.value[2:] if part.value.startswith("- ") else part.value)


def texts_of(path):
    found = of_client() if path == CLIENT else of_errors(path)
    return sorted({text for text in found if is_error(text)})


def quoted():
    """What the first column of the page's tables quotes."""
    cells = re.findall(r"^\| (.+?) \| ", PAGE, re.M)
    found = [text for cell in cells for text in re.findall(r"`` ?(.+?) ``|`(.+?)`", cell)]
    return [plain(double or single) for double, single in found]


QUOTED = quoted()


def is_covered(text):
    """An entry is the text, or enough of it to be found by."""
    bare = text.strip(ENDS)
    return any(
        bare in entry or entry in text and len(entry) >= min(12, len(bare)) for entry in QUOTED
    )


@pytest.mark.parametrize("path", [CLIENT, *FILES], ids=lambda path: path.name)
def test_each_error_text_has_an_entry(path):
    missing = [text for text in texts_of(path) if not is_covered(text)]
    assert not missing, "docs/troubleshooting.md lacks:\n" + "\n".join(missing)


def test_texts_are_found_where_they_are_known_to_be():
    of_the_client = texts_of(CLIENT)
    for text in (
        "all… slots are taken (pipe_slots)",
        "bad user or password",
        "the certificate is not trusted by ca=",
        "is it the filter…?",
    ):
        assert text in of_the_client, text
    deploy = texts_of(ROOT / "tools" / "deploy.py")
    assert "the board at… answers nonsense" in deploy
    assert any(text.startswith("no board: no serial port") for text in deploy)
    assert "no board: there is no port" in {text.strip(ENDS) for text in deploy}
    assert "Wi-Fi: this firmware has none" in texts_of(ROOT / "tools" / "deploy" / "doctor.py")


def test_an_unknown_text_would_be_missed():
    assert not is_covered("the moon is in the way of %s")


# What others write: the port's names of errors, the system's texts, and codes that stand for many.
OF_THE_SYSTEM = {os.strerror(number) for number in errno.errorcode}
NOT_OURS = re.compile(r"\[?Errno|E[A-Z]+$|errno|return code|nothing|b\"|alert|password:|payload:")


def test_each_entry_is_something_that_is_said():
    said = {text for path in [CLIENT, *FILES] for text in texts_of(path)}
    sources = "\n".join(plain(path.read_text(encoding="utf-8")) for path in [CLIENT, *FILES])
    assert len(QUOTED) > 100
    for entry in QUOTED:
        entry = re.sub(r"^[A-Z]+: ", "", entry)
        is_state = entry in mqttpipe.STATE_NAMES
        is_call = hasattr(mqttpipe.MQTTClient, re.sub(r"\W.*", "", entry)) or "on_" in entry
        if not (is_state or is_call or entry in OF_THE_SYSTEM or NOT_OURS.match(entry)):
            assert entry in sources or any(
                entry in text or text.strip(ENDS) in entry and 3 * len(text) > len(entry)
                for text in said
            ), entry


def test_each_row_says_what_it_means_and_what_to_do():
    rows = [row for row in re.findall(r"^\|(.+)\|$", PAGE, re.M) if not set(row) <= set("-| ")]
    for row in rows:
        cells = [cell.strip() for cell in row.split(" | ")]
        assert len(cells) == 3 and all(cells), row


def test_each_tool_that_is_left_out_is_one_for_developers():
    left_out = {path.stem for path in (ROOT / "tools").glob("*.py")} - {p.stem for p in FILES}
    assert left_out == {
        "bench",
        "build_pages",
        "chaos",
        "check_types",
        "draw_demo",
        "fill_figures",
        "fuzz",
        "inlining",
        "list_frames",
        "list_spec_coverage",
        "load",
        "measure_lwip",
        "measure_size",
        "mutate",
        "outputs",
        "release",
        "self_compiling",
        "shrink",
        "soak",
        "stall_matrix",
        "trees",
        "vm_memory",
        "wheel_hook",
    }, "new in tools/: is it for users? Then its errors belong into docs/troubleshooting.md"


def test_the_chapter_on_deploying_names_options_of_that_tool_only():
    chapter = PAGE.partition("\n## Deploying to a board\n")[2].partition("\n## ")[0]
    source = (ROOT / "tools" / "deploy.py").read_text(encoding="utf-8")
    named = set(re.findall(r"--[a-z][a-z-]+", chapter))
    assert {"--wait", "--force"} <= named
    assert {name for name in named if '"%s"' % name not in source} == set()
