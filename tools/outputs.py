"""What a long run is asked for: looked at before it begins. And its files, written whole.

The first functions are types for argparse.
"""

import argparse
import math
import os
import pathlib


def positive(text):
    """A number of some unit: neither infinite nor none at all."""
    try:
        number = float(text)
    except ValueError:
        number = 0
    if 0 < number < math.inf:
        return number
    raise argparse.ArgumentTypeError("%r: must be a number above 0" % text)


def positive_int(text):
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number > 0:
        return number
    raise argparse.ArgumentTypeError("%r: must be a whole number above 0" % text)


def is_there(path):
    """Tell whether something is there; raise OSError if that can't be known.

    Path.exists() may do the latter, or may not, by the version of Python.
    """
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def new_file(text):
    path = pathlib.Path(text)
    try:
        is_writable = not is_there(path) or not path.is_dir() and os.access(path, os.W_OK)
    except OSError:
        is_writable = False
    if not is_writable or not os.access(path.parent, os.W_OK | os.X_OK):
        raise argparse.ArgumentTypeError("%s: no file can be written there" % text)
    return path


def new_folder(text):
    """A folder that is there, or can be made in one that is."""
    path = pathlib.Path(text)
    try:
        there = next(folder for folder in (path, *path.absolute().parents) if is_there(folder))
        is_writable = there.is_dir() and os.access(there, os.W_OK | os.X_OK)
    except OSError:
        is_writable = False
    if not is_writable:
        raise argparse.ArgumentTypeError("%s: nothing can be written there" % text)
    return path


def attempt(write, *arguments):
    """Call it; return what is wrong, a list: a full disk hides nothing that a run has found."""
    try:
        write(*arguments)
    except OSError as error:
        return ["it can't be written: %s" % error]
    return []


def write(path, data):
    """Write a file whole, or leave there what was there and raise OSError.

    Args:
        data: bytes, or str, which is written as UTF-8.
    """
    data = data.encode() if isinstance(data, str) else data
    if path.exists() and not path.is_file():  # /dev/stdout
        path.write_bytes(data)
        return
    half = path.with_name(path.name + ".half")
    try:
        half.write_bytes(data)
        os.replace(half, path)
    except BaseException:
        half.unlink(missing_ok=True)
        raise
