"""The board's `select`: poll objects that answer objects.

What differs, and how it is bridged
-----------------------------------
- CPython's poll answers `(descriptor, event)`, a board's `(object, event)`; it has `ipoll`, and
  tells objects apart by identity. So a table stands between the two.
- On a board Python objects (`io.IOBase`) can be registered too. Here their `ioctl` is asked at
  each look, as there; for a sleep they get a descriptor (shim_io.py), and the poll sleeps in
  the kernel until a socket, such an object or `schedule()` wakes it. MicroPython's unix port
  wakes every millisecond instead, and with such an object its poll(0) takes 1 ms (seen in
  1.25, whether the object is ready or not); this one takes some microseconds.
- `unregister()` of an object that is not registered is silent, `modify()` of one raises
  OSError(ENOENT). CPython raises KeyError and FileNotFoundError.
- A socket that was closed while registered answers POLLNVAL (32) until it is unregistered, as
  on a board, even when another socket has got its descriptor's number meanwhile. (The unix port
  goes by the number, and would answer for the other one.)
- An object with `pending()` (shim_tls.py's streams, CPython's `ssl.SSLSocket`) is readable while
  that is above 0: its bytes have left the kernel, whose poll would sleep beside them for ever.
- An object with `wanted()` (shim_tls.py's streams) may wait for another direction than it was
  registered for: the handshake must read before it can write. That direction is watched then, and
  answered as all that was asked for, so that the caller tries again: as a board's TLS does.
- The events of a socket are Linux's. Those of a board's network stack, and its ways of sleeping,
  are in shim_personality.py.
- `ipoll()` hands out a new tuple for each object. A board hands out one and the same tuple with
  changing contents, so code for it must unpack in the loop; CPython's tuples cannot do that.
"""

import errno
import select
import time

import shim_micropython
from shim_io import IOCTL_GET_FILENO, IOCTL_POLL, IOBase

if not hasattr(select, "poll"):  # else what has failed would pass for a quiet network
    raise ImportError(
        "mqttpipe needs select.poll(), which Python has on Linux and macOS and not on Windows: "
        "use WSL or a container there"
    )

# The same numbers on Linux, macOS and every board (py/stream.h).
POLLIN = 1
POLLOUT = 4
POLLERR = 8
POLLHUP = 16
_RDWR = POLLIN | POLLOUT
_POLLNVAL = 32  # answered, and not exported: a board's module has no such name either

_ONESHOT = 1  # flag of ipoll(): watch an object for nothing once it was reported

_FD_STREAM = -1  # _Entry.fd: an IOBase, its ioctl is asked
_FD_CLOSED = -2  # _Entry.fd: the object's descriptor is gone


class _Entry:
    """One registered object."""

    __slots__ = ("obj", "mask", "fd", "pending", "wanted", "ask", "kernel")

    def __init__(self, obj, mask):
        self.obj = obj
        self.mask = mask
        if isinstance(obj, IOBase):
            # Asked as the unix port does, so that an ioctl which answers 0 for a request that
            # it does not know is found here, too: it is taken for descriptor 0.
            fd = obj.ioctl(IOCTL_GET_FILENO, 0)
            self.fd = fd if fd >= 0 else _FD_STREAM
        else:
            fd = _fileno(obj)
            if fd is None:
                raise OSError("stream operation not supported")
            self.fd = fd if fd >= 0 else _FD_CLOSED
        # Methods of the object; where it has one, the kernel's word is not enough.
        self.pending = getattr(obj, "pending", None) if self.fd >= 0 else None
        self.wanted = getattr(obj, "wanted", None) if self.fd >= 0 else None
        # From shim_personality.py: a socket, or the one below a TLS stream, that has its own.
        self.ask = getattr(getattr(obj, "_raw", obj), "_shim_events", None)
        self.kernel = None  # select.poll() of this descriptor alone; see look()

    def is_plain(self):
        """True if the kernel's word is enough."""
        is_simple = self.pending is None and self.wanted is None and self.ask is None
        return is_simple and self.fd != _FD_CLOSED

    def kernel_mask(self):
        """Return what the kernel shall watch the descriptor for."""
        wanted = self.wanted() if self.wanted is not None else 0
        return self.mask & ~_RDWR | wanted if wanted and self.mask & _RDWR else self.mask

    def look(self):
        """Return the events of an object with a descriptor, where is_plain() may be False."""
        mask = self.kernel_mask()
        events = self._look_at_kernel(mask) if self.ask is None else self.ask(mask)
        if mask & POLLIN and self.pending is not None and self.pending() > 0:
            events |= POLLIN
        if mask != self.mask and events & mask:
            events |= self.mask & _RDWR
        return events

    def _look_at_kernel(self, mask):
        if self.kernel is None:
            self.kernel = select.poll()
        self.kernel.register(self.fd, mask)
        for _, events in self.kernel.poll(0):
            return events
        return 0


