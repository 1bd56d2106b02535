"""tools/fuzz.py for some seconds, with other cases each time; and what it has found before.

A failure names its seed and its bytes: `python3 tools/fuzz.py TARGET --case HEX` is that case.
"""

import gc
import os
import random
import signal
import subprocess
import sys

import fakes
import pytest

import fuzz
import mqttpipe

# Cases of each target, so that each takes half a second or so.
RUNS = {
    "client": 1500,
    "client_5": 1500,
    "decoder": 4000,
    "demo": 300,
    "dns": 5000,
    "mdns": 1500,
    "mqtt": 400,
    "properties": 5000,
    "sntp": 5000,
    "topic": 5000,
    "uri": 5000,
}
LONG_RUNS = {
    "client": 500_000,
    "client_5": 500_000,
    "decoder": 500_000,
}  # streams; 50,000 cases of the others
FAULT_RUNS = 2000  # by then a fault is noticed

# What was found: target, the case as bytes, what went wrong.
FOUND = (
    ("client", b"\x02\x01,\x90\x01,", "SUBACK of one byte was judged by the packet before it"),
    ("client", b"q\xf1Y\x90\x00", "SUBACK of no byte was passed over"),
    (
        "client",
        b"\x00\x00\x032\x3f\x00\x3ctttttttttttttttttttttttttttttttttttttttttttttttttttttttttttt\x12",
        "a PUBLISH too large was acknowledged with half an identifier",
    ),
    ("client_5", b"N\x80\xe0\x90\x02\xff\x01", "SUBACK without a code was passed over"),
    ("client_5", b"N\x80\xe0\xb0\x02\xff\x08", "UNSUBACK without a code was taken for consent"),
    (
        "dns",
        (
            b"\x00\x124\x81\x80\x00\x01\x00\x01\x00\x00\x00\x00\x02mq\x07example\x00\x00\x01\x00\x01"
            b"\xc0\x0c\x00\x01\x00\x11\x00\x00\x00<\x00\x04\xc0\x00\x02\x07"
        ),
        "a record of class 17 counted as an address",
    ),
    ("topic", b"\x00$share//\n$", "IndexError in topic_matches()"),
    ("mqtt", b"\x01\x00-t\x00a\x00-F\x00\xff", "UnicodeEncodeError at a format that is not UTF-8"),
    ("mqtt", b"\x01\x00-t\x00a\x00-T\x00", "IndexError at each message, with an empty filter"),
    ("mqtt", b"\x01\x00-t\x00a\x00-T\x00\xff", "UnicodeEncodeError at a filter"),
    ("mqtt", b"\x01\x00-t\x00a\x00-F\x00%\xc2\xb2p", "ValueError at a width that is no number"),
    ("mqtt", b"\x01\x00-t\x00a\x00-F\x00%999999999p", "as many bytes as the width says"),
    ("mqtt", b"\x01\x00-t\x00a\x00-F\x00%J", "RecursionError at brackets in brackets"),
)

# A fault for each target: the module, a name in it, and what it is there.
FAULTS = {
    "client": (mqttpipe, "topic_matches", lambda *arguments: False),
    "client_5": (mqttpipe, "_ALIAS_BYTES", 4),
    "decoder": (mqttpipe, "_RECEIVED", b"\x20\x40\x50\x62\x70\xb0\xd0\xf0"),
    "demo": ("demo", "seconds_option", float),
    "dns": (mqttpipe, "_DNS_A", 2),
    "mdns": (mqttpipe, "decode_answer", lambda data, query: (0, ["192.0.2.1"], 60)),
    "mqtt": ("mqtt_traffic", "UsageError", ArithmeticError),
    "properties": (mqttpipe, "_decode_number", lambda data, at: (data[at], at + 1)),
    "sntp": ("wifi_core", "_NTP_2024_S", 3_913_056_001),
    "topic": (mqttpipe, "_DOLLAR", 0x25),
    "uri": (mqttpipe, "_HEX_DIGITS", "0123456789"),
}


@pytest.fixture(autouse=True)
def real_parts():
    yield
    fakes.use_real_parts()
    fakes.gc = gc


def test_every_target_is_here():
    assert set(RUNS) == set(FAULTS) == set(fuzz.TARGETS)


@pytest.mark.parametrize("name", RUNS)
def test_no_case_of_a_fresh_seed_fails(name, capsys):
    seed = random.SystemRandom().randrange(1 << 32)
    failures = fuzz.run_some(name, seed, RUNS[name])
    with capsys.disabled():
        print(" %s: seed %d" % (name, seed), end="")
    assert failures == {}, "python3 tools/fuzz.py %s --runs 1 --seed %d" % (name, min(failures))


@pytest.mark.parametrize("name, case, what", FOUND)
def test_what_was_found_stays_mended(name, case, what):
    assert fuzz.try_case(fuzz.load(name), case, is_measured=True) is None, what


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_noticed(name, monkeypatch):
    target = fuzz.load(name)
    module, attribute, value = FAULTS[name]
    if isinstance(module, str):
        module = __import__(module)
    monkeypatch.setattr(module, attribute, value)
    for seed in range(FAULT_RUNS):
        if fuzz.try_case(target, fuzz.make_case(target, seed)):
            return
    raise AssertionError("%s.%s: nobody has noticed" % (module.__name__, attribute))


