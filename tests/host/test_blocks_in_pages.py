"""Each indented block of the pages is run by a test, or a comment before it says why not.

    <!-- run by: tests/host/test_demo.py -->         these tests (one or several) do that
    <!-- not run: it needs a board -->              nobody does, for this reason

A block without a comment is Python, and run here. The fenced ones are run by test_docs.py and
test_readme.py, those of docs/zh/ are the same (test_chinese_pages.py).
"""

import json
import re
import shlex
import ssl
import subprocess
import sys

import pytest

import certificates
import deploy
import mqttpipe
from programs import Program

ROOT = deploy.ROOT
sys.path.append(str(ROOT / "tools" / "mqtt"))

import mqtt_options  # noqa: E402

PATHS = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "boards").rglob("*.md")]
PAGES = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in sorted(PATHS)}
TIMEOUT_S = 30

FENCED = re.compile(r"^```(\w*)\n.*?^```$", re.M | re.S)
# Lines with four blanks, or blank ones between such.
INDENTED = re.compile(r"(?:^<!-- ([^>]+) -->\n|^\n)((?:^    .*\n)(?:\n*^    .*\n)*)", re.M)
MARK = re.compile(r"(run by|not run|signature): (.+)$")
SCRIPT = re.compile(r"python3? ((?:tools|tests)/\w+\.py)(.*)$", re.M)


class Block:
    def __init__(self, page, match):
        line = match.string.count("\n", 0, match.start(2)) + 1
        self.name = "%s:%d" % (page, line)
        self.mark = match.group(1)
        self.text = "".join(line[4:] or "\n" for line in match.group(2).splitlines(True))


def without_fences(text):
    """The text with the same lines, but for those of the fenced blocks."""
    return FENCED.sub(lambda match: "-" + "\n" * match.group().count("\n"), text)


BLOCKS = [
    Block(page, match)
    for page in PAGES
    for match in INDENTED.finditer(without_fences(PAGES[page]))
]
UNMARKED = [block for block in BLOCKS if block.mark is None]


def names_of(blocks):
    return [block.name for block in blocks]


def block_of(page, begin):
    return next(
        each for each in BLOCKS if each.name.startswith(page) and each.text.startswith(begin)
    )


def test_there_are_blocks_on_the_pages():
    assert len(BLOCKS) >= 60 and len(UNMARKED) >= 6


def test_each_mark_says_who_runs_it_or_why_nobody_does():
    for block in BLOCKS:
        if block.mark is None:
            continue
        match = MARK.match(block.mark)
        assert match, "%s: %s" % (block.name, block.mark)
        kind, said = match.groups()
        if kind == "not run":
            assert len(said.split()) >= 2, block.name
        if kind == "run by":
            tests = "".join((ROOT / path).read_text(encoding="utf-8") for path in said.split(", "))
            for script, _ in SCRIPT.findall(block.text):
                stem = re.search(r"(\w+)\.py", script).group(1)
                assert re.search(r"\b%s\b" % stem, tests), "%s: %s" % (block.name, script)


def test_each_mark_stands_before_a_block():
    for page, text in PAGES.items():
        marks = len(re.findall(r"^<!-- (?:run by|not run): ", text, re.M))
        found = sum(
            block.name.startswith(page + ":") and block.mark is not None for block in BLOCKS
        )
        assert found - len(re.findall(r"<!-- signature: ", text)) == marks, page


def test_each_fenced_block_is_of_a_kind_that_a_test_runs():
    """test_docs.py says the same of docs/."""
    for page, text in PAGES.items():
        kinds = [match.group(1) for match in FENCED.finditer(text)]
        if page == "README.md":
            assert kinds == ["python"]
        elif page.startswith("boards/"):
            assert kinds == []


