"""The board's flash: a folder of this machine, mounted at "/", with an end to its room.

The room is counted as littlefs does, which both ports have (esp32/modules/inisetup.py,
rp2/modules/_boot.py): in blocks of 4096 bytes, two of them for each folder. And as in littlefs
what is written to a file is not there before flush() or close(): until then a reader and a power
cut find the old contents, which go on taking their room. So a file that is open for writing is
another one, in the folder `unfinished`, and takes its place as a whole. After ENOSPC littlefs
drops what it has of the file (LFS_F_ERRED in lfs.c); so does this.

Left out: small files inside their folder's block, the room that metadata grow into, wear, times
of files (stat() says 0).
"""

import io
import os

import board_bus

_BLOCK_BYTES = 4096
_DIRECTORY_BLOCKS = 2

_ENOENT = 2
_EEXIST = 17
_EISDIR = 21
_ENOSPC = 28

_DIRECTORY = 0x4000
_FILE = 0x8000


# Not on the flash: what the REPL is given to run, for execfile(). A whole path, or it would be
# sought in what the program has mounted and changed to.
INPUT = "/<stdin>"


class Flash:
    """A file system object for vfs.mount()."""

    def __init__(self, folder, size_bytes):
        self._fs = os.VfsPosix(folder)  # with /files and /unfinished in it
        self._folder = folder
        self._blocks = size_bytes // _BLOCK_BYTES
        self._cwd = "/"
        self._used = None  # blocks of what is in /files; None: to be counted
        self._open = []  # files open for writing
        self._unfinished = 0  # names given in /unfinished
        self.is_importing = 0  # with mpy_version only
        self.mpy_version = None  # of .mpy files that can be imported; see board_boot.py

    def __repr__(self):
        return "<VfsLfs2>"

    # -- the protocol of extmod/vfs.c --

    def mount(self, readonly, mkfs):
        self._fs.mount(readonly, mkfs)

    def umount(self):
        pass

    def chdir(self, path):
        path = self._whole(path)
        if path != "/" and not self._is_directory(path):
            raise OSError(_ENOENT)
        self._cwd = path

    def getcwd(self):
        return self._cwd

    def ilistdir(self, path):
        path = self._whole(path)
        listed = []
        for entry in self._fs.ilistdir("/files" + path):
            name = entry[0]
            if entry[1] == _DIRECTORY:
                listed.append((name, _DIRECTORY, 0, 0))
            else:
                size = self._fs.stat("/files" + path.rstrip("/") + "/" + name)[6]
                listed.append((name, _FILE, 0, size))
        listed.sort()  # littlefs keeps its folders in order
        return iter(listed)

    def stat(self, path):
        found = self._fs.stat("/files" + self._whole(path))
        if found[0] & _DIRECTORY:
            return (_DIRECTORY, 0, 0, 0, 0, 0, 0, 0, 0, 0)
        return (_FILE, 0, 0, 0, 0, 0, found[6], 0, 0, 0)

    def statvfs(self, path):
        free = self.free_blocks()
        return (_BLOCK_BYTES, _BLOCK_BYTES, self._blocks, free, free, 0, 0, 0, 0, 255)

    def mkdir(self, path):
        path = self._whole(path)
        if self._exists(path):
            raise OSError(_EEXIST)
        if self.free_blocks() < _DIRECTORY_BLOCKS:
            raise OSError(_ENOSPC)
        self._fs.mkdir("/files" + path)
        self._used = None

    # lfs_remove() takes files and empty folders; os.rmdir() and os.remove() are one there.
    def remove(self, path):
        path = self._whole(path)
        if self._is_directory(path):
            self._fs.rmdir("/files" + path)
        else:
            self._fs.remove("/files" + path)
        self._used = None

    rmdir = remove

    def rename(self, old, new):
        old = self._whole(old)
        new = self._whole(new)
        if self._exists(new) and self._is_directory(new) and not self._is_directory(old):
            raise OSError(_EISDIR)
        self._move("/files" + old, "/files" + new)
        self._used = None

    def open(self, path, mode):
        if path == INPUT:
            return self._fs.open("/input", mode)
        path = self._whole(path)
        if self.is_importing and path.endswith(".mpy"):
            self._check_mpy(path)
        if "w" in mode or "a" in mode or "+" in mode or "x" in mode:
            if self._is_directory(path):
                raise OSError(_EISDIR)
            return _Writable(self, path, mode)
        if self._is_directory(path):
            raise OSError(_EISDIR)
        return self._fs.open("/files" + path, mode)

    # VfsPosix.rename() of 1.25 puts both paths into one buffer when it has a folder of its own.
    def _move(self, old, new):
        if board_bus.rename(self._folder + old, self._folder + new) < 0:
            raise OSError(_ENOENT)

    # mp_raw_code_load() of py/persistentcode.c, as firmware with that version has it.
    def _check_mpy(self, path):
        with self._fs.open("/files" + path, "rb") as file:
            header = file.read(2)
        if header[1] != self.mpy_version:
            raise ValueError("incompatible .mpy file")

    def close_all(self):
        """Close what is open, as the last collection of garbage does at a soft reset."""
        for file in list(self._open):
            try:
                file.close()
            except OSError:
                pass

    # -- room --

    def free_blocks(self):
        """Return how many blocks are free."""
        if self._used is None:
            self._used = self._count("/files")
        return max(0, self._blocks - self._used - sum(file.blocks for file in self._open))

    def _count(self, folder):
        blocks = _DIRECTORY_BLOCKS
        for entry in self._fs.ilistdir(folder):
            path = folder + "/" + entry[0]
            if entry[1] == _DIRECTORY:
                blocks += self._count(path)
            else:
                blocks += blocks_of(self._fs.stat(path)[6])
        return blocks

    # -- paths --

    def _whole(self, path):
        if not path.startswith("/"):
            path = self._cwd + "/" + path
        parts = []
        for part in path.split("/"):
            if part == "..":
                if parts:
                    parts.pop()
            elif part not in ("", "."):
                parts.append(part)
        return "/" + "/".join(parts)

    def _exists(self, path):
        try:
            self._fs.stat("/files" + path)
        except OSError:
            return False
        return True

    def _is_directory(self, path):
        try:
            return bool(self._fs.stat("/files" + path)[0] & _DIRECTORY)
        except OSError:
            return False


