"""tools/release.py: what a release has, that it is the same each time, and what it refuses."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
import zipfile
from pathlib import Path

import pytest

import build
import release
import setup_env
import web_server
from checkouts import share_environment

ROOT = build.ROOT
VERSION = build.version_of(build.read_source())
TOOL = ROOT / "tools" / "release.py"
CLIENTS = ("mqttpipe", "mqttpipe-tiny", "mqttpipe-full", "mqttpipe-mqtt5")
# Seconds. The first run may have to install what tools/requirements-release.txt has.
TIMEOUT_S = 250
pytestmark = pytest.mark.timeout(300)

CHANGELOG = """\
# Changelog

## [Unreleased]
%s
## [1.2.3] - 2026-01-02

### Added

- A thing.

## [1.2.2] - 2026-01-01

- An older one.

[Unreleased]: https://example.org/compare
[1.2.3]: https://example.org/tag
"""


def run_release(*arguments, tool=TOOL, status=0):
    ran = subprocess.run(
        [sys.executable, str(tool), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=TIMEOUT_S,
        text=True,
    )
    assert ran.returncode == status, ran.stdout
    return ran.stdout


def content_of(folder):
    return {name: (folder / name).read_bytes() for name in release.list_files(folder)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A release of this checkout."""
    target = tmp_path_factory.mktemp("release") / "dist"
    run_release("--out", target)
    return target


# ---------------------------------------------------------------------------
# What is in it
# ---------------------------------------------------------------------------


def test_it_has_a_file_for_each_way_onto_a_board_and_a_pc(folder):
    names = {name for name in release.list_files(folder) if not name.startswith("mip/")}
    expected = {"mqttpipe_repl.mpy", "RELEASE_NOTES.md", "SHA256SUMS"}
    for name in CLIENTS:
        expected |= {name + ".mpy", name + ".py", name + ".romfs"}
    expected |= {"mqttpipe-%s-py3-none-any.whl" % VERSION, "mqttpipe-%s.tar.gz" % VERSION}
    assert names == expected


def test_the_clients_are_those_of_the_build(folder, mip_packages):
    for name in CLIENTS:
        package = mip_packages[name]
        assert (folder / (name + ".mpy")).read_bytes() == package.file("6")
        assert (folder / (name + ".py")).read_bytes() == package.file("py")
        image = (folder / (name + ".romfs")).read_bytes()
        assert image[:3] == b"\xd2\xcd\x31" and package.file("6") in image
    commands = mip_packages["mqttpipe-repl"].file("6")
    assert (folder / "mqttpipe_repl.mpy").read_bytes() == commands


def test_the_index_has_each_file_by_its_hash(folder, mip_packages):
    index = json.loads((folder / "mip" / "index.json").read_text())
    assert index["v"] == 2 and type(index["updated"]) is int
    assert [entry["name"] for entry in index["packages"]] == sorted(mip_packages)
    found = set()
    for entry in index["packages"]:
        assert entry["version"] == VERSION and entry["license"] == "MIT"
        assert set(entry["versions"]) == {"6", "py"}
        for kind, versions in entry["versions"].items():
            for version in [*versions, "latest"]:
                path = folder / "mip" / "package" / kind / entry["name"] / (version + ".json")
                package = json.loads(path.read_text())
                assert package["version"] == VERSION and package["v"] == 1
                files = mip_packages[entry["name"]].files[kind]
                assert [name for name, _ in package["hashes"]] == [name for name, _ in files]
                found.add(path.relative_to(folder / "mip").as_posix())
                for (name, digest), (_, content) in zip(package["hashes"], files):
                    assert (name.rpartition(".")[2] == "py") == (kind == "py")
                    file = "file/%s/%s" % (digest[:2], digest)
                    data = (folder / "mip" / file).read_bytes()
                    assert data == content
                    assert hashlib.sha256(data).hexdigest().startswith(digest)
                    found.add(file)
    assert found | {"index.json"} == set(release.list_files(folder / "mip"))


def test_a_web_server_needs_nothing_but_the_folder(folder):
    with web_server.serve(folder) as web:
        address = web.url + "/mip/package/6/mqttpipe/latest.json"
        with urllib.request.urlopen(address, timeout=20) as answer:
            assert json.load(answer)["version"] == VERSION


