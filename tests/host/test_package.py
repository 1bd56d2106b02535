"""What pip installs: the client, its types, the command `mqttpipe`, and nothing that harms others.

Programs run in an empty folder and an environment that has nothing but that: tests/installing.py.
"""

import ast
import os
import pathlib
import re
import sys
import tempfile
import zipfile

import pytest

import build
import commands
import installing
import setup_env
from installing import PIP, Environment, checked, run

ROOT = setup_env.ROOT
TYPED = pathlib.Path(__file__).parent / "typed"

# All that belongs at the top of everybody's site-packages.
TOP_LEVEL = {"mqttpipe.py", "mqttpipe_repl.py", "mqttpipe-stubs", "mqttpipe_host"}


@pytest.fixture(scope="module")
def tools_python():
    return installing.tools_python()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return installing.make_wheel(tmp_path_factory.mktemp("checkout"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    environment = Environment(tmp_path_factory.mktemp("installed") / "venv")
    environment.install(wheel)
    return environment


@pytest.fixture(scope="module")
def with_extra(wheel, tools_python, tmp_path_factory):
    """An environment that has what `pip install mqttpipe[board]` brings: that of the tests."""
    environment = Environment(tmp_path_factory.mktemp("with-extra") / "venv")
    environment.install(wheel)
    environment.add(tools_python)
    return environment


# ---------------------------------------------------------------------------
# What is installed
# ---------------------------------------------------------------------------


def test_site_packages_gets_two_modules_types_and_one_package(installed):
    names = {path.name for path in installed.site.iterdir()} - {"__pycache__"}
    assert {name for name in names if not name.endswith(".dist-info")} == TOP_LEVEL
    # These would make other programs believe that they run on a board.
    assert not list(installed.site.rglob("machine.py")) or all(
        "firmware" in path.parts for path in installed.site.rglob("machine.py")
    )
    assert not list(installed.site.rglob("micropython.py"))


def test_the_client_is_the_file_that_goes_on_a_board(installed):
    for name in ("mqttpipe.py", "mqttpipe_repl.py"):
        source = (ROOT / "micropython" / name).read_bytes()
        assert (installed.site / name).read_bytes() == source
        assert (installed.site / "mqttpipe_host" / "micropython" / name).read_bytes() == source


def test_no_secret_of_the_checkout_goes_into_the_wheel(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        assert not [name for name in names if re.search(r"/secrets\.py$|\.(pem|der)$", name)]
        secret = installing.SECRET.encode()
        assert not [name for name in names if secret in archive.read(name)]


def test_each_link_of_the_page_on_pypi_leads_out_of_pypi(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        page = archive.read(name).decode()
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    files = re.search(r'^Repository = "(.*)"$', project, re.M)[1] + "/blob/main/"
    targets = re.findall(r"\]\(([^)]+)\)", page)
    assert targets and len(targets) == len(re.findall(r"\]\(([^)]+)\)", readme))
    (site,) = re.findall('^Documentation = "(.*)"$', project, re.M)
    images = [target[len(site) :] for target in targets if target.endswith("/demo.svg")]
    assert images == ["demo.svg"] and (ROOT / "docs" / "demo.svg").is_file()
    for target in targets:
        assert re.match("https://|#", target), target
        if target.startswith(files):
            assert (ROOT / target[len(files) :].split("#")[0]).is_file(), target


def test_each_tool_has_all_that_it_imports(installed):
    tools = installed.site / "mqttpipe_host" / "tools"
    folders = ["tools", *["tools/" + path.name for path in tools.iterdir() if path.is_dir()]]
    ours = {path.stem for folder in folders for path in (ROOT / folder).glob("*.py")}
    there = {path.stem for path in tools.rglob("*.py")}
    for path in sorted(tools.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                names = [node.module] if isinstance(node, ast.ImportFrom) else []
            assert not (ours - there).intersection(names), (path.name, names)
        for name in re.findall(r'"(requirements-[a-z]+\.txt)"', path.read_text(encoding="utf-8")):
            if path.name != "setup_env.py":  # names its own default
                assert (tools / name).is_file(), (path.name, name)


def test_the_extra_is_what_the_tools_for_boards_need():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    extra = re.findall(r'"([^"]+)"', re.search(r"^board = \[(.*?)\]", project, re.M | re.S)[1])
    needed = (setup_env.TOOLS / "requirements-deploy.txt").read_text(encoding="utf-8")
    for line in needed.splitlines():
        if line and not line.startswith("#"):
            # Of what others use as well, and of certificates, a newer one serves.
            assert line in extra or line.replace("==", ">=") in extra, line


def test_the_version_stands_in_one_place(installed):
    version = build.version_of(build.read_source())
    assert 'version = "%s"' % version not in (ROOT / "pyproject.toml").read_text()
    assert (installed.site / ("mqttpipe-%s.dist-info" % version)).is_dir()


# ---------------------------------------------------------------------------
# The client
# ---------------------------------------------------------------------------


def test_the_client_imports_from_any_folder(installed, tmp_path):
    code = (
        "import sys; before = list(sys.path); import mqttpipe;"
        "client = mqttpipe.MQTTClient('mqtt://127.0.0.1:9'); client.connect();"
        "print(mqttpipe.__version__, client.step(), sys.path[:len(before)] == before)\n"
        "for name in ('machine', 'micropython', 'network', 'board_bus'):\n"
        "    try: __import__(name); print('found', name)\n"
        "    except ImportError: pass"
    )
    printed = checked([installed.python, "-c", code], tmp_path)
    assert printed.split() == [build.version_of(build.read_source()), "True", "True"]


def test_nothing_of_it_is_found_before_the_client_is_imported(installed, tmp_path):
    code = "import importlib.util as u; print(u.find_spec('shim_time'), u.find_spec('deploy'))"
    assert checked([installed.python, "-c", code], tmp_path).split() == ["None", "None"]


def test_the_commands_for_a_repl_import(installed, tmp_path):
    code = "from mqttpipe_repl import *; mqtt_status(); mqtt_start('mqtt://')"
    printed = checked([installed.python, "-c", code], tmp_path)
    assert printed.startswith("not started: mqtt_start(uri)\nmqtt_start: "), printed


def test_pip_install_with_a_target_works_too(wheel, tools_python, tmp_path):
    target = tmp_path / "site"
    pip = [tools_python, "-m", "pip", "install", "-q", "--no-index", "--no-deps"]
    checked([*pip, "--target", target, wheel], tmp_path, **PIP)
    code = "import mqttpipe; print(mqttpipe.__file__)"
    printed = checked([sys.executable, "-c", code], tmp_path, PYTHONPATH=str(target))
    assert printed.strip() == str(target / "mqttpipe.py")


def test_without_the_shim_the_error_says_what_to_install(tmp_path):
    status, printed = run([sys.executable, "-c", "import mqttpipe"], ROOT / "micropython")
    assert status == 1 and "pip install ." in printed and "pip install mqttpipe" in printed


def test_a_checkout_is_enough_with_both_folders_on_the_path(tmp_path):
    path = os.pathsep.join([str(ROOT / "micropython"), str(ROOT / "cpython_shim")])
    code = "import mqttpipe, shim_time, sys; print(mqttpipe.ticks_ms is shim_time.ticks_ms)"
    assert checked([sys.executable, "-c", code], tmp_path, PYTHONPATH=path) == "True\n"


def test_an_editable_install_runs_the_checkout(tools_python, tmp_path):
    environment = Environment(tmp_path / "venv")
    environment.add(tools_python)  # hatchling
    environment.install("--editable", ROOT)
    code = "import mqttpipe; print(mqttpipe.__file__)"
    printed = checked([environment.python, "-c", code], tmp_path)
    assert printed.strip() == str(ROOT / "micropython" / "mqttpipe.py")
    printed = checked([environment.command, "board", "deploy", "--help"], tmp_path)
    assert "python3 tools/deploy.py" in printed


# ---------------------------------------------------------------------------
# The command
# ---------------------------------------------------------------------------


def test_a_command_that_is_none_is_told_with_the_one_that_may_be_meant(installed, tmp_path):
    def told(*words):
        status, printed = installing.run([installed.command, *words], tmp_path)
        assert status == 2, words
        return printed

    assert "'deploy': mqttpipe board deploy is meant?" in told("deploy", "--port", "x")
    assert "'publish': there are pub, sub, " in told("publish", "-t", "x")
    assert "'board nonsense': there are pub" in told("board", "nonsense", "-x")
    usage = checked([installed.command, "--help"], tmp_path)
    for words in (["-h"], ["--help"], ["help"]):
        assert checked([installed.command, "board", *words], tmp_path) == usage
    assert told() == usage


def test_the_help_has_every_command_and_each_has_a_help_of_its_own(installed, tmp_path):
    printed = checked([installed.command, "--help"], tmp_path)
    assert printed == checked([installed.python, "-m", "mqttpipe_host", "--help"], tmp_path)
    for words in commands.COMMANDS:
        assert re.search("^  mqttpipe %s  " % words, printed, re.M), words
        own = checked([installed.command, *words.split(), "--help"], tmp_path)
        assert "mqttpipe " + words.replace("doctor", "deploy") in own, own
        # What the extra has brought is not set up once more.
        assert "Set up, once: " not in own, own
        # There is no checkout to start these from, or to keep anything in.
        assert not re.search(r"python3 tools/|mqtt\.py|\.venv|[^/]boards/secrets", own), own


def test_version_is_that_of_the_client(installed, tmp_path):
    version = "mqttpipe %s\n" % build.version_of(build.read_source())
    assert checked([installed.command, "--version"], tmp_path) == version
    assert checked([installed.python, "-m", "mqttpipe_host", "--version"], tmp_path) == version


@pytest.mark.parametrize("words", [[], ["publish"], ["board"], ["board", "flash"], ["--port"]])
def test_a_wrong_command_is_named_and_the_right_ones_too(words, installed, tmp_path):
    status, printed = run([installed.command, *words], tmp_path)
    assert status == 2 and "board emulate" in printed, printed
    if words:
        assert printed.count("\n") == 1 and "'%s'" % " ".join(words) in printed, printed


def test_wrong_options_name_the_command(installed, tmp_path):
    status, printed = run([installed.command, "pub", "--no-such-option"], tmp_path)
    assert status == 1 and "'mqttpipe pub --help'" in printed, printed
    status, printed = run([installed.command, "board", "deploy", "--speed", "9"], tmp_path)
    assert status == 2 and printed.startswith("usage: mqttpipe board deploy "), printed


def test_sub_prints_what_pub_has_published(installed, broker, tmp_path):
    where = ["-h", broker.host, "-p", broker.port, "-t", "package/%d" % os.getpid()]
    command = [installed.command, "pub", *where, "-q", "1", "-r", "-m", "from pip"]
    checked(command, tmp_path)
    command = [installed.python, "-m", "mqttpipe_host", "sub", *where, "-C", "1", "-W", "20"]
    assert checked(command, tmp_path) == "from pip\n"
    checked([installed.command, "pub", *where, "-r", "-n"], tmp_path)  # forget it


def test_a_board_s_tool_builds_the_same_client_as_in_the_checkout(with_extra, tmp_path):
    tools = with_extra.site / "mqttpipe_host" / "tools"
    command = [with_extra.python, tools / "build.py", "--profile", "tiny", "--out", tmp_path]
    checked(command, tmp_path, XDG_CACHE_HOME=str(tmp_path / "cache"))
    text = build.read_source()
    switches = build.find_switches(text)
    text = build.configure(text, switches, build.parts_of("tiny", switches))
    assert (tmp_path / "mqttpipe.mpy").read_bytes() == build.compile_mpy(text)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["mqttpipe"]


def test_deploy_with_the_extra_sets_nothing_up_and_says_what_lacks(with_extra, tmp_path):
    cache = tmp_path / "cache"
    command = [with_extra.command, "board", "deploy", "--port", tmp_path / "no-port"]
    status, printed = run(command, tmp_path, XDG_CACHE_HOME=str(cache))
    assert status == 1 and "there is no port " in printed, printed
    assert "setup:" not in printed and not (cache / "mqttpipe" / "venv").exists(), printed


# ---------------------------------------------------------------------------
# Where the tools keep what they need
# ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("platform", "variables", "folder"),
    [
        ("linux", {}, "~/.cache"),
        ("linux", {"XDG_CACHE_HOME": "/var/tmp/cache"}, "/var/tmp/cache"),
        ("linux", {"XDG_CACHE_HOME": "relative"}, "~/.cache"),
        ("darwin", {}, "~/Library/Caches"),
    ],
)
def test_the_cache_lies_where_the_system_has_it(platform, variables, folder, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(setup_env.sys, "platform", platform)
    assert str(setup_env.user_cache()) == os.path.expanduser(folder)


def test_a_user_without_a_home_has_a_cache_too(monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(setup_env.os.path, "expanduser", lambda path: path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = tmp_path / ("mqttpipe-%d" % os.getuid())
    assert setup_env.user_cache() == folder / ".cache"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert setup_env.user_cache() == folder / ".cache"


@pytest.mark.parametrize("what", ["writable", "link", "file"])
def test_no_program_is_taken_from_a_temporary_folder_that_somebody_else_writes_to(
    what, monkeypatch, tmp_path
):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(setup_env.os.path, "expanduser", lambda path: path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    tmp_path.chmod(0o1777)
    folder = tmp_path / ("mqttpipe-%d" % os.getuid())
    if what == "link":
        folder.symlink_to(tmp_path)
    elif what == "file":
        folder.touch()
    else:
        folder.mkdir()
        folder.chmod(0o777)
    found = setup_env.user_cache()
    assert found.parent != folder and found.parent.stat().st_mode & 0o777 == 0o700


def test_where_the_folder_was_removed_the_tools_start_all_the_same(monkeypatch):
    """As under a service whose folder was replaced: `pub` needs none."""

    def refuse():
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(os, "getcwd", refuse)
    assert setup_env.user_folder() == pathlib.Path()


def test_a_checkout_keeps_all_in_itself():
    assert setup_env.IS_CHECKOUT and setup_env.CACHE == ROOT / ".cache"
    assert setup_env.VENV == ROOT / ".venv" and setup_env.USER_FOLDER == ROOT / "boards"


def test_installed_tools_keep_it_in_the_cache_and_take_the_user_s_files_from_here(
    installed, tmp_path
):
    code = "import setup_env as s; print(s.IS_CHECKOUT, s.CACHE, s.VENV, s.USER_FOLDER, sep='\\n')"
    tools = str(installed.site / "mqttpipe_host" / "tools")
    variables = {"PYTHONPATH": tools, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    printed = checked([installed.python, "-c", code], tmp_path, **variables).splitlines()
    cache = tmp_path / "cache" / "mqttpipe"
    assert printed == ["False", str(cache), str(cache / "venv"), str(tmp_path)]


def test_requirements_are_met_by_the_same_version_or_a_newer_one(tmp_path):
    version = pytest.__version__
    major = int(version.split(".")[0])
    for line, is_met in (
        ("pytest==%s" % version, True),
        ("pytest==%d.0  # long ago" % (major - 1), True),
        ("pytest==%d.0.0.post2" % (major + 1), False),
        ("no-such-package-anywhere==1.0", False),
        ("# nothing", True),
    ):
        (tmp_path / "requirements.txt").write_text("# what it needs\n%s\n" % line)
        assert setup_env.has_requirements(tmp_path / "requirements.txt") is is_met, line


def test_what_lacks_goes_into_an_environment_in_the_cache(monkeypatch, tmp_path):
    file = tmp_path / "requirements.txt"
    monkeypatch.setattr(setup_env, "IS_CHECKOUT", False)
    monkeypatch.setattr(setup_env, "ensure_venv", lambda file: tmp_path / "python")
    file.write_text("no-such-package-anywhere==1.0\n")
    assert setup_env.find_python(file) == tmp_path / "python"
    file.write_text("pytest==1.0\n")
    assert setup_env.find_python(file) == pathlib.Path(sys.executable)
    monkeypatch.setattr(setup_env, "IS_CHECKOUT", True)  # whose versions are pinned
    assert setup_env.find_python(file) == tmp_path / "python"


# ---------------------------------------------------------------------------
# Types
# ---------------------------------------------------------------------------


def test_a_path_is_told_as_it_is_where_there_is_no_checkout(monkeypatch):
    monkeypatch.setattr(setup_env, "IS_CHECKOUT", False)
    assert commands.said("there is no boards/secrets.py") == "there is no secrets.py"
    for text in ("/home/jo/boards/secrets.py is written", "my-boards/secrets.py"):
        assert commands.said(text) == text


def test_the_types_are_those_of_the_client(installed, tools_python, tmp_path):
    """Each public name, each method and each argument with its default."""
    environment = {"PYTHONPATH": str(installed.site), "MYPYPATH": str(installed.site)}
    command = [tools_python, "-m", "mypy.stubtest", "mqttpipe"]
    assert "no issues found" in checked(command, tmp_path, **environment)


def test_what_the_api_page_has_is_typed():
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    stub = (ROOT / "cpython_shim" / "mqttpipe-stubs" / "__init__.pyi").read_text(encoding="utf-8")
    names = re.findall(r"^#### \w+\.(\w+)\(", page, re.M)
    counters = page.index("| counter | counts |"), page.index("### Callbacks")  # keys of a dict
    tables = page[page.index("### Attributes") : counters[0]]
    tables += page[counters[1] : page.index("## class Messages")]
    for cell in re.findall(r"^\| (`\w+[(`].*?) \|", tables, re.M):
        names += re.findall(r"`(\w+)", cell)
    assert len(names) > 40, names
    for name in names:
        assert re.search(r"\b(def %s\(|%s: )" % (name, name), stub), name


class Checker:
    """A type checker, strict: run() returns the numbers of the lines that it finds wrong."""

    def __init__(self, name, tools_python, installed, folder):
        self.folder = folder
        if name == "mypy":
            self.command = [tools_python, "-m", "mypy", "--strict", "--python-executable"]
        else:
            (folder / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict"}')
            self.command = [tools_python, "-m", "pyright", "--pythonpath"]
        self.command.append(installed.python)

    def run(self, source):
        path = self.folder / source.name
        path.write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
        status, printed = run([*self.command, path.name], self.folder)
        lines = {int(n) for n in re.findall(r"%s:(\d+):.*error: " % path.name, printed)}
        lines |= {int(n) for n in re.findall(r"%s:(\d+):\d+ - error: " % path.name, printed)}
        assert (status == 0) == (not lines) and "error" in printed + "errors", printed
        assert status in (0, 1), printed
        return lines


@pytest.fixture(params=["mypy", "pyright"])
def checker(request, tools_python, installed, tmp_path):
    return Checker(request.param, tools_python, installed, tmp_path)


def test_a_program_that_uses_the_whole_api_passes(checker):
    assert checker.run(TYPED / "right.py") == set()


def test_each_wrong_use_is_found_and_nothing_else(checker):
    lines = (TYPED / "wrong.py").read_text(encoding="utf-8").splitlines()
    wrong = {number for number, line in enumerate(lines, 1) if line.endswith("# wrong")}
    found = checker.run(TYPED / "wrong.py")
    assert found >= wrong and len(wrong) > 20, wrong - found
    # What is made of something wrong may be told as well.
    assert found - wrong <= {n for n, line in enumerate(lines, 1) if "print(" in line}


def test_the_program_of_the_right_types_uses_every_public_name():
    tree = ast.parse((TYPED / "right.py").read_text(encoding="utf-8"))
    used = {getattr(n, field, None) for n in ast.walk(tree) for field in ("id", "attr", "arg")}
    stub = ROOT / "cpython_shim" / "mqttpipe-stubs" / "__init__.pyi"
    statements = ast.parse(stub.read_text(encoding="utf-8")).body
    for node in list(statements):
        statements += node.body if isinstance(node, ast.ClassDef) and node.name[0] != "_" else []
    names = [getattr(getattr(node, "target", node), "name", None) for node in statements]
    names += [node.target.id for node in statements if isinstance(node, ast.AnnAssign)]
    names = {name for name in names if name and not name.startswith("_")} - {"Messages"}
    assert len(names) > 50 and names <= used, names - used


# ---------------------------------------------------------------------------
# Versions of Python
# ---------------------------------------------------------------------------


def test_nothing_needs_more_than_the_oldest_python(tools_python, installed, tmp_path):
    """Syntax, modules and functions; what a call does with its arguments is not seen."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    oldest = re.search(r'requires-python = ">=(3\.\d+)"', project)[1]
    classifiers = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', project)
    assert classifiers[0] == oldest and classifiers[-1] == "3.14" and len(classifiers) == 6
    folders = [installed.site / name for name in ("mqttpipe.py", "mqttpipe_repl.py")]
    folders += [installed.site / "mqttpipe_host" / name for name in ("cpython_shim", "tools")]
    command = [tools_python.with_name("vermin"), "--target=%s-" % oldest, "--no-tips"]
    command += ["--violations", "--eval-annotations", *folders]
    assert "Minimum required versions: " in checked(command, tmp_path)
