"""docs/demo.svg shows the demo as it is; tools/draw_demo.py draws what a terminal would show."""

import re
from xml.etree import ElementTree

import draw_demo
import setup_env

SVG = "{http://www.w3.org/2000/svg}"
PICTURE = setup_env.ROOT / "docs" / "demo.svg"


def rows_of(picture):
    root = ElementTree.fromstring(picture)
    return ["".join(text.itertext()) for text in root.iter(SVG + "text")]


def test_the_picture_is_of_this_demo():
    """If this fails: python3 tools/draw_demo.py"""
    source = (setup_env.ROOT / "tools" / "demo.py").read_text(encoding="utf-8")
    shown = "\n".join(rows_of(PICTURE.read_text(encoding="utf-8")))
    headings = re.findall(r'heading\(\s*"(\d\. [^%"]+)"', source)
    assert len(headings) >= 4
    for heading in headings:
        assert heading in shown, heading
    assert shown.rstrip().endswith("demo: ok")


def test_colors_and_letters_come_through():
    picture = draw_demo.draw(draw_demo.show([(0.0, b"\x1b[32mgreen\x1b[0m & <plain>\r\n")]))
    assert rows_of(picture)[1:] == ["green & <plain>"]
    assert '<tspan x="0.00" fill="%s">green<' % draw_demo.COLORS["green"] in picture


def test_a_row_appears_when_it_came_and_the_last_ones_stay():
    lines = [(n / 10, b"row %d\r\n" % n) for n in range(draw_demo.ROWS + 5)]
    picture = draw_demo.draw(draw_demo.show(lines))
    assert rows_of(picture)[-1] == "row %d" % (draw_demo.ROWS + 4)
    assert re.search(r'animation-duration:%.2fs">[^\n]*row 7<' % (0.7 * draw_demo.SLOWER), picture)
    # The group is moved up for good by what does not fit.
    assert "#rows{transform:translateY(-%dpx)}" % (5 * draw_demo.CELL_Y) in picture
