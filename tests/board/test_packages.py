"""The ways onto a board other than tools/deploy.py: mip, freezing; and what type checkers know."""

import ast
import functools
import http.server
import importlib.util
import json
import re
import subprocess
import sys
import threading

import pytest
import virtual_board as virtual
from mpremote import mip

import build
import check_types

ROOT = build.ROOT
FOLDER = ROOT / "micropython"
VERSION = build.version_of(build.read_source())
TIMEOUT_S = 60


# ---------------------------------------------------------------------------
# mip
# ---------------------------------------------------------------------------


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture
def web():
    """The URL of a server that has the files of this checkout, as any web server would."""
    handler = functools.partial(Handler, directory=str(ROOT))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield "http://127.0.0.1:%d" % server.server_address[1]
        server.shutdown()
        thread.join(TIMEOUT_S)


def test_mip_installs_from_a_web_server(web, virtual_board, mpremote):
    # A board on which the source can be compiled, as with PSRAM or an RP2350.
    board = virtual_board(virtual.PICO_2_W, heap="400k")
    board.wait_for_output(">>> ")
    mpremote(board, "mip", "install", web + "/micropython")
    assert (board.files / "lib" / "mqttpipe.py").read_bytes() == build.SOURCE.read_bytes()
    printed = mpremote(board, "exec", "import mqttpipe; print(mqttpipe.__version__)")
    assert printed.split()[-1] == VERSION


def test_mip_installs_a_built_client_which_is_all_that_a_small_board_has_memory_for(
    virtual_board, mpremote, tmp_path
):
    subprocess.run(
        [sys.executable, str(ROOT / "tools" / "build.py"), "--out", str(tmp_path)],
        check=True,
        stdout=subprocess.DEVNULL,
        timeout=TIMEOUT_S,
    )
    package = {"urls": [["mqttpipe.mpy", "mqttpipe.mpy"]], "version": VERSION}
    (tmp_path / "package.json").write_text(json.dumps(package))
    board = virtual_board(virtual.ESP32, heap="96k")
    board.wait_for_output(">>> ")
    mpremote(board, "mip", "install", str(tmp_path / "package.json"))
    assert VERSION in mpremote(board, "exec", "import mqttpipe; print(mqttpipe.__version__)")


