"""tools/debian_sources.py, with an apt-get that writes what it is told to download.

No address in here is real: example.org is reserved for examples.
"""

import shutil
import tarfile

import pytest

import debian_sources
from setup_env import SetupError

# Writes the tarballs of the packages that it is asked for, in the version that the list has.
APT_GET = """\
#!/bin/sh
echo "$*" >>"{log}"
case "$*" in
*update*)
    grep -q "^deb-src .* {suite} main" "$(dirname "$2")/sources.list" || exit 100
    ;;
*source*)
    case "$*" in
    *--diff-only*) touch one_1.9+ds-1.debian.tar.xz one_1.9+ds-1.dsc;;
    *) touch one_1.9+ds.orig.tar.xz one_1.9+ds.orig.tar.xz.asc two_2.0.orig.tar.bz2;;
    esac
    ;;
esac
"""


@pytest.fixture
def apt(tmp_path, monkeypatch):
    """apt(suite): put an apt-get on the PATH that has this suite; returns what it was told."""
    keyring = tmp_path / "keyring"
    keyring.touch()
    monkeypatch.setattr(debian_sources, "CACHE", tmp_path / "sources")
    monkeypatch.setattr(debian_sources.get_micropython, "KEYRINGS", (str(keyring),))
    mirrors = ["http://deb.example.org/debian"]
    monkeypatch.setattr(debian_sources.get_micropython, "find_mirrors", lambda: mirrors)
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    for name in ("sh", "grep", "dirname", "touch"):
        (bin_folder / name).symlink_to(shutil.which(name))
    monkeypatch.setenv("PATH", str(bin_folder))

    def add(suite):
        log = tmp_path / "log"
        log.touch()
        for name in ("apt-get", "apt-config"):
            program = bin_folder / name
            program.write_text(APT_GET.format(log=log, suite=suite))
            program.chmod(0o755)
        return lambda: log.read_text().splitlines()

    return add


def test_what_lacks_is_fetched_once_and_found_from_then_on(apt):
    told = apt("trixie")
    assert debian_sources.find("trixie", ["one", "two"]) == {}
    found = debian_sources.fetch("trixie", ["one", "two"])
    assert {name: path.name for name, path in found.items()} == {
        "one": "one_1.9+ds.orig.tar.xz",
        "two": "two_2.0.orig.tar.bz2",
    }
    assert all(path.is_file() for path in found.values())
    assert len(told()) == 2 and told()[1].endswith("--tar-only --download-only one two")
    assert debian_sources.fetch("trixie", ["one", "two"]) == found
    assert debian_sources.find("trixie", ["one", "two"]) == found
    assert len(told()) == 2


def test_debian_s_patches_are_fetched_when_they_are_asked_for(apt):
    told = apt("trixie")
    debian_sources.fetch("trixie", ["one"])
    assert debian_sources.find("trixie", ["one"], "diff") == {}
    patches = debian_sources.fetch("trixie", ["one"], "diff")["one"]
    assert patches.name == "one_1.9+ds-1.debian.tar.xz" and patches.is_file()
    assert debian_sources.version(patches) == "1.9"
    assert told()[-1].endswith("--diff-only --download-only one")
    with pytest.raises(SetupError, match="Debian trixie has no patches of two"):
        debian_sources.fetch("trixie", ["two"], "diff")


def test_only_what_lacks_is_asked_for(apt):
    told = apt("trixie")
    debian_sources.fetch("trixie", ["one"])
    (debian_sources.CACHE / "trixie" / "two_2.0.orig.tar.bz2").unlink()
    debian_sources.fetch("trixie", ["one", "two"])
    assert told()[-1].endswith("--download-only two")


def test_a_suite_whose_list_is_broken_is_had_by_its_other_name(apt):
    told = apt("stable")
    assert debian_sources.fetch("trixie", ["one"])
    assert len(told()) == 3  # two lists, one download


def test_a_package_that_debian_lacks_is_told_and_nothing_is_left_over(apt):
    apt("trixie")
    with pytest.raises(SetupError, match="Debian trixie has no upstream tarball of three"):
        debian_sources.fetch("trixie", ["three"])
    assert sorted(path.name for path in debian_sources.CACHE.iterdir()) == [".lock", "trixie"]


def test_on_a_system_without_apt_the_reason_is_said(apt):
    with pytest.raises(SetupError, match=r"not a Debian system \(no apt-get\)"):
        debian_sources.fetch("trixie", ["one"])


def test_the_newest_version_counts_not_the_last_name(apt):
    folder = debian_sources.CACHE / "sid"
    folder.mkdir(parents=True)
    for name in ("one_1.9.orig.tar.xz", "one_1.10.1+ds.orig.tar.xz", "one-more_9.orig.tar.xz"):
        (folder / name).touch()
    found = debian_sources.find("sid", ["one"])["one"]
    assert debian_sources.version(found) == "1.10.1"


def test_a_tarball_is_unpacked_without_the_folder_around_it(tmp_path):
    (tmp_path / "made" / "one-1.9" / "src").mkdir(parents=True)
    (tmp_path / "made" / "one-1.9" / "src" / "one.c").write_text("int one;\n")
    tarball = tmp_path / "one_1.9.orig.tar.gz"
    with tarfile.open(tarball, "w:gz") as archive:
        archive.add(tmp_path / "made" / "one-1.9", "one-1.9")
    debian_sources.unpack(tarball, tmp_path / "here")
    assert (tmp_path / "here" / "src" / "one.c").read_text() == "int one;\n"
