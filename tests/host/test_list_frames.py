"""tools/list_frames.py, and what it is for: no hot function has a frame on the heap."""

import re
import subprocess

import pytest

import build
import inlining
import list_frames

# The functions on the way of a message or of an idle step: each call of one with a larger frame
# is an allocation, and in a full heap a collection.
# What a message or an idle step passes. (The others on the way are generators.)
HOT = (
    "_Driving._has_happened",
    "MQTTClient._known_topic",
    "_Driving._sleep",
    "_Driving._step",
    "_Driving._watch",
    "MQTTClient.is_done",
    "_Driving.next_deadline_ms",
    "MQTTClient.publish",
    "_Driving.step",
    "Outbox.flush",
    "Outbox.put_ack",
    "Outbox.put_publish",
    "Pipe.find",
    "Pipe.find_id",
    "Pipe.free",
    "Pipe.ioctl",
    "Pipe.move_head",
    "_Sending._next_id",
    "_Receiving._on_ack",
    "_Receiving._on_packet",
    "_Serving._on_ping_time",
    "topic_matches",
)

# Each function answers what is in use while it runs.
PROGRAM = """\
from gc import collect, disable, mem_alloc


class Shape:
    def area(self, *, height=1):
        try:
            try:
                return mem_alloc()
            finally:
                self.height = height
        except ValueError:
            return lambda: height

    def simple(self):
        try:
            return mem_alloc()
        except ValueError:
            pass


def count(limit):
    yield limit


"""
PROGRAM += "".join(
    "def many%d():\n    %s = 0\n    return mem_alloc()\n\n\n"
    % (size, " = ".join("a%d" % n for n in range(size)))
    for size in range(1, 80)
)

MEASURE = """
def measure():
    shape = Shape()
    shape.area()
    functions = [("Shape.area", shape.area), ("Shape.simple", shape.simple)]
    functions += [("many%d" % n, globals()["many%d" % n]) for n in range(1, 80)]
    collect()
    disable()
    for name, function in functions:
        before = mem_alloc()
        spent = function() - before
        print(name, spent)


measure()
"""


@pytest.fixture
def frames(tmp_path, compile_mpy):
    """Name -> Frame of PROGRAM."""
    source = tmp_path / "shapes.py"
    source.write_text(PROGRAM + MEASURE)
    compile_mpy(source, tmp_path / "shapes.mpy", "-O3")
    found = list_frames.read_frames((tmp_path / "shapes.mpy").read_bytes())
    source.unlink()
    return {frame.name: frame for frame in found}


def test_a_frame_is_over_if_and_only_if_a_call_takes_it_from_the_heap(
    frames, micropython, tmp_path
):
    code = "import sys; sys.path[:] = [%r]; import shapes" % str(tmp_path)
    ran = subprocess.run(
        [*micropython.command, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    spent = {name: int(byte_count) for name, byte_count in map(str.split, ran.stdout.splitlines())}
    assert len(spent) == 81
    assert {name: frames[name].words_over > 0 for name in spent} == {
        name: byte_count > 0 for name, byte_count in spent.items()
    }
    assert len({spent[name] > 0 for name in spent}) == 2


def test_it_names_a_function_by_where_it_stands(frames):
    assert {"<module>", "Shape", "Shape.area", "Shape.area.<lambda>", "count"} <= set(frames)
    assert frames["many79"].words == frames["many78"].words + 1


def test_a_generator_takes_its_frame_once(frames):
    assert frames["count"].is_generator and not frames["Shape.area"].is_generator
    assert list_frames.Frame("generator", 40, True).words_over == 0


def test_the_functions_are_listed_largest_first(capsys):
    assert list_frames.main(["--profile", "tiny"]) == 0
    lines = capsys.readouterr().out.splitlines()
    lines = [line for line in lines if not line.startswith("setup: ")][1:]  # of a new .venv
    words = [int(line.split()[1]) for line in lines]
    assert words == sorted(words, reverse=True) and len(words) > 50
    over = [line.split()[1:3] for line in lines if line.endswith("over")]
    assert len(over) > 10
    assert {int(one) - int(more) for one, more in over} == {list_frames.STACK_WORDS_MAX}


def test_what_is_no_mpy_is_refused_in_a_line(tmp_path, capsys):
    for data in (b"", b"no", b"M\x05\x00\x1f", b"M\x06\x00\x1f\x10"):
        path = tmp_path / "wrong.mpy"
        path.write_bytes(data)
        assert list_frames.main([str(path)]) == 1
        assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("profile", build.PROFILES)
def test_no_hot_function_takes_its_frame_from_the_heap(profile):
    frames = {frame.name: frame for frame in list_frames.frames_of(profile, keeps_names=True)}
    if profile == "full":
        assert [name for name in HOT if name not in frames] == []
    over = {name: frames[name].words_over for name in HOT if name in frames}
    assert {name: words for name, words in over.items() if words} == {}


@pytest.mark.parametrize("profile", build.PROFILES)
def test_nor_does_one_of_a_small_build(profile):
    frames = {frame.name: frame for frame in list_frames.frames_of(profile)}
    hot = [re.sub(r"^_\w+", "MQTTClient", name) for name in HOT]  # of one class
    left = [name for name in hot if name in frames]
    assert len(left) > len(hot) // 2, left
    assert {name: frames[name].words_over for name in left if frames[name].words_over} == {}


def test_nothing_is_inlined_into_a_hot_function():
    assert inlining.HOT == {name.split(".")[-1] for name in HOT}
