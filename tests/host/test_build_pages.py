"""tools/build_pages.py: docs/ becomes a web site, each page and link of it, with the mip index."""

import json
import pathlib
import re
import subprocess
import sys
import urllib.parse

import pytest

import build_pages

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
RUN_TIMEOUT_S = 300  # with the set-up, the first time
CHINESE = "tools/build_pages/mkdocs-zh.yml"

# The pages that the site has of boards/. The hook can be imported where mkdocs is installed only.
HOOK = (ROOT / "tools" / "build_pages" / "repository_links.py").read_text(encoding="utf-8")
ADDRESS = re.search("^site_url: (.+)$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.M)[1]
OF_BOARDS = set(re.findall(r'": "(\S+\.md)"', HOOK))


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
    return re.sub("^setup: .*\\n", "", ran.stdout, flags=re.M)  # the first time, or another waits


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    index = folder / "mip"
    (index / "package").mkdir(parents=True)
    (index / "index.json").write_text("{}")
    (index / "package" / "latest.json").write_text("[]")
    printed = run_tool("--out", folder / "site", "--mip", index)
    # mkdocs has nothing to say.
    assert re.fullmatch(r"build_pages: .*: \d+ files\n", printed), printed
    return folder / "site"


def test_the_site_has_every_page_and_the_mip_index(site):
    for page in [*(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "zh").glob("[!R]*.md")]:
        folder = site / page.parent.relative_to(ROOT / "docs")
        place = folder if page.stem == "index" else folder / page.stem
        assert (place / "index.html").is_file(), page
    for name in OF_BOARDS:
        assert (site / name.replace(".md", "") / "index.html").is_file(), name
    assert (site / "mip" / "package" / "latest.json").read_text() == "[]"
    assert (site / "demo.svg").is_file()


def test_each_link_leads_to_what_is_there(site):
    repository = re.compile(r"https://github\.com/[\w.-]+/[\w.-]+/blob/main/(.*)")
    pages = {page: page.read_text(encoding="utf-8") for page in site.rglob("index.html")}
    anchors = {page: set(re.findall(r' id="([^"]+)"', text)) for page, text in pages.items()}
    outside = across = 0
    for page, text in pages.items():
        for link in re.findall(r'<(?:a|img|link|script) [^>]*(?:href|src)="([^"]+)', text):
            path, _, anchor = urllib.parse.unquote(link).partition("#")
            found = repository.fullmatch(path)
            if found:
                outside += 1
                assert (ROOT / found.group(1)).exists(), link
            if path.startswith(ADDRESS):
                target = site / path[len(ADDRESS) :]
            elif "://" in path or path.startswith("data:"):
                continue
            else:
                target = page.parent / path if path else page
            target = target.resolve()
            across += (target.relative_to(site).parts[:1] == ("zh",)) != ("zh" in page.parts)
            target = target / "index.html" if target.is_dir() else target
            assert target.exists(), "%s links to %s" % (page, link)
            if anchor and not anchor.startswith("__"):
                assert anchor in anchors[target], "%s links to %s" % (page, link)
    assert outside >= 3 and across >= len(pages)


def test_each_site_has_a_search_of_its_language(site):
    for folder, word in ((site, "reconnection"), (site / "zh", "\u8ba2\u9605")):
        index = json.loads((folder / "search" / "search_index.json").read_text(encoding="utf-8"))
        texts = [entry["text"] for entry in index["docs"]]
        assert any(word in text for text in texts), word


@pytest.mark.parametrize("config, folder", [("mkdocs.yml", "docs"), (CHINESE, "docs/zh")])
def test_the_navigation_has_every_page(config, folder):
    pages = re.findall(r"^ +- .*: (\S+\.md)$", (ROOT / config).read_text(encoding="utf-8"), re.M)
    names = {path.name for path in (ROOT / folder).glob("[!R]*.md")}
    assert set(pages) - OF_BOARDS == names and len(pages) == len(set(pages))


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
