# ruff: noqa: F821  (metadata and module are words of the manifest language)
# For freezing the client into a firmware: in the manifest.py of your board,
#
#     include("<where this is>/mqttpipe/micropython")
#
# The version stands in mqttpipe.py; a test compares the two.
metadata(
    description="A non-blocking MQTT client in one file.",
    version="0.1.0",
    license="MIT",
)

module("mqttpipe.py", opt=3)
