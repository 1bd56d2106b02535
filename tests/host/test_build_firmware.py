"""tools/build_firmware.py: what it asks of MicroPython's make, and what it says if that fails.

No firmware is built here: MicroPython's submodules and the ESP-IDF come in no package.
"""

import importlib.util
import pathlib

import pytest

import build_firmware
import check_types

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent

# Writes down how it was called and what the manifest says, and makes what make would.
MAKE = """\
#!/bin/sh
for word in "$@"; do
    case $word in
        FROZEN_MANIFEST=*) cat "${word#*=}" > %(seen)s/manifest.py ;;
        BOARD=*) board=${word#*=} ;;
    esac
    last=$word
done
echo "$@" >> %(seen)s/calls
folder=$3
case $last in
    submodules|*/mpy-cross) ;;
    *) mkdir -p "$folder/build-$board" && echo made > "$folder/build-$board/%(made)s" ;;
esac
"""


@pytest.fixture
def micropython(tmp_path):
    """A folder with the outline of MicroPython's source."""
    folder = tmp_path / "upstream"
    for board, (port, _, _) in build_firmware.BOARDS.items():
        (folder / "ports" / port / "boards" / board).mkdir(parents=True)
    return folder


@pytest.fixture
def use_make(tmp_path, monkeypatch):
    """A function: a shell script -> it is `make` from here on."""

    def use(script):
        program = tmp_path / "bin" / "make"
        program.parent.mkdir(exist_ok=True)
        program.write_text(script)
        program.chmod(0o755)
        monkeypatch.setenv("PATH", "%s:/usr/bin:/bin" % program.parent)

    return use


def run_tool(micropython, board, out):
    return build_firmware.main(
        ["--micropython", str(micropython), "--board", board, "--out", str(out)]
    )


@pytest.mark.parametrize("board", build_firmware.BOARDS)
def test_a_board_s_firmware_is_made_with_its_own_manifest_and_ours(
    micropython, use_make, tmp_path, capsys, board
):
    port, own_manifest, made = build_firmware.BOARDS[board]
    use_make(MAKE % {"seen": tmp_path, "made": made})
    assert run_tool(micropython, board, tmp_path / "out") == 0
    (file,) = (tmp_path / "out").iterdir()
    assert file.name == "mqttpipe-%s%s" % (board, pathlib.Path(made).suffix)
    assert file.read_text() == "made\n" and str(file) in capsys.readouterr().out
    calls = (tmp_path / "calls").read_text().splitlines()
    folders = [call.split()[2] for call in calls]
    assert folders == [str(micropython / "mpy-cross")] + [str(micropython / "ports" / port)] * 2
    assert calls[1].endswith(" submodules") and all("BOARD=" + board in one for one in calls[1:])
    text = (tmp_path / "manifest.py").read_text()
    assert text == "include(%r)\ninclude(%r)\n" % (own_manifest, str(ROOT / "micropython"))


@pytest.mark.parametrize("board", build_firmware.BOARDS)
def test_micropython_s_own_reader_takes_the_manifest(micropython, tmp_path, board):
    folder = check_types.ensure_packages(
        "manifest", "requirements-manifest.txt", "--ignore-requires-python"
    )
    path = folder / "stubber" / "tools" / "manifestfile.py"
    specification = importlib.util.spec_from_file_location("manifestfile", path)
    manifestfile = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(manifestfile)

    port_dir = micropython / "ports" / build_firmware.BOARDS[board][0]
    board_dir = port_dir / "boards" / board
    for folder in (port_dir / "boards", board_dir):
        (folder / "manifest.py").write_text('module("theirs.py")\n')
        (folder / "theirs.py").touch()
    ours = tmp_path / "manifest.py"
    ours.write_text(build_firmware.manifest(board))
    places = {"PORT_DIR": str(port_dir), "BOARD_DIR": str(board_dir), "MPY_DIR": str(micropython)}
    manifest = manifestfile.ManifestFile(manifestfile.MODE_FREEZE, places)
    manifest.execute(str(ours))
    assert [file.target_path for file in manifest.files()] == ["theirs.py", "mqttpipe.py"]


def last_line(capsys):
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "failed: " in line] == lines[-1:]
    return lines[-1]


def test_what_is_no_source_of_micropython_is_told(tmp_path, capsys):
    assert run_tool(tmp_path, "RPI_PICO_W", tmp_path / "out") == 1
    assert last_line(capsys) == (
        "build_firmware: failed: --micropython: %s has no ports/rp2/boards/RPI_PICO_W" % tmp_path
    )
    assert not (tmp_path / "out").exists()


def test_a_make_that_fails_is_told_with_its_command(micropython, use_make, tmp_path, capsys):
    use_make("#!/bin/sh\nexit 2\n")
    assert run_tool(micropython, "ESP32_GENERIC", tmp_path / "out") == 1
    assert "mpy-cross: status 2, see above" in last_line(capsys)


def test_a_machine_without_make_is_told(micropython, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run_tool(micropython, "ESP32_GENERIC", tmp_path / "out") == 1
    assert "make does not start" in last_line(capsys)


def test_a_make_that_makes_nothing_is_told(micropython, use_make, tmp_path, capsys):
    use_make("#!/bin/sh\nexit 0\n")
    assert run_tool(micropython, "RPI_PICO2_W", tmp_path / "out") == 1
    assert last_line(capsys).endswith("build-RPI_PICO2_W/firmware.uf2")


def test_a_folder_that_can_not_be_written_is_told(micropython, use_make, tmp_path, capsys):
    use_make(MAKE % {"seen": tmp_path, "made": build_firmware.BOARDS["RPI_PICO_W"][2]})
    (tmp_path / "out").touch()
    assert run_tool(micropython, "RPI_PICO_W", tmp_path / "out") == 1
    assert "build_firmware: failed: [Errno 17] File exists" in capsys.readouterr().out