def test_lengths_at_which_another_byte_begins_are_tried_often():
    fuzz.use_project()
    import fuzz_streams
    import fuzz_streams_5

    for make in (fuzz_streams.make_packet, lambda draw: fuzz_streams_5.make_packet(draw, set())):
        packets = [make(random.Random(seed)) for seed in range(FAULT_RUNS)]
        for length in (b"\x7f", b"\x80\x01"):
            count = sum(packet[1:].startswith(length) for packet in packets)
            assert count > FAULT_RUNS // 100, (length, count)


class Endless:
    ALLOCATED_MAX = 0

    def check(case):
        while case:
            pass


class Greedy:
    ALLOCATED_MAX = 100_000

    def check(case):
        bytearray(1_000_000)


def test_a_case_without_end_is_ended_and_told(monkeypatch):
    monkeypatch.setattr(fuzz, "HANG_S", 0.05)
    assert isinstance(fuzz.try_case(Endless, b"x"), fuzz.Hang)


def test_a_case_that_takes_too_much_memory_is_told():
    assert "bytes allocated" in str(fuzz.try_case(Greedy, b"x", is_measured=True))
    assert fuzz.try_case(Greedy, b"x") is None  # it is not measured


def test_a_case_that_takes_too_much_memory_is_shrunk_to_one_that_does(monkeypatch, capsys):
    class Hungry:
        ALLOCATED_MAX = 100_000

        def make(draw):
            return b"some hunger"

        def check(case):
            bytearray(1_000_000 if b"g" in case else 1)

    monkeypatch.setattr(fuzz, "load", lambda name: Hungry)
    assert fuzz.main(["uri", "--seed", str(fuzz.MEASURED), "--runs", "1"]) == 1
    assert "--case 67\n" in capsys.readouterr().out
    with pytest.raises(AssertionError, match="bytes allocated"):
        fuzz.main(["uri", "--case", "67"])


def test_a_case_that_ends_the_program_is_a_failure_as_well(monkeypatch, capsys):
    class Quitting:
        def make(draw):
            return b"q"

        def check(case):
            if case:
                sys.exit(0)

    monkeypatch.setattr(fuzz, "load", lambda name: Quitting)
    assert fuzz.main(["uri", "--seed", "1", "--runs", "1"]) == 1
    assert "--case 71\n" in capsys.readouterr().out


def test_a_case_that_does_not_fail_again_is_shown_as_it_is(monkeypatch, capsys):
    class Moody:
        cases = []

        def make(draw):
            return b"whole"

        def check(case):
            Moody.cases.append(case)
            assert len(Moody.cases) > 1

    monkeypatch.setattr(fuzz, "load", lambda name: Moody)
    assert fuzz.main(["uri", "--seed", "1", "--runs", "1"]) == 1
    assert "--case %s\n" % b"whole".hex() in capsys.readouterr().out


def test_a_run_that_is_stopped_has_said_its_seed_and_says_no_more():
    with subprocess.Popen(
        [sys.executable, fuzz.__file__, "topic", "--runs=100000000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # nohup
    ) as process:
        assert process.stdout.readline().startswith("seed: ")
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)
    assert (process.returncode, *said) == (130, "", "")


def test_a_failure_is_shown_shrunk_with_its_seed_and_makes_the_status_1(monkeypatch, capsys):
    module, attribute, value = FAULTS["uri"]
    monkeypatch.setattr(module, attribute, value)
    assert fuzz.main(["uri", "--seed", "0", "--runs", "2000"]) == 1
    said = capsys.readouterr().out
    assert "FAILED" in said and "  seed " in said and "--case " in said
    monkeypatch.undo()
    assert fuzz.main(["uri", "--case", said.rpartition("--case ")[2].split()[0]]) == 0


def test_a_case_follows_from_its_seed():
    for name in fuzz.TARGETS:
        target = fuzz.load(name)
        cases = [fuzz.make_case(target, seed) for seed in (7, 7, 8)]
        assert cases[0] == cases[1] != cases[2], name


def test_what_can_not_be_asked_for_is_told(capsys):
    for words in (["none"], ["uri", "--runs", "0"], ["--case", "00"], ["--seed", "-1"]):
        with pytest.raises(SystemExit) as caught:
            fuzz.main(words)
        assert caught.value.code == 2 and capsys.readouterr().err


def test_it_ends_without_a_word_when_nobody_reads_on():
    command = [sys.executable, fuzz.__file__, "uri", "topic", "--runs=1"]
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as output:
        ran = subprocess.run(command, stdout=output, stderr=subprocess.PIPE, timeout=60)
    assert (ran.returncode, ran.stderr) == (1, b"")


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", RUNS)
def test_no_case_of_many_fails(request, name):
    if not request.config.getoption("--long"):
        pytest.skip("takes 20 minutes in all: --long runs it")
    runs = LONG_RUNS.get(name, 50_000)
    seed = random.SystemRandom().randrange(1 << 32)
    assert fuzz.main([name, "--seed", str(seed), "--runs", str(runs), "--jobs", "2"]) == 0
