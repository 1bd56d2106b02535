"""tools/get_esp32_sockets.py: what is there, and what is said when it can't be had."""

import re
import shutil

import pytest

import get_esp32_sockets
import get_micropython
import setup_env
from setup_env import SetupError

VERSION = "MicroPython v1.2.3 on 2025-01-01"


@pytest.fixture
def nothing_built(tmp_path, monkeypatch):
    """A copy of the variant's folder; nothing was built before."""
    variant = tmp_path / "variant"
    shutil.copytree(get_esp32_sockets.VARIANT, variant)
    monkeypatch.setattr(get_esp32_sockets, "VARIANT", variant)
    monkeypatch.setattr(get_esp32_sockets, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(get_esp32_sockets, "PROGRAM", tmp_path / "cache" / "micropython")
    monkeypatch.setattr(get_esp32_sockets, "STAMP", tmp_path / "cache" / "stamp")
    get_micropython.probe.cache_clear()
    yield variant
    get_micropython.probe.cache_clear()


def build(folder):
    program = folder / "built"
    answer = 'echo "micropython True 3.4.0; %s"\n' % VERSION
    program.write_text("#!/bin/sh\n" + answer)
    program.chmod(0o755)
    return program


def fail_if_called(*arguments):
    raise AssertionError("there was nothing to do")


def test_it_is_built_once_and_again_when_the_variant_has_changed(nothing_built, monkeypatch):
    monkeypatch.setattr(get_esp32_sockets, "install_lacking", lambda: None)
    monkeypatch.setattr(get_esp32_sockets, "build", build)
    assert get_esp32_sockets.find() is None
    command = get_esp32_sockets.ensure()
    assert command == [str(get_esp32_sockets.PROGRAM)]
    assert get_esp32_sockets.version(command) == VERSION
    monkeypatch.setattr(get_esp32_sockets, "build", fail_if_called)
    assert get_esp32_sockets.ensure() == get_esp32_sockets.find() == command
    with open(nothing_built / "include" / "lwipopts.h", "a") as file:
        file.write("#define TCP_WND 2880\n")
    assert get_esp32_sockets.find() is None
    monkeypatch.setattr(get_esp32_sockets, "build", build)
    assert get_esp32_sockets.ensure() == command


def test_who_may_not_install_is_told_all_that_lacks_in_one_line(
    nothing_built, monkeypatch, tmp_path, capsys
):
    (tmp_path / "apt-get").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(setup_env, "is_root", lambda: False)
    assert get_esp32_sockets.ensure() is None
    packages = "gcc make pkg-config libc6-dev libffi-dev libslirp-dev"
    said = "esp32-sockets: not available: please run: sudo apt-get install %s\n" % packages
    assert capsys.readouterr().out == said
    assert [path.name for path in get_esp32_sockets.CACHE.iterdir()] == [".lock"]


def test_a_folder_with_a_blank_is_told_before_anything_is_made(nothing_built, monkeypatch, capsys):
    """make takes it for two."""
    for name in ("CACHE", "VARIANT"):
        with monkeypatch.context() as patch:
            patch.setattr(get_esp32_sockets, name, nothing_built / "my project")
            patch.setattr(get_esp32_sockets, "build", fail_if_called)
            assert get_esp32_sockets.ensure() is None
        said = capsys.readouterr().out
        assert "my project': make takes a path with a blank for two: move " in said
        assert said.startswith("esp32-sockets: not available: ") and said.count("\n") == 1


def test_where_nothing_can_be_kept_the_reason_is_said(nothing_built, capsys):
    get_esp32_sockets.CACHE.write_text("")
    assert get_esp32_sockets.ensure() is None
    assert "not available: can't write " in capsys.readouterr().out


def test_what_was_built_before_is_not_taken_when_the_new_one_fails(
    nothing_built, monkeypatch, capsys
):
    monkeypatch.setattr(get_esp32_sockets, "install_lacking", lambda: None)
    monkeypatch.setattr(get_esp32_sockets, "build", build)
    assert get_esp32_sockets.ensure()
    (nothing_built / "hostnet.c").write_text("int x\n")

    def fail(folder):
        raise SetupError("make failed (2): expected ;")

    monkeypatch.setattr(get_esp32_sockets, "build", fail)
    assert get_esp32_sockets.ensure() is None
    assert "not available: make failed (2): expected ;" in capsys.readouterr().out
    assert get_esp32_sockets.find() is None


def test_every_setting_of_the_table_is_what_is_set():
    """The table says what ESP-IDF documents, the lines below it what is built."""
    text = (get_esp32_sockets.VARIANT / "include" / "lwipopts.h").read_text()
    defined = dict(re.findall(r"#define (\w+) (\w+)", text))
    rows = re.findall(r"//   ([A-Z0-9_, ]+?) +(\d+|y|n|MSS)  (.*)", text)
    assert len(rows) >= 25
    for name, default, option in rows:
        option, _, changed = option.partition("; MicroPython: ")
        value = changed or default
        for one in name.split(", ") if option == "the same" else option.split(", "):
            if one == "LWIP_NOASSERT":
                assert "#define LWIP_NOASSERT\n" in text
                continue
            expected = {"y": "1", "n": "0", "MSS": "TCP_MSS"}.get(value, value)
            assert defined[one] == expected, one
