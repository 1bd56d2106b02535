"""For mkdocs: what a page of docs/ links to outside of docs/ is shown in the repository."""

import re

OUTSIDE = re.compile(r"\]\(\.\./([^)]+)\)")


def on_page_markdown(markdown, page, config, files):
    """Called by mkdocs with the text of each page; returns the text to be used."""
    return OUTSIDE.sub(r"](%s/blob/main/\1)" % config.repo_url, markdown)
