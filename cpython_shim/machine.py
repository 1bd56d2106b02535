"""`import machine` on CPython, for code and tests that run with this folder on sys.path.

Not installed by pip: a module of this name in site-packages would make other programs believe
that they run on a board. What differs from a board is said in shim_machine.py.
"""

from shim_machine import unique_id

__all__ = ["unique_id"]
