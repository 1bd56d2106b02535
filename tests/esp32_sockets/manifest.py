# ruff: noqa: F821  (include is a word of the manifest language)
include("$(MPY_DIR)/extmod/asyncio")