def test_the_checksums_are_those_of_all_files(folder):
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    sums = {line.partition("  ")[2]: line.partition("  ")[0] for line in lines}
    content = content_of(folder)
    del content["SHA256SUMS"]
    assert sums == {name: hashlib.sha256(data).hexdigest() for name, data in content.items()}


def test_nothing_in_it_names_this_machine_or_its_user(folder):
    places = [
        ROOT / "micropython",
        ROOT / "tools",
        folder.parent,
        tempfile.gettempdir() + "/mqttpipe",
    ]
    texts = dict(content_of(folder))
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        texts.update((name, archive.read(name)) for name in archive.namelist())
    assert len(texts) > 40
    for name, text in texts.items():
        assert [place for place in places if str(place).encode() in text] == [], name
    with tarfile.open(folder / ("mqttpipe-%s.tar.gz" % VERSION)) as archive:
        for member in archive:
            assert member.name.startswith("mqttpipe-%s/" % VERSION), member.name
            assert (member.uid, member.gid, member.uname, member.gname) == (0, 0, "", "")


def test_the_notes_name_each_kind_of_file(folder):
    notes = (folder / "RELEASE_NOTES.md").read_text()
    assert notes.startswith("# mqttpipe " + VERSION)
    patterns = re.findall(r"`([\w*.-]+)`(?=[^|]*\|[^|]*\|$)", notes, re.M)
    for name in release.list_files(folder):
        if not name.startswith(("mip/", "RELEASE_NOTES")):
            assert any(Path(name).match(pattern) for pattern in patterns), name


# ---------------------------------------------------------------------------
# The same each time
# ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A second checkout, with all that is in this one, committed or not; nothing is set up."""
    target = tmp_path_factory.mktemp("clone") / "other"
    command = ["git", "clone", "-q", "--no-hardlinks", str(ROOT), str(target)]
    subprocess.run(command, check=True, timeout=60)
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z"], check=True, stdout=subprocess.PIPE, timeout=60
    )
    for name in listed.stdout.decode().strip("\0").split("\0"):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)
        else:
            (target / name).unlink(missing_ok=True)
    subprocess.run(["git", "-C", str(target), "add", "-A"], check=True, timeout=60)
    share_environment(target)
    return target


def test_another_checkout_at_another_time_makes_the_same_bytes(folder, clone, tmp_path):
    # What only this user has: none of it may get out.
    (clone / "boards" / "secrets.py").write_text("PASSWORD = 'hunter22'\n")
    (clone / "boards" / "key.pem").write_text("the private key\n")
    (clone / "note.txt").write_text("not added to git\n")
    target = tmp_path / "elsewhere" / "release"
    run_release("--out", target, tool=clone / "tools" / "release.py")
    first, second = content_of(folder), content_of(target)
    assert sorted(first) == sorted(second)
    assert [name for name in first if first[name] != second[name]] == []


