"""tools/draw_states.py: the picture is current, complete, and notices what has changed."""

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

import draw_states
import mqttpipe

SOURCE = draw_states.SOURCE.read_text(encoding="utf-8")
PICTURE = Path(draw_states.PICTURE)


def changed(old, new):
    """The source with one thing changed."""
    assert SOURCE.count(old) == 1, old
    return SOURCE.replace(old, new)


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_the_picture_in_docs_is_current(capsys):
    assert draw_states.main(["--check"]) == 0, capsys.readouterr().err


def test_every_legal_cell_of_the_table_is_a_line_of_the_text(capsys):
    assert draw_states.main(["--text"]) == 0
    lines = capsys.readouterr().out.splitlines()
    events = draw_states.Machine(SOURCE).events
    assert len(events) == mqttpipe._EVENTS
    expected = []
    for i, following in enumerate(mqttpipe._NEXT_STATE):
        if following != mqttpipe._X:
            state = mqttpipe.STATE_NAMES[i // mqttpipe._EVENTS]
            event = events[i % mqttpipe._EVENTS]
            expected.append("%s --%s--> %s" % (state, event, mqttpipe.STATE_NAMES[following]))
    assert lines == expected


def test_the_events_have_the_names_of_the_constants():
    for number, name in enumerate(draw_states.Machine(SOURCE).events):
        assert getattr(mqttpipe, "_" + name) == number


def test_the_picture_is_well_formed_and_names_every_state_and_event():
    root = ElementTree.fromstring(PICTURE.read_bytes())
    words = {word.text for word in root.iter("{http://www.w3.org/2000/svg}text")}
    machine = draw_states.Machine(SOURCE)
    assert words >= set(machine.states)
    assert words >= {event for _, event, _ in machine.transitions}


def test_the_same_source_makes_the_same_bytes():
    first, second = (draw_states.draw(draw_states.Machine(SOURCE)) for _ in range(2))
    assert first == second == PICTURE.read_text(encoding="utf-8")


def test_the_picture_has_a_dark_half_that_knows_every_colour():
    light, dark = draw_states.style(0), draw_states.style(1)
    assert light != dark
    for style in (light, dark):
        assert not re.search(r"(fill|stroke): [A-Z]", style), style


@pytest.mark.parametrize(
    "old, new, line",
    [
        # ONLINE may no longer be closed by disconnect().
        (
            r'b"\xff\xff\xff\xff\xff\xff\x07\x08\xff"  # ONLINE',
            r'b"\xff\xff\xff\xff\xff\xff\xff\x08\xff"  # ONLINE',
            "ONLINE --FINISH--> CLOSING",
        ),
        ("_FINISH", "_THE_END", "ONLINE --FINISH--> CLOSING"),
    ],
)
def test_a_changed_table_is_noticed(tmp_path, capsys, old, new, line):
    text = SOURCE.replace(old, new)
    assert text != SOURCE
    assert line in draw_states.text_of(draw_states.Machine(SOURCE)).splitlines()
    assert line not in draw_states.text_of(draw_states.Machine(text)).splitlines()
    assert draw_states.main(["--check"], source=write(tmp_path / "client.py", text)) == 1
    assert capsys.readouterr().err == (
        "draw_states: docs/states.svg is not current: run python3 tools/draw_states.py\n"
    )


def test_a_missing_picture_is_not_current_and_can_be_made(tmp_path, capsys):
    picture = tmp_path / "docs" / "states.svg"
    assert draw_states.main(["--check"], picture=picture) == 1
    assert draw_states.main([], picture=picture) == 0
    assert draw_states.main(["--check"], picture=picture) == 0
    assert picture.read_bytes() == PICTURE.read_bytes()


@pytest.mark.parametrize(
    "old, new, complaint",
    [
        ('    "CLOSING",\n', '    "LEAVING",\n', "state LEAVING has no place"),
        (
            r'b"\x01\xff\xff\xff\xff\xff\xff\x08\xff"  # DOWN',
            r'b"\x06\xff\xff\xff\xff\xff\xff\x08\xff"  # DOWN',
            "arrow DOWN --ATTEMPT--> ONLINE has no place",
        ),
        (
            r'b"\x01\xff\xff\xff\xff\xff\xff\x08\xff"  # DOWN',
            r'b"\x0f\xff\xff\xff\xff\xff\xff\x08\xff"  # DOWN',
            "DOWN --ATTEMPT--> 15: there is no such state",
        ),
        ("_EVENTS = const(9)", "_EVENTS = const(8)", "do not count from 0 to 7"),
        ("\n_NEXT_STATE = ", "\n_OTHER_NAME = ", "no constant _NEXT_STATE"),
    ],
)
def test_what_can_not_be_drawn_is_one_line_that_names_it(tmp_path, capsys, old, new, complaint):
    source = write(tmp_path / "client.py", changed(old, new))
    assert draw_states.main(["--check"], source=source) == 1
    error = capsys.readouterr().err
    assert complaint in error and error.startswith("draw_states: ") and error.count("\n") == 1


def test_wrong_arguments_show_the_usage(capsys):
    assert draw_states.main(["--chekc"]) == 2
    assert "--check" in capsys.readouterr().out
