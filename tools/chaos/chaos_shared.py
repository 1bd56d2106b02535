"""What all programs of the chaos share, on any Python: the messages, and how events are told."""

import json
import sys

FILLING = b"abcdefghijklmnopqrstuvwxyz" * 27


def filling_of(number):
    """Return how many bytes a message has behind its number."""
    return 700 if number % 50 == 0 else number % 61


def payload_of(number):
    return b"%d " % number + FILLING[: filling_of(number)]


def say(*event):
    print(json.dumps(event))


def waited_us():
    """For how long, since ever, this process could have run, but others had the processor."""
    try:
        with open("/proc/self/schedstat") as file:
            return int(file.read().split()[1]) // 1000
    except OSError:  # not Linux
        return 0


def read_config():
    """Return what the program's argument says, in JSON; "@name" means the file of that name."""
    text = sys.argv[1]
    if text.startswith("@"):
        with open(text[1:]) as file:
            text = file.read()
    return json.loads(text)
