"""Import this first: it keeps a board's heap in one piece.

MicroPython collects garbage when the heap is full. What lives on is spread all over it then, and
of 15 KB that are free no piece may have 600 bytes. Collected every few KB, the free part stays at
the end.
"""

import gc

if hasattr(gc, "threshold"):
    gc.threshold(8192)
