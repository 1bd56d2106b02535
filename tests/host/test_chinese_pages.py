"""docs/zh/ has the same structure and the same programs as the pages that it translates."""

import re

import pytest

import setup_env

ROOT = setup_env.ROOT
CHINESE = ROOT / "docs" / "zh"
NAMES = sorted(path.name for path in CHINESE.glob("*.md"))

FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
INDENTED = re.compile(r"^ {4}(\S.*)$", re.M)
CHINESE_LETTER = re.compile(r"[\u4e00-\u9fff]")


def english(name):
    path = ROOT / "README.md" if name == "README.md" else ROOT / "docs" / name
    return path.read_text(encoding="utf-8")


def chinese(name):
    return (CHINESE / name).read_text(encoding="utf-8")


def commands_of(text):
    """The indented lines, without what is said of each behind it: that is translated."""
    lines = INDENTED.findall(FENCED.sub("", text))
    return [re.split(r"\s{2,}", line)[0] for line in lines]


def shape_of(text):
    """The headings' levels, and the number of columns and rows of each table, in order."""
    text = FENCED.sub("", text)
    found = []
    for line in text.splitlines():
        if line.startswith("#"):
            found.append(line.split(" ")[0])
        elif line.startswith("|---"):
            found.append([line.count("|") - 1, 0])
        elif line.startswith("|") and found and isinstance(found[-1], list):
            found[-1][1] += 1
    return found


def test_the_pages_that_somebody_reads_first_are_there():
    assert set(NAMES) >= {"README.md", "index.md", "user-guide.md", "tls.md"}


@pytest.mark.parametrize("name", NAMES)
def test_the_programs_are_the_same(name):
    assert FENCED.findall(chinese(name)) == FENCED.findall(english(name))
    assert commands_of(chinese(name)) == commands_of(english(name))


@pytest.mark.parametrize("name", NAMES)
def test_the_structure_is_the_same(name):
    assert shape_of(chinese(name)) == shape_of(english(name))


@pytest.mark.parametrize("name", NAMES)
def test_names_of_the_interface_and_figures_are_the_same(name):
    """In the order of the text they may differ, as sentences do."""

    def spans(text):
        return sorted(set(re.findall(r"`[^`\n]+`", FENCED.sub("", text))))

    assert spans(chinese(name)) == spans(english(name))


@pytest.mark.parametrize("name", NAMES)
def test_each_paragraph_is_translated(name):
    for line in FENCED.sub("", chinese(name)).splitlines():
        is_prose = re.match(r"[A-Za-z*]", line) and len(line) > 40
        if is_prose and not re.match(r"\[!", line):
            assert CHINESE_LETTER.search(line), line


@pytest.mark.parametrize("name", NAMES)
def test_each_link_leads_somewhere(name):
    for target in re.findall(r"\]\((?!https:)([^)]+)\)", chinese(name)):
        path, _, anchor = target.partition("#")
        page = (CHINESE / path).resolve() if path else CHINESE / name
        assert page.exists(), target
        if anchor and page.suffix == ".md":
            headings = re.findall("^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)
            slugs = {re.sub(r"[^\w -]", "", one.lower()).replace(" ", "-") for one in headings}
            assert anchor in slugs, target
