"""tools/get_lwip_board.py: what can be tried without a network or a compiler."""

import pathlib
import shutil
import threading

import pytest

import debian_sources
import get_lwip_board
from setup_env import SetupError

WAIT_S = 20


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with all programs and sources, and a firmware folder of its own; made: a list."""
    made = []

    def make(tree, folder, frozen):
        made.append(frozen)
        (folder / "firmware.elf").write_bytes(b"whole")
        return folder / "firmware.elf"

    def find(suite, packages):
        return {name: pathlib.Path("%s_1.2.3.orig.tar.xz" % name) for name in packages}

    shutil.copytree(get_lwip_board.FIRMWARE, tmp_path / "firmware")
    monkeypatch.setattr(get_lwip_board, "FIRMWARE", tmp_path / "firmware")
    monkeypatch.setattr(get_lwip_board, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(get_lwip_board.setup_env, "find_program", lambda name: "/bin/" + name)
    monkeypatch.setattr(get_lwip_board, "install_programs", lambda: None)
    monkeypatch.setattr(get_lwip_board, "unpack", lambda suite, tree: tree.mkdir())
    monkeypatch.setattr(get_lwip_board, "make", make)
    monkeypatch.setattr(debian_sources, "find", find)
    monkeypatch.setattr(debian_sources, "fetch", find)
    return made


def files_in_cache():
    return sorted(path.name for path in get_lwip_board.CACHE.iterdir())


def test_what_lacks_is_built_once_and_then_found(machine, capsys):
    assert get_lwip_board.find() is None
    built = get_lwip_board.ensure()
    assert built == get_lwip_board.find() == get_lwip_board.ensure()
    assert built.read_bytes() == b"whole"
    assert len(machine) == 1
    assert "building MicroPython 1.2.3, lwIP 1.2.3, mbedTLS 1.2.3" in capsys.readouterr().out


def test_a_changed_firmware_folder_makes_another_one(machine):
    first = get_lwip_board.ensure()
    with open(get_lwip_board.FIRMWARE / "lan" / "lan_eth.c", "a") as file:
        file.write("// changed\n")
    assert get_lwip_board.find() is None
    second = get_lwip_board.ensure()
    assert second != first and first.exists()


def test_one_with_something_frozen_is_another_one(machine, tmp_path):
    (tmp_path / "client.mpy").write_bytes(b"one")
    plain, frozen = get_lwip_board.build("trixie", [None, tmp_path / "client.mpy"])
    (tmp_path / "client.mpy").write_bytes(b"two")
    (other,) = get_lwip_board.build("trixie", [tmp_path / "client.mpy"])
    assert len({plain, frozen, other}) == len(machine) == 3
    assert get_lwip_board.find() == plain


def test_a_build_that_fails_leaves_nothing_and_the_reason_is_said_in_a_line(
    machine, monkeypatch, capsys
):
    def fail(tree, folder, frozen):
        (folder / "firmware.elf").write_bytes(b"half")
        raise SetupError("make failed (2): no room")

    monkeypatch.setattr(get_lwip_board, "make", fail)
    assert get_lwip_board.ensure() is None
    assert capsys.readouterr().out.endswith(
        "lwip board: not available: make failed (2): no room\n"
    )
    assert files_in_cache() == [".lock"]


def test_what_an_interrupted_build_left_is_removed_by_the_next_one(machine):
    half = get_lwip_board.CACHE / ".making-x" / "build"
    half.mkdir(parents=True)
    (half / "firmware.elf").write_bytes(b"half")
    assert get_lwip_board.find() is None
    assert get_lwip_board.ensure().read_bytes() == b"whole"
    assert not half.exists()


def test_two_builds_at_once_are_one_build(machine, monkeypatch):
    entered, other_waits = threading.Event(), threading.Event()
    make = get_lwip_board.make

    def slowly(tree, folder, frozen):
        entered.set()
        other_waits.wait(WAIT_S)
        return make(tree, folder, frozen)

    monkeypatch.setattr(get_lwip_board, "make", slowly)
    monkeypatch.setattr(
        get_lwip_board.setup_env, "say", lambda text: "waiting" in text and other_waits.set()
    )
    threads = [threading.Thread(target=get_lwip_board.ensure) for _ in range(2)]
    for thread in threads:
        thread.start()
        assert entered.wait(WAIT_S)
    for thread in threads:
        thread.join(WAIT_S)
        assert not thread.is_alive()
    assert other_waits.is_set() and len(machine) == 1


def test_without_qemu_a_firmware_is_of_no_use(machine, monkeypatch):
    get_lwip_board.ensure()
    monkeypatch.setattr(get_lwip_board.setup_env, "find_program", lambda name: None)
    assert get_lwip_board.find() is None


def test_who_may_not_install_is_told_all_that_lacks_in_one_line(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(get_lwip_board, "CACHE", tmp_path)
    monkeypatch.setattr(get_lwip_board.setup_env, "find_program", lambda name: None)
    monkeypatch.setattr(get_lwip_board.setup_env, "is_root", lambda: False)
    assert get_lwip_board.ensure() is None
    said = capsys.readouterr().out
    assert said.startswith("lwip board: not available: please ") and said.count("\n") == 1
    packages = "qemu-system-arm gcc-arm-none-eabi make libnewlib-arm-none-eabi"
    assert "install %s" % packages in said


def test_a_folder_with_a_blank_is_told_before_anything_is_made(machine, monkeypatch, capsys):
    """make takes it for two."""
    for name in ("CACHE", "FIRMWARE"):
        with monkeypatch.context() as patch:
            patch.setattr(get_lwip_board, name, getattr(get_lwip_board, name) / "my project")
            assert get_lwip_board.ensure() is None
        said = capsys.readouterr().out
        assert "my project': make takes a path with a blank for two: move " in said
        assert said.startswith("lwip board: not available: ") and said.count("\n") == 1
    assert not machine
