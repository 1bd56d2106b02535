"""For hatchling, which makes wheel and sdist: what pyproject.toml can't say.

The client is in a wheel twice: as the module that programs import, and in mqttpipe_host/, where
the tools find it beside their other files as in a checkout. An editable install has no copies.

The README is the project's page on PyPI, too. There a link to a file of the project would lead to
a page of PyPI that does not exist: these links get the address of the repository. An image gets
that of the documentation's site: the repository has a page around it.
"""

import pathlib
import re

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface

PLACES = {
    "cpython_shim/mqttpipe-stubs": "mqttpipe-stubs",
    "cpython_shim/mqttpipe_host": "mqttpipe_host",
    "micropython": "mqttpipe_host/micropython",
    "micropython/mqttpipe.py": "mqttpipe.py",
    "micropython/mqttpipe_repl.py": "mqttpipe_repl.py",
}


IMAGE = re.compile(r"(!\[[^]]*\])\(docs/([^)\s]+)\)")  # the documentation's site has it as well
LINK = re.compile(r"\]\((?!https?://|#)([^)\s]+)\)")  # to a file, from the project's top


class ReadmeHook(MetadataHookInterface):
    def update(self, metadata):
        text = (pathlib.Path(self.root) / "README.md").read_text(encoding="utf-8")
        files = metadata["urls"]["Repository"] + "/blob/main/"
        site = metadata["urls"]["Documentation"]
        text = IMAGE.sub(lambda found: "%s(%s%s)" % (found[1], site, found[2]), text)
        text = LINK.sub(lambda found: "](%s%s)" % (files, found[1]), text)
        metadata["readme"] = {"content-type": "text/markdown", "text": text}


class WheelHook(BuildHookInterface):
    def initialize(self, version, build_data):
        if version != "editable":
            build_data["force_include"].update(PLACES)