@pytest.mark.parametrize("block", UNMARKED, ids=names_of(UNMARKED))
def test_a_block_without_a_mark_is_python_that_runs(block, tmp_path, monkeypatch):
    certificates.Authority("of the pages").save(tmp_path, "ca")
    (tmp_path / "ca-cert.pem").rename(tmp_path / "ca.pem")
    monkeypatch.chdir(tmp_path)
    names = {"MQTTClient": mqttpipe.MQTTClient, "client": mqttpipe.MQTTClient("mqtt://localhost")}
    before = set(names)
    exec(compile(block.text, block.name, "exec"), names)
    made = {name for name in names if name.isupper()} - before
    known = re.findall(r"^([A-Z]+) =", deploy.EXAMPLE.read_text(encoding="utf-8"), re.M)
    assert made <= set(known), "no settings of secrets.py: %s" % (made - set(known))


def test_each_script_and_each_of_its_options_is_there():
    for block in BLOCKS:
        for script, words in SCRIPT.findall(block.text):
            path = ROOT / script
            paths = [path, *path.with_suffix("").glob("*.py")]
            if script in ("tools/test.py", "tools/deploy.py"):
                paths += [ROOT / "tests" / "conftest.py"]
            source = "".join(each.read_text(encoding="utf-8") for each in paths)
            for option in re.findall(r"(?<= )--[a-z-]+", words):
                assert '"%s"' % option in source, "%s: %s" % (block.name, option)


@pytest.mark.parametrize("page", ["docs/try-it.md", "docs/user-guide.md"])
def test_pub_and_sub_do_what_the_page_says(page, broker):
    found = SCRIPT.findall("".join(block.text for block in BLOCKS if block.name.startswith(page)))
    commands = {}
    for script, words in found:
        if script == "tools/mqtt.py":
            words = shlex.split(re.split(r"\s{2,}", words)[0])
            at = words.index("-h") + 1
            words[at : at + 1] = [broker.host, "-p", str(broker.port)]
            commands[words[0]] = [sys.executable, ROOT / script, *words]
    topic = commands["pub"][commands["pub"].index("-t") + 1]
    payload = commands["pub"][commands["pub"].index("-m") + 1]
    with Program(commands["sub"]) as sub:
        for _ in range(20):
            subprocess.run(commands["pub"], check=True, timeout=TIMEOUT_S)
            try:
                sub.wait_for("^%s %s$" % (topic, payload), 1)
                break
            except AssertionError:
                pass  # it has not subscribed yet
        else:
            pytest.fail("sub prints nothing")
    if "-r" in commands["pub"]:
        options = ["-t", topic, "-r", "-n"]
        subprocess.run([*commands["pub"][:7], *options], check=True, timeout=TIMEOUT_S)
    if "shell" in commands:
        ran = subprocess.run(
            commands["shell"], input="quit\n", capture_output=True, text=True, timeout=TIMEOUT_S
        )
        assert ran.returncode == 0 and "online after" in ran.stdout, ran.stdout


def test_the_certificates_of_the_page_are_trusted_for_each_name(tmp_path):
    """All but the password, which mosquitto_passwd asks for."""
    for line in block_of("boards/README.md", "openssl").text.splitlines():
        if not line.startswith("mosquitto_passwd"):
            subprocess.run(
                line, shell=True, check=True, cwd=tmp_path, capture_output=True, timeout=TIMEOUT_S
            )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    for name in ("192.168.4.2", "localhost"):
        client = mqtt_options.make_context({"cafile": tmp_path / "ca.crt"})
        there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
        ours = client.wrap_bio(back, there, server_hostname=name)
        theirs = server.wrap_bio(there, back, server_side=True)
        for end in (ours, theirs, ours, theirs):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                pass
        assert ours.version() and theirs.version()


def test_the_policy_for_aws_is_json_and_names_what_the_example_uses():
    policy = json.loads(block_of("docs/samples.md", '{"Version"').text)
    allowed = {}
    for each in policy["Statement"]:
        actions = each["Action"]
        for action in [actions] if isinstance(actions, str) else actions:
            allowed[action] = each["Resource"].split(":")[-1]
    shadow = "$aws/things/NAME/shadow/*"
    assert allowed == {
        "iot:Connect": "client/NAME",
        "iot:Publish": "topic/" + shadow,
        "iot:Receive": "topic/" + shadow,
        "iot:Subscribe": "topicfilter/" + shadow,
    }
