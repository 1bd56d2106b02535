"""What `pip install mqttpipe` brings beside the client: the shim, and the tools for boards.

The client says `from mqttpipe_host import *` where a board has modules of its own, and gets the
names of shim_board.py. That folder goes to the end of sys.path for it, so that a program finds its
own modules first. The thin micropython.py and machine.py stay out of what pip installs: they would
make other programs believe that they run on a board.

`python -m mqttpipe_host` is the command `mqttpipe`.
"""

import os
import sys

_FOLDER = os.path.dirname(os.path.abspath(__file__))

# In a checkout this package stands in cpython_shim/, which is on sys.path already.
_SHIM = os.path.join(_FOLDER, "cpython_shim")
if os.path.isdir(_SHIM) and _SHIM not in sys.path:
    sys.path.append(_SHIM)


# Asked at each import of the client, as shim_board.py is: a test may have put another one there.
# `import *` asks for __all__. The command does not ask: it starts faster without.
def __getattr__(name):
    import shim_board

    return getattr(shim_board, name)