def _fileno(obj):
    # The descriptor of a socket, file or plain number; None if obj has none.
    if isinstance(obj, int):
        return obj
    fileno = getattr(obj, "fileno", None)
    return None if fileno is None else fileno()


# Objects are told apart by identity, as on a board. A bare descriptor, which only CPython has, is
# its number: two equal ints above 256 are two objects.
def _key(obj):
    return obj if isinstance(obj, int) else id(obj)


class poll:  # noqa: N801  the board's name for it
    """A set of objects, and the events that each one is watched for.

    For one thread at a time.
    """

    def __init__(self):
        self._entries = {}  # _key(obj) -> _Entry, in the order of registration
        # Made from _entries by _arrange(), at the first look after a change:
        self._is_arranged = True
        self._is_plain = True  # the kernel's word is enough for all that have a descriptor
        self._by_fd = {}  # descriptor -> obj
        self._streams = ()  # entries whose ioctl is asked
        self._kernel = select.poll()  # watches the keys of _by_fd

    def register(self, obj, mask=POLLIN | POLLOUT):
        """Watch `obj` for `mask`; for one that is registered already, the mask is replaced.

        Raises:
            OSError: obj is neither an IOBase nor a descriptor, nor has it a fileno().
        """
        if _key(obj) in self._entries:
            self.modify(obj, mask)
            return
        self._entries[_key(obj)] = _Entry(obj, mask)
        self._is_arranged = False
        # A shim socket tells the polls when it closes. Others are asked for their descriptor
        # when the table is made anew, and until then the kernel answers for a closed one.
        watched_by = getattr(obj, "_shim_watched_by", None)
        if watched_by is not None:
            watched_by(self)

    def unregister(self, obj):
        """Watch `obj` no more. Silent if it was not registered."""
        if self._entries.pop(_key(obj), None) is not None:
            self._is_arranged = False

    def modify(self, obj, mask):
        """Watch `obj` for `mask` from now on.

        Raises:
            OSError: ENOENT, obj is not registered.
        """
        entry = self._entries.get(_key(obj))
        if entry is None:
            raise OSError(errno.ENOENT, "not registered")
        if entry.mask != mask:
            entry.mask = mask
            if self._is_arranged and self._is_plain and entry.fd >= 0:
                self._kernel.modify(entry.fd, mask)  # often done: POLLOUT comes and goes
            # Else the mask is read at each look.

    def poll(self, timeout_ms=-1):
        """Wait for events; return a list of (object, events), empty if none came in time.

        Args:
            timeout_ms: 0 looks and returns; negative or None waits for ever.

        POLLERR, POLLHUP and POLLNVAL are answered unasked.

        Raises:
            OSError: an ioctl answered a negative number; its positive is the errno.
        """
        ready = self._look()
        if ready or timeout_ms == 0:
            return ready
        return self._sleep(-1 if timeout_ms is None else timeout_ms)

    def ipoll(self, timeout_ms=-1, flags=0):
        """Wait as poll() does; return an iterator of (object, events).

        With flags=1 an object's mask becomes 0 as it is handed out.
        """
        ready = self.poll(timeout_ms)
        return self._one_shot(ready) if flags & _ONESHOT else iter(ready)

    def _one_shot(self, ready):
        for obj, events in ready:
            if _key(obj) in self._entries:
                self.modify(obj, 0)
            yield obj, events

    def _arrange(self):
        self._is_arranged = True
        self._is_plain = True
        self._by_fd = {}
        self._kernel = select.poll()
        entries = self._entries.values()
        self._streams = tuple(entry for entry in entries if entry.fd == _FD_STREAM)
        for entry in entries:
            if entry.fd >= 0 and not isinstance(entry.obj, IOBase):
                if _fileno(entry.obj) != entry.fd:
                    entry.fd = _FD_CLOSED  # and its number may be another object's by now
            if entry.fd in self._by_fd or not entry.is_plain():
                self._is_plain = False
            if entry.fd >= 0:
                self._by_fd[entry.fd] = entry.obj
                self._kernel.register(entry.fd, entry.mask)

    # What is ready now. The hot path of every step() of the client: one system call, and one
    # call of ioctl for each IOBase.
    def _look(self):
        if not self._is_arranged:
            self._arrange()
        if not self._is_plain:
            ready = self._look_closely()
        elif self._by_fd:
            by_fd = self._by_fd
            ready = [(by_fd[fd], events) for fd, events in self._kernel.poll(0)]
        else:
            ready = []
        for entry in self._streams:
            events = entry.obj.ioctl(IOCTL_POLL, entry.mask)
            if events < 0:
                raise OSError(-events, "ioctl failed")
            if events:
                ready.append((entry.obj, events))
        return ready

    # The same for descriptors where the kernel's word is not enough. A system call for each:
    # for the rare cases, and for a TLS socket or two.
    def _look_closely(self):
        ready = []
        for entry in list(self._entries.values()):
            events = 0
            if entry.fd == _FD_CLOSED:
                events = _POLLNVAL
            elif entry.fd >= 0:
                events = entry.look()
            if events:
                ready.append((entry.obj, events))
        return ready

    def _sleep(self, timeout_ms):
        deadline_ns = time.monotonic_ns() + timeout_ms * 1_000_000
        while True:
            if timeout_ms < 0:
                left_ms = -1
            else:
                left_ms = max(0, -(-(deadline_ns - time.monotonic_ns()) // 1_000_000))
            self._sleep_once(left_ms)
            ready = self._look()
            # Nothing is ready: schedule() woke us, or an object was ready and is no longer, or
            # the table changed. Then all is set up anew, for what is left of the time.
            if ready or (timeout_ms >= 0 and time.monotonic_ns() >= deadline_ns):
                return ready

    # Sleep until something seems ready, or schedule() was called, or the time is over.
    def _sleep_once(self, left_ms):
        kernel = select.poll()
        masks = {}  # two objects may have one descriptor
        for entry in self._entries.values():
            if entry.fd >= 0:
                masks[entry.fd] = masks.get(entry.fd, 0) | entry.kernel_mask()
        for fd, mask in masks.items():
            kernel.register(fd, mask)
        watched = []
        bell = shim_micropython.enter_sleep()
        try:
            if bell is not None:
                kernel.register(bell, POLLIN)
            for entry in self._streams:
                mirror = entry.obj._shim_mirror or entry.obj._shim_make_mirror()
                watched.append((mirror, entry.obj))
                # Watched first, asked then: from here on an assignment in another thread rings.
                mirror.begin(entry.obj, entry.mask)
                kernel.register(mirror.bell, POLLIN)
            if not shim_micropython.is_scheduled():
                kernel.poll(left_ms)
        finally:
            for mirror, obj in watched:
                mirror.end(obj)
            if bell is not None:
                shim_micropython.exit_sleep()  # runs what is scheduled

    def _on_closed(self, obj):
        # From a shim socket, before it closes its descriptor; from a TLS stream at its end.
        entry = self._entries.get(_key(obj))
        if entry is not None and entry.obj is obj:
            entry.fd = _FD_CLOSED
            self._is_arranged = False
