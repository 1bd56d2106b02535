"""tools/build_pages.py: docs/ becomes a web site, each page and link of it, with the mip index."""

import pathlib
import re
import subprocess
import sys
import urllib.parse

import pytest

import build_pages

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
RUN_TIMEOUT_S = 110  # with the set-up, the first time


def run_tool(*arguments, status=0):
    ran = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "build_pages.py"), *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=RUN_TIMEOUT_S,
        text=True,
    )
    assert ran.returncode == status, ran.stdout
    return ran.stdout


def test_the_site_has_every_page_and_the_mip_index_and_links_to_what_is_there(tmp_path):
    index = tmp_path / "mip"
    (index / "package").mkdir(parents=True)
    (index / "index.json").write_text("{}")
    (index / "package" / "latest.json").write_text("[]")
    site = tmp_path / "site"
    run_tool("--out", site, "--mip", index)

    for page in (ROOT / "docs").glob("*.md"):
        place = site if page.stem == "index" else site / page.stem
        assert (place / "index.html").is_file(), page.name
    assert (site / "mip" / "package" / "latest.json").read_text() == "[]"

    repository = re.compile(r"https://github\.com/[\w.-]+/[\w.-]+/blob/main/(.*)")
    outside = 0
    for page in site.rglob("index.html"):
        for link in re.findall(r'<a [^>]*href="([^"#]+)', page.read_text(encoding="utf-8")):
            found = repository.fullmatch(link)
            if found:
                outside += 1
                assert (ROOT / found.group(1)).exists(), link
            elif "://" not in link:
                target = page.parent / urllib.parse.unquote(link)
                assert target.exists(), "%s links to %s" % (page, link)
    assert outside >= 3


def test_the_navigation_has_every_page():
    pages = re.findall(r"^  - .*: (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.M)
    assert sorted(pages) == sorted(path.name for path in (ROOT / "docs").glob("*.md"))


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path):
    (tmp_path / "mine").touch()
    printed = run_tool("--out", tmp_path, status=1)
    assert printed == "build_pages: failed: --out: %s is not an empty folder\n" % tmp_path


def test_what_is_no_mip_index_is_told(tmp_path):
    printed = run_tool("--out", tmp_path / "site", "--mip", tmp_path, status=1)
    assert "--mip: %s has no index.json: tools/release.py makes it" % tmp_path in printed


def test_a_page_that_mkdocs_is_not_content_with_makes_no_site(tmp_path, monkeypatch):
    monkeypatch.setattr(build_pages, "ROOT", tmp_path)  # no mkdocs.yml there
    with pytest.raises(build_pages.PagesError, match="not content"):
        build_pages.build(tmp_path / "site", None)
