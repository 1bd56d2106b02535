"""The board's `io.IOBase`: a Python object that a poll can watch.

What differs, and how it is bridged
-----------------------------------
- On a board a class derived from `io.IOBase` with a method `ioctl(request, arg)` is a stream.
  A poll that has it registered calls `ioctl(3, mask)` again and again until the answer is not
  0. CPython's `io.IOBase` has no `ioctl`, and CPython's poll sleeps in the kernel, which knows
  descriptors and no Python objects. Asking every millisecond, as MicroPython's unix port does,
  would cost a PC a thousand wake-ups a second and a message half a millisecond.
- So while somebody sleeps on such an object it has a real descriptor, whose readability
  MIRRORS whether `ioctl(3, mask)` answers anything but 0. The poll of shim_select.py makes it
  at its first sleep; `fileno()` makes it for everybody else (an asyncio loop, for one) and from
  then on the mirror is kept for ever.

THE RULE, for classes that want to wake a sleeping poll: **after an attribute of the object was
assigned, its readiness is looked at again. A change inside a list or a bytearray is not seen
until an attribute is assigned.** So a put ends with an assignment (`self.count += 1`), made when
what `ioctl` looks at is complete. Any thread may do it, a scheduled function may, a signal
handler may. A poll that begins looks for itself, whatever was assigned.

`ioctl` must answer from what is there, assign nothing, and take no lock that a thread holds
while it assigns an attribute.

Requests (py/stream.h): 3 POLL, `arg` is the event mask, the answer the ready mask; 4 CLOSE;
10 GET_FILENO. A negative answer is an error; anything unknown must be answered so (the unix
port takes a 0 for "my descriptor is 0" and then watches standard input).
"""

import threading

from shim_micropython import Doorbell

IOCTL_POLL = 3
IOCTL_GET_FILENO = 10

_POLLIN = 1

_store_attribute = object.__setattr__


class IOBase:
    """Base of pollable Python objects; the subclass has `ioctl(request, arg)`.

    Attributes that begin with `_shim_` belong to this class. A subclass need not call
    `super().__init__()`, and mostly does not on a board.
    """

    # Class attributes until somebody sleeps, so that an object never polled costs nothing.
    _shim_mirror = None  # _Mirror; made by the first sleep or fileno()
    _shim_watchers = 0  # how many keep the mirror in use now: sleeping polls, and fileno() once

    def __setattr__(self, name, value):
        _store_attribute(self, name, value)
        # Storing first and looking for watchers then is what makes a lost wake-up impossible:
        # a watcher counts itself first and looks at the readiness then. One sees the other.
        if self._shim_watchers:
            mirror = self._shim_mirror
            if mirror is not None:
                mirror.update(self)

    def fileno(self):
        """Return a descriptor that is readable while `ioctl(3, POLLIN)` is not 0.

        Made at the first call. Watch it, never read it.
        """
        mirror = self._shim_mirror or self._shim_make_mirror()
        if not mirror.is_public:
            mirror.is_public = True
            mirror.begin(self, _POLLIN)
        return mirror.bell.fileno()

    def close(self):
        """Close the descriptor, if there is one; the object itself needs no closing.

        A poll that has the object registered goes on asking `ioctl`, as a board would.
        """
        mirror = self._shim_mirror
        if mirror is not None:
            mirror.close(self)

    def _shim_make_mirror(self):
        with _making_lock:
            if self._shim_mirror is None:
                _store_attribute(self, "_shim_mirror", _Mirror())
            return self._shim_mirror


_making_lock = threading.RLock()  # two threads may begin to watch one object


class _Mirror:
    """The descriptor of one IOBase object (the owner), and the care for those who watch it.

    The invariant, when there is a watcher, `lock` is free, and every attribute assignment has
    returned:  bell.rung == (owner.ioctl(3, mask) != 0)

    The owner is an argument and not an attribute: a cycle would keep the descriptors of a
    dropped object open until the garbage collector comes by.
    """

    def __init__(self):
        self.bell = Doorbell()
        self.mask = 0  # every event that anybody watched for; only grows
        self.is_public = False  # fileno() was called
        # Re-entrant, because a scheduled function or a signal handler can interrupt update()
        # in the main thread and assign an attribute: a plain lock would wait for itself.
        self.lock = threading.RLock()
        self.is_asking = False  # `lock` is held, and ioctl is being asked further up the stack
        self.is_stale = False  # ... and an attribute was assigned meanwhile

    def begin(self, owner, mask):
        """Count one watcher more, and bring the descriptor up to date."""
        with self.lock:
            self.mask |= mask
            _store_attribute(owner, "_shim_watchers", owner._shim_watchers + 1)
        self.update(owner)

    def end(self, owner):
        """Count one watcher less. With none left the descriptor goes stale."""
        with self.lock:
            if owner._shim_mirror is self:  # else close() has taken all the watchers away
                _store_attribute(owner, "_shim_watchers", owner._shim_watchers - 1)

    def update(self, owner):
        """Make the descriptor as readable as the owner is ready."""
        with self.lock:
            if self.is_asking:
                self.is_stale = True  # the call that we interrupt asks again
                return
            # Again if an interrupting assignment came between question and bell. Bounded,
            # because an ioctl that breaks the rule and assigns an attribute would never end.
            for _ in range(4):
                self.is_stale = False
                self.is_asking = True
                try:
                    # Not 0 includes the negative answers: whoever sleeps must see the error.
                    if owner.ioctl(IOCTL_POLL, self.mask) != 0:
                        self.bell.ring()
                    else:
                        self.bell.hush()
                finally:
                    self.is_asking = False
                if not self.is_stale:
                    return

    def close(self, owner):
        """Wake who sleeps, and close both ends. The next sleep makes a new mirror."""
        with self.lock:
            _store_attribute(owner, "_shim_mirror", None)
            _store_attribute(owner, "_shim_watchers", 0)
            self.bell.ring()
            self.bell.close()
