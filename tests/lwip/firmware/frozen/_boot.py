"""Runs at each start, before boot.py: mounts the file system and the ROMFS.

The "flash" is 8 MiB of the board's other memory, which is no heap. It outlives a reset; QEMU keeps
it in a file if it is told to.
"""

import vfs
from uctypes import bytearray_at

_BLOCK_BYTES = 4096


class Flash:
    def __init__(self):
        self.memory = memoryview(bytearray_at(0x21400000, 0x800000))

    def readblocks(self, block, buffer, offset=0):
        start = block * _BLOCK_BYTES + offset
        buffer[:] = self.memory[start : start + len(buffer)]

    def writeblocks(self, block, buffer, offset=0):
        start = block * _BLOCK_BYTES + offset
        self.memory[start : start + len(buffer)] = buffer

    def ioctl(self, operation, argument):
        if operation == 4:
            return len(self.memory) // _BLOCK_BYTES
        if operation == 5:
            return _BLOCK_BYTES
        if operation == 6:
            return 0  # erased, as far as memory needs that


def mount():
    flash = Flash()
    try:
        system = vfs.VfsLfs2(flash, progsize=256)
    except OSError:
        vfs.VfsLfs2.mkfs(flash, progsize=256)
        system = vfs.VfsLfs2(flash, progsize=256)
    vfs.mount(system, "/")


# Newer versions of the port mount the ROMFS by themselves.
def mount_rom():
    from os import stat
    from sys import path

    try:
        stat("/rom")
        return
    except OSError:
        pass
    rom = bytearray_at(0x21000000, 0x400000)
    if hasattr(vfs, "VfsRom") and rom[:3] == b"\xd2\xcd\x31":
        vfs.mount(vfs.VfsRom(memoryview(rom)), "/rom")
        path.extend(("/rom", "/rom/lib"))


# Where mip puts what it installs. The ports of real boards look there, too.
def add_lib():
    from sys import path

    if "/lib" not in path:
        path.append("/lib")


mount()
add_lib()
mount_rom()
