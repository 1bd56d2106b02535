"""Make the web site: docs/ as HTML, docs/zh/ below it, and the mip index of a release beside them.

    python3 tools/build_pages.py                     site/, without an index
    python3 tools/build_pages.py --mip dist/mip      with the one of tools/release.py
    python3 tools/build_pages.py --out DIR           another folder, which must be empty

Set up, once: `.venv` with mkdocs (tools/setup_env.py). The exit status is 1 if there is no site,
because a page links to what is not there, for example; the last line says why.
"""

import argparse
import os
import pathlib
import shutil
import subprocess
import sys

import setup_env
from commands import exit_with

ROOT = setup_env.ROOT
REQUIREMENTS = "requirements-pages.txt"
MKDOCS_TIMEOUT_S = 300
SITES = (("mkdocs.yml", "."), ("tools/build_pages/mkdocs-zh.yml", "zh"))
INDEX = "index.json"  # what a mip index begins with


class PagesError(Exception):
    """What is wrong, in one line that one can act on."""


def say(text):
    print("build_pages: " + text, flush=True)


def run_mkdocs(config, out):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"]
    try:
        ran = subprocess.run(
            [*command, "--config-file", str(config), "--site-dir", str(out)],
            cwd=ROOT,
            env=dict(os.environ, NO_MKDOCS_2_WARNING="1"),  # what requirements-pages.txt says
            timeout=MKDOCS_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired as error:
        raise PagesError("mkdocs did not end within %d s" % MKDOCS_TIMEOUT_S) from error
    if ran.returncode != 0:
        raise PagesError("mkdocs is not content with docs/: see above")


def build(out, mip):
    """Make the site in the folder `out`, with the mip index of the folder `mip`, or None."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise PagesError("--out: %s is not an empty folder" % out)
    if mip is not None and not (mip / INDEX).is_file():
        raise PagesError("--mip: %s has no %s: tools/release.py makes it" % (mip, INDEX))
    for config, place in SITES:
        run_mkdocs(ROOT / config, out.absolute() / place)
    if mip is not None:
        shutil.copytree(mip, out / "mip")
    say("%s: %d files" % (out, sum(path.is_file() for path in out.rglob("*"))))


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out",
        type=pathlib.Path,
        default=ROOT / "site",
        metavar="DIR",
        help="where to (default: site)",
    )
    parser.add_argument("--mip", type=pathlib.Path, metavar="DIR", help="a mip index to put there")
    options = parser.parse_args(arguments)
    setup_env.reexec_in_venv(REQUIREMENTS)
    try:
        build(options.out, options.mip)
    except PagesError as error:
        say("failed: %s" % error)
        return 1
    return 0


if __name__ == "__main__":
    exit_with(main)
