"""Freezing into a firmware, the version wherever it stands, and what type checkers know."""

import ast
import importlib.util
import re
import subprocess
import sys

import pytest

import build
import check_types

ROOT = build.ROOT
FOLDER = ROOT / "micropython"
VERSION = build.version_of(build.read_source())


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
    (dynamic,) = re.findall(r"^dynamic = (.*)$", project, re.M)
    assert "version" in ast.literal_eval(dynamic)
    assert 'path = "micropython/mqttpipe.py"' in project


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
