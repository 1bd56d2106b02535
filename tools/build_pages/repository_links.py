"""For mkdocs: pages from outside of docs/, and links that lead out of it.

The pages of boards/ stand beside their files, where GitHub shows them; the site has them as well.
A link to a file that is no page of the site leads to the repository.
"""

import pathlib
import posixpath
import re

import jieba
from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent

# In the repository: on the site.
PAGES = {
    "boards/README.md": "your-board.md",
    "boards/esp32/README.md": "esp32.md",
    "boards/rp2_pico_w/README.md": "pico-w.md",
}
LINK = re.compile(r"(\]\()(?!\w+:|#)([^)#\s]+)")


def on_startup(command, dirty):
    """Called by mkdocs first."""
    jieba.setLogLevel("WARNING")  # it tells of its dictionary otherwise


def on_files(files, config):
    """Called by mkdocs with what it has found; adds the pages of boards/ to the English site."""
    if pathlib.Path(config.docs_dir) == ROOT / "docs":
        for source, name in PAGES.items():
            text = (ROOT / source).read_text(encoding="utf-8")
            files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown, page, config, files):
    """Called by mkdocs with the text of each page; returns the text to be used."""
    folder = pathlib.Path(config.docs_dir).relative_to(ROOT).as_posix()
    here = {name: source for source, name in PAGES.items()}.get(
        page.file.src_uri, "%s/%s" % (folder, page.file.src_uri)
    )

    site = posixpath.relpath(folder, "docs")  # "." or "zh"

    def lead(found):
        target = posixpath.normpath(posixpath.join(posixpath.dirname(here), found[2]))
        name = PAGES.get(target, posixpath.relpath(target, folder))
        if files.get_file_from_path(name):
            return found[1] + name
        in_english = PAGES.get(target, posixpath.relpath(target, "docs"))
        if site != "." and not in_english.startswith(("../", "zh/")):
            place = re.sub(r"(index)?\.md$", "", in_english)
            slash = "/" if in_english.endswith(".md") else ""
            return found[1] + posixpath.relpath(place, posixpath.join(site, page.url)) + slash
        return "%s%s/blob/main/%s" % (found[1], config.repo_url, target)

    return LINK.sub(lead, markdown)