def test_the_time_in_it_is_what_the_environment_says(monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    assert release.epoch() == 1700000000
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with pytest.raises(release.ReleaseError, match="SOURCE_DATE_EPOCH is 'yesterday': seconds"):
        release.epoch()


def test_it_replaces_a_release_that_it_has_made(folder, mip_packages, monkeypatch, tmp_path):
    make_quickly(monkeypatch, mip_packages)
    target = tmp_path / "dist"
    release.make(target)
    before = content_of(target)
    (target / "mqttpipe.mpy").write_bytes(b"damaged")
    release.make(target)
    assert content_of(target) == before
    assert [path.name for path in tmp_path.iterdir()] == ["dist"]


# ---------------------------------------------------------------------------
# What it refuses
# ---------------------------------------------------------------------------


def make_quickly(monkeypatch, packages):
    """Have make() take packages that are made already, and no archives."""
    monkeypatch.setattr(release, "make_packages", lambda text: list(packages.values()))
    monkeypatch.setattr(release, "write_archives", lambda folder, seconds: None)


@pytest.mark.parametrize("has_release", [False, True])
def test_it_overwrites_no_folder_with_something_of_yours(
    has_release, mip_packages, monkeypatch, tmp_path
):
    make_quickly(monkeypatch, mip_packages)
    target = tmp_path / "dist"
    if has_release:
        release.make(target)
    (target / "mine").mkdir(parents=True)
    (target / "mine" / "thesis.txt").write_text("years of work\n")
    with pytest.raises(release.ReleaseError, match=r"dist has mine/thesis\.txt in it: name ano"):
        release.make(target)
    assert (target / "mine" / "thesis.txt").read_text() == "years of work\n"


def test_checksums_of_something_else_make_a_folder_none_of_ours(
    mip_packages, monkeypatch, tmp_path
):
    make_quickly(monkeypatch, mip_packages)
    (tmp_path / "system.iso").write_bytes(b"downloaded for hours")
    release.write_sums(tmp_path)
    with pytest.raises(release.ReleaseError, match="has SHA256SUMS in it: name another folder"):
        release.make(tmp_path)
    assert (tmp_path / "system.iso").exists()


def test_a_release_that_fails_leaves_what_was_there(mip_packages, monkeypatch, tmp_path):
    make_quickly(monkeypatch, mip_packages)
    target = tmp_path / "dist"
    release.make(target)
    before = content_of(target)

    def fail(folder, seconds):
        raise setup_env.SetupError("hatchling failed")

    monkeypatch.setattr(release, "write_archives", fail)
    with pytest.raises(setup_env.SetupError):
        release.make(target)
    assert content_of(target) == before and len(list(tmp_path.iterdir())) == 1


def test_a_tag_must_be_the_version(monkeypatch):
    with pytest.raises(release.ReleaseError, match=r"the tag is v9\.9\.9, the client's version"):
        release.check_tag("v9.9.9", VERSION)
    monkeypatch.setattr(release, "git", lambda *words: " M README.md\n?? note.txt")
    with pytest.raises(release.ReleaseError, match=r"not committed:  M README\.md, \?\? note"):
        release.check_tag("v" + VERSION, VERSION)
    monkeypatch.setattr(release, "git", lambda *words: "")
    release.check_tag("v" + VERSION, VERSION)


def test_where_there_is_no_git_it_says_so_in_one_line(monkeypatch, tmp_path, capsys):
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    monkeypatch.setattr(release, "ROOT", tmp_path)
    monkeypatch.setattr(setup_env, "reexec_in_venv", lambda requirements: None)
    assert release.main(["--out", str(tmp_path / "dist")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("release: failed: a release is made from a checkout of git, which says")
    assert not (tmp_path / "dist").exists()


# ---------------------------------------------------------------------------
# The notes
# ---------------------------------------------------------------------------


def test_what_git_warns_of_is_no_part_of_its_answer(monkeypatch):
    """Else the first file that it lists would have another name, and be left out."""
    names = release.git("ls-files", "-z")
    monkeypatch.setenv("GIT_TRACE", "1")
    assert release.git("ls-files", "-z") == names


def test_a_git_that_does_not_end_is_told(monkeypatch):
    def run(command, **options):
        raise subprocess.TimeoutExpired(command, options["timeout"])

    monkeypatch.setattr(release.subprocess, "run", run)
    with pytest.raises(release.ReleaseError, match="git .*timed out after 30 s"):
        release.git("status")


def test_the_notes_are_the_section_of_the_version():
    for tag in (None, "v1.2.3"):
        notes = release.make_notes(CHANGELOG % "", "1.2.3", tag)
        assert notes.startswith("# mqttpipe 1.2.3\n\n### Added\n\n- A thing.\n\n## The files\n")
        assert "older" not in notes and "example.org" not in notes


def test_what_is_not_released_yet_is_told_without_a_tag_and_refused_with_one():
    changelog = CHANGELOG % "\n- A new thing.\n"
    notes = release.make_notes(changelog, "1.2.3")
    assert notes.startswith("# mqttpipe 1.2.3, and what came after it\n\n- A new thing.\n\n## The")
    with pytest.raises(release.ReleaseError, match=r"under Unreleased: give them the version"):
        release.make_notes(changelog, "1.2.3", "v1.2.3")


@pytest.mark.parametrize("heading", ["## [1.2.4]", "## 1.2.4 - 2026-01-03", "## [1.2.4] - today"])
def test_a_version_without_a_dated_section_is_refused(heading):
    changelog = CHANGELOG.replace("## [1.2.3] - 2026-01-02", heading) % ""
    with pytest.raises(release.ReleaseError, match=r"no section `## \[1\.2\.4\] - YYYY-MM-DD`"):
        release.make_notes(changelog, "1.2.4")
