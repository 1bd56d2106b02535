"""For hatchling, which makes the wheel: what pyproject.toml can't say.

The client is in a wheel twice: as the module that programs import, and in mqttpipe_host/, where
the tools find it beside their other files as in a checkout. An editable install has no copies.
"""

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PLACES = {
    "cpython_shim/mqttpipe-stubs": "mqttpipe-stubs",
    "cpython_shim/mqttpipe_host": "mqttpipe_host",
    "micropython": "mqttpipe_host/micropython",
    "micropython/mqttpipe.py": "mqttpipe.py",
    "micropython/mqttpipe_repl.py": "mqttpipe_repl.py",
}


class WheelHook(BuildHookInterface):
    def initialize(self, version, build_data):
        if version != "editable":
            build_data["force_include"].update(PLACES)