def test_mip_on_the_board_itself_installs_the_same(web, micropython, tmp_path):
    """mip.install(), as a board with a network calls it; here in the VM, which has it as well.

    The file itself: the mip of a firmware before 1.25 knows no addresses that are relative to
    package.json, nor does Debian's.
    """
    url = web + "/micropython/mqttpipe.py"
    code = "import mip; mip.install(%r, target=%r)" % (url, str(tmp_path))
    ran = subprocess.run(
        [*micropython.command, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=TIMEOUT_S,
        text=True,
    )
    assert ran.stdout.endswith("Done\n"), ran.stdout
    assert (tmp_path / "mqttpipe.py").read_bytes() == build.SOURCE.read_bytes()


class Written:
    """Stands for mpremote's transport: files that it was told to write."""

    def __init__(self):
        self.files = {}

    def fs_exists(self, path):
        return True

    def fs_writefile(self, path, data, progress_callback):
        self.files[path] = data


def test_mip_installs_from_a_checkout():
    transport = Written()
    mip._install_package(transport, str(FOLDER / "package.json"), "", "/lib", None, True)
    assert transport.files == {"/lib/mqttpipe.py": build.SOURCE.read_bytes()}


def test_mip_finds_the_files_in_a_repository(monkeypatch):
    """Nothing is fetched: what it would ask of GitHub and others is looked up in this checkout."""
    asked = []

    def urlopen(url):
        asked.append(url)
        found = re.fullmatch(r"https://\S+?/(micropython/[\w.]+)(?:\?ref=\S+)?", url)
        return open(ROOT / found.group(1), "rb")

    monkeypatch.setattr(mip.urllib.request, "urlopen", urlopen)
    for package, version, place in (
        ("github:org/repo/micropython", None, "raw.githubusercontent.com/org/repo/HEAD/"),
        ("github:org/repo/micropython", "v0.1.0", "raw.githubusercontent.com/org/repo/v0.1.0/"),
        ("gitlab:org/repo/micropython", None, "gitlab.com/org/repo/-/raw/HEAD/"),
        ("codeberg:org/repo/micropython", None, "codeberg.org/api/v1/repos/org/repo/raw/"),
    ):
        asked.clear()
        transport = Written()
        mip._install_package(transport, package, "", "/lib", version, True)
        assert [url.startswith("https://" + place) for url in asked] == [True, True], asked
        assert transport.files == {"/lib/mqttpipe.py": build.SOURCE.read_bytes()}


# ---------------------------------------------------------------------------
# Freezing
# ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def manifestfile():
    """MicroPython's own tools/manifestfile.py."""
    folder = check_types.ensure_packages(
        "manifest", "requirements-manifest.txt", "--ignore-requires-python"
    )
    path = folder / "stubber" / "tools" / "manifestfile.py"
    specification = importlib.util.spec_from_file_location("manifestfile", path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_the_manifest_freezes_the_client(manifestfile):
    manifest = manifestfile.ManifestFile(manifestfile.MODE_FREEZE)
    manifest.execute(str(FOLDER / "manifest.py"))
    (file,) = manifest.files()
    assert (file.full_path, file.target_path) == (str(build.SOURCE), "mqttpipe.py")
    assert file.kind == manifestfile.KIND_FREEZE_AS_MPY and file.opt == build.DEFAULT_OPT
    assert manifest.metadata().version == VERSION and manifest.metadata().license == "MIT"


def test_the_manifest_of_a_board_includes_ours(manifestfile, tmp_path):
    theirs = tmp_path / "manifest.py"
    theirs.write_text('include("$(MQTTPIPE)/micropython")\n')
    for mode in (manifestfile.MODE_FREEZE, manifestfile.MODE_COMPILE):
        manifest = manifestfile.ManifestFile(mode, {"MQTTPIPE": str(ROOT)})
        manifest.execute(str(theirs))
        assert [file.target_path for file in manifest.files()] == ["mqttpipe.py"]


# ---------------------------------------------------------------------------
# The version
# ---------------------------------------------------------------------------


def test_the_version_is_the_same_wherever_it_stands():
    assert json.loads((FOLDER / "package.json").read_text())["version"] == VERSION
    manifest = ast.parse((FOLDER / "manifest.py").read_text())
    (metadata,) = [
        node
        for node in ast.walk(manifest)
        if getattr(getattr(node, "func", 0), "id", 0) == "metadata"
    ]
    words = {word.arg: ast.literal_eval(word.value) for word in metadata.keywords}
    assert words["version"] == VERSION
    # pyproject.toml reads it from the client.
    project = (ROOT / "pyproject.toml").read_text()
    assert 'dynamic = ["version"]' in project and 'path = "micropython/mqttpipe.py"' in project


def test_the_package_lists_files_that_are_there():
    for target, source in json.loads((FOLDER / "package.json").read_text())["urls"]:
        assert target == source and (FOLDER / source).is_file()


# ---------------------------------------------------------------------------
# Types
# ---------------------------------------------------------------------------


@pytest.mark.parametrize("port", check_types.PORTS)
def test_client_and_board_files_fit_the_stubs_of_the_port(port):
    ran = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "check_types.py"), port],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=110,
        text=True,
    )
    assert ran.returncode == 0 and "%s: 0 errors" % port in ran.stdout, ran.stdout


def test_a_call_that_the_port_has_not_is_found(monkeypatch, tmp_path):
    sources = check_types.sources("rp2")
    for name, old, new, word in (
        ("station.py", "machine.WDT(timeout=", "machine.WDT(timeout_s=", "call-overload|call-arg"),
        ("main.py", "rp2.bootsel_button()", "rp2.boot_button()", "attr-defined"),
        ("service.py", "hostname=secrets.NAME", "name=secrets.NAME", "call-arg"),
        ("wifi_core.py", "wlan.isconnected()", "wlan.is_connected()", "attr-defined"),
    ):
        text = sources[name].read_text()
        assert old in text, old
        path = tmp_path / name
        path.write_text(text.replace(old, new))
        changed = dict(sources, **{name: path})
        monkeypatch.setattr(check_types, "sources", lambda port, changed=changed: changed)
        lines = check_types.check("rp2")
        assert [line for line in lines if re.search(r"error: .*\[(%s)\]" % word, line)], lines


def test_the_view_of_a_board_keeps_every_line_s_number():
    text = (
        "try:\n    import a\nexcept ImportError:\n    import b\n\n    try:\n        import c\n"
        "    except ImportError:\n        c = None\nx = 1\n"
    )
    assert check_types.board_view(text) == (
        "try:\n    import a\nexcept ImportError:\n    raise\n\n\n\n\n\nx = 1\n"
    )
