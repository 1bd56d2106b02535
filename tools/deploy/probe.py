"""Runs on the board, for tools/deploy.py: print what it is and what is on it, as one dict.

`NAMES`, the files to look for, is set before it. Nothing is changed on the board.
"""

import gc
import os
import sys

try:
    from hashlib import sha256
except ImportError:
    sha256 = None

gc.collect()
os.chdir("/")  # a boot.py, or a program that its watchdog keeps, may have gone elsewhere


def hash_of(name):
    try:
        file = open(name, "rb")
    except OSError:
        return None
    digest = sha256()
    buf = bytearray(512)
    view = memoryview(buf)
    with file:
        while True:
            count = file.readinto(buf)
            if not count:
                break
            digest.update(view[:count])
    return "".join("%02x" % byte for byte in digest.digest())


def text_of(name):
    try:
        with open(name) as file:
            return file.read()
    except (OSError, ValueError):
        return None


def source_of(path):
    """Return the size of a source that the board must compile as a whole; None: there is none."""
    try:
        with open(path) as file:
            is_in_pieces = "compiled one after the other" in file.read(120)
        return None if is_in_pieces else os.stat(path)[6]
    except (OSError, ValueError):
        return None


def has_module(name):
    try:
        __import__(name)
        return True
    except ImportError:
        return False


disk = os.statvfs("/")
print(
    repr(
        {
            "platform": sys.platform,
            "version": tuple(sys.implementation.version[:3]),
            "machine": getattr(sys.implementation, "_machine", ""),
            "mpy": getattr(sys.implementation, "_mpy", 0),
            "memory_free": gc.mem_free(),
            "memory": gc.mem_free() + gc.mem_alloc(),
            "block_bytes": disk[0],
            "disk_free": disk[0] * disk[4],
            "disk": disk[1] * disk[2],
            "has_wifi": has_module("network"),
            "files": {entry[0]: 0 if entry[1] & 0x4000 else 1 for entry in os.ilistdir("/")},
            "hashes": {name: hash_of(name) for name in NAMES} if sha256 else {},  # noqa: F821
            "sources": {path: source_of(path) for path in ("mqttpipe.py", "lib/mqttpipe.py")},
            "record": text_of("deployed.json"),
        }
    )
)
