"""The project's address is that of pyproject.toml, wherever it is written.

Who moves the project changes it there: this test then names each place that is to be changed.
"""

import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
ADDRESS = re.search(r'^Repository = "(https://github\.com/([\w.-]+)/([\w.-]+))"$', PROJECT, re.M)
OWNER, NAME = ADDRESS.group(2), ADDRESS.group(3)
PAGES = "https://%s.github.io/%s/" % (OWNER, NAME)

# What a repository of GitHub is called by: its page, its files, mip's short form, its Pages. A
# workflow's `repository:` is none of them: that is MicroPython's.
FORMS = [
    re.compile(r"\bgithub\.com[/:]([\w.-]+/[\w.-]+?)(?:\.git)?(?=[^\w.-]|\.?$|\.\s)", re.M),
    re.compile(r"\braw\.githubusercontent\.com/([\w.-]+/[\w.-]+)"),
    re.compile(r"\bgithub:([\w.-]+/[\w.-]+)"),
]
PAGES_FORM = re.compile(r"\bhttps?://([\w-]+)\.github\.io/([\w.-]+)")

# Those of others, which are meant: owner/name.
OTHERS = {
    "micropython/micropython",
    "micropython/micropython-lib",
    "org/repo",  # an example in tests
    "user/repo",
}

# Files that have to name it: who changes the address must not find one of them without.
NAMES_IT = [
    ".github/ISSUE_TEMPLATE/config.yml",
    "CONTRIBUTING.md",
    "README.md",
    "SECURITY.md",
    "boards/README.md",
    "mkdocs.yml",
    "pyproject.toml",
]


def texts():
    """Return {path in the project: text} of all that is in git."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        timeout=30,
        check=True,
    )
    found = {}
    for name in listed.stdout.decode().split("\0"):
        path = ROOT / name
        if name and path.is_file() and path.suffix not in (".svg", ".zip"):
            found[name] = path.read_text(encoding="utf-8")
    return found


def addresses_in(text):
    """Return the owner/name of each repository that a text names, and of each site of Pages."""
    found = [match for form in FORMS for match in form.findall(text)]
    return found + ["%s/%s" % match for match in PAGES_FORM.findall(text)]


@pytest.fixture(scope="module")
def found():
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    found = {name: addresses_in(text) for name, text in texts().items()}
    # Here the wrong ones stand.
    del found["tests/host/test_repository_address.py"]
    return found


def test_every_place_has_the_address_of_pyproject_toml(found):
    ours = "%s/%s" % (OWNER, NAME)
    others = {
        (name, address)
        for name, addresses in found.items()
        for address in addresses
        if address != ours and address not in OTHERS
    }
    assert not others, "not %s: %s" % (ours, sorted(others))


def test_the_places_where_a_reader_looks_for_it_have_it(found):
    ours = "%s/%s" % (OWNER, NAME)
    for name in NAMES_IT:
        assert ours in found[name], name


def test_the_site_of_the_documentation_is_the_repository_s():
    assert 'Documentation = "%s"' % PAGES in PROJECT
    assert "\nsite_url: %s\n" % PAGES in (ROOT / "mkdocs.yml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "text",
    [
        "see https://github.com/other/name.",
        "see https://github.com/other/name",
        "[it](https://github.com/other/name/issues)",
        "git@github.com:other/name.git",
        "mpremote mip install github:other/name/micropython",
        "https://raw.githubusercontent.com/other/name/HEAD/package.json",
        "https://other.github.io/name/mip",
        "uses https://github.com/other/name/actions/workflows/test.yml/badge.svg",
    ],
)
def test_another_address_would_be_found(text):
    assert addresses_in(text) == ["other/name"]
