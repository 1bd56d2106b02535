"""What is frozen into the firmware (the makefile's FROZEN_MANIFEST)."""

include("$(MPY_DIR)/extmod/asyncio")  # noqa: F821
freeze("frozen", opt=3)  # noqa: F821
