"""The board's `errno`: the names that it has, and none that it has not.

What differs, and how it is bridged
-----------------------------------
- A board has 22 names (py/moderrno.c), CPython has all of the C library's. A program that
  compares with EWOULDBLOCK, EPIPE or ENETUNREACH would run here and fail on the first board.
- The numbers belong to the port: Linux's on unix and rp2, newlib's on ESP32, where EINPROGRESS
  is 119. So they are compared by name only, with the names from here. Here they are this
  machine's, until shim_personality.py puts a port's in their place.
"""

from errno import (
    EACCES,
    EADDRINUSE,
    EAGAIN,
    EALREADY,
    EBADF,
    ECONNABORTED,
    ECONNREFUSED,
    ECONNRESET,
    EEXIST,
    EHOSTUNREACH,
    EINPROGRESS,
    EINVAL,
    EIO,
    EISDIR,
    ENOBUFS,
    ENODEV,
    ENOENT,
    ENOMEM,
    ENOTCONN,
    EOPNOTSUPP,
    EPERM,
    ETIMEDOUT,
)

__all__ = [
    "EACCES",
    "EADDRINUSE",
    "EAGAIN",
    "EALREADY",
    "EBADF",
    "ECONNABORTED",
    "ECONNREFUSED",
    "ECONNRESET",
    "EEXIST",
    "EHOSTUNREACH",
    "EINPROGRESS",
    "EINVAL",
    "EIO",
    "EISDIR",
    "ENOBUFS",
    "ENODEV",
    "ENOENT",
    "ENOMEM",
    "ENOTCONN",
    "EOPNOTSUPP",
    "EPERM",
    "ETIMEDOUT",
]