def blocks_of(size_bytes):
    return -(-size_bytes // _BLOCK_BYTES)


class _Writable(io.IOBase):
    # A file open for writing: the file in /unfinished does the work.

    def __init__(self, flash, path, mode):
        self._flash = flash
        self._path = path
        self._file = None
        is_there = flash._exists(path)
        if "x" in mode and is_there:
            raise OSError(_EEXIST)
        if "r" in mode and not is_there:
            raise OSError(_ENOENT)
        if "w" in mode or "x" in mode or not is_there:
            self.size = 0
        else:
            self.size = flash._fs.stat("/files" + path)[6]
        self.blocks = 0  # that we take beside what is in /files
        if blocks_of(self.size) > flash.free_blocks() or not is_there and not flash.free_blocks():
            raise OSError(_ENOSPC)
        if not is_there:
            flash._fs.open("/files" + path, "wb").close()  # lfs_file_open() makes the entry
        flash._unfinished += 1
        self._name = "/unfinished/%d" % flash._unfinished
        work = flash._fs.open(self._name, "wb")
        if self.size:
            _copy(flash._fs, "/files" + path, work)
        work.close()
        self._file = flash._fs.open(self._name, "r+b" if "b" in mode else "r+")
        self._appends = "a" in mode
        if self._appends:
            self._file.seek(self.size)
        self.blocks = blocks_of(self.size)
        self._has_failed = False
        self._is_text = "b" not in mode
        flash._open.append(self)

    def write(self, data):
        file = self._open_file()
        if self._appends:
            file.seek(0, 2)
        length = len(data.encode()) if isinstance(data, str) else len(data)
        size = max(self.size, file.tell() + length)
        more = blocks_of(size) - self.blocks
        if more > 0:
            if more > self._flash.free_blocks():
                self._has_failed = True
                raise OSError(_ENOSPC)
            self.blocks += more
        self.size = size
        return file.write(data)

    def flush(self):
        self._commit(False)

    def close(self):
        if self._file is not None:
            self._commit(True)

    def _commit(self, is_last):
        fs = self._flash._fs
        self._open_file().flush()
        if self._has_failed:
            if is_last:
                self._file.close()
                fs.remove(self._name)
        elif is_last:
            self._file.close()
            self._flash._move(self._name, "/files" + self._path)
        else:
            work = fs.open(self._name + "f", "wb")
            _copy(fs, self._name, work)
            work.close()
            self._flash._move(self._name + "f", "/files" + self._path)
        if is_last:
            self._file = None
            self._flash._open.remove(self)
        self._flash._used = None

    def _open_file(self):
        if self._file is None:
            raise ValueError("I/O operation on closed file")
        return self._file

    def read(self, *size):
        return self._open_file().read(*size)

    def readinto(self, buf):
        return self._open_file().readinto(buf)

    def readline(self, *size):
        return self._open_file().readline(*size)

    def readlines(self):
        return self._open_file().readlines()

    def seek(self, *where):
        return self._open_file().seek(*where)

    def tell(self):
        return self._open_file().tell()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __iter__(self):
        return iter(self._open_file())

    def ioctl(self, request, _):
        if request == 1:
            self.flush()
            return 0
        if request == 4:
            self.close()
            return 0
        return -1


def _copy(fs, source, target):
    buf = bytearray(512)
    file = fs.open(source, "rb")
    while True:
        count = file.readinto(buf)
        if not count:
            break
        target.write(memoryview(buf)[:count])
    file.close()
