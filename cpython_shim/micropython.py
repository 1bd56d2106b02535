"""`import micropython` on CPython, for code and tests that run with this folder on sys.path.

Not installed by pip: a module of this name in site-packages would make other programs believe
that they run on a board. What differs from a board is said in shim_micropython.py.
"""

from shim_micropython import const, heap_lock, heap_locked, heap_unlock, schedule

__all__ = ["const", "heap_lock", "heap_locked", "heap_unlock", "schedule"]
