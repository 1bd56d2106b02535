"""The command line of tools/demo.py: what is wrong ends with status 2, never in a traceback.

Case: the words, each behind a zero byte.
"""

import contextlib
import io
import sys

import fuzz_streams

import demo

ALLOCATED_MAX = 2_000_000
WORDS = (
    "--broker --broker=auto --broker=amqtt --timeout --timeout=5 --no-micropython --no-mic -h "
    "--help auto mosquitto mqtt://127.0.0.1:1883 mqtt://[::1 mqtt://[::1]:99 mqtt://h:99999 "
    "mqtt://h:0 mqtt://h:x tcp://h ws://h nan inf -1 0 3600 3601 1e3 -- x"
).split() + ["", "\udcff", "mqtt://\u2100", "9" * 5000]


def make(draw):
    words = draw.choices(WORDS, k=draw.randrange(1, 5))
    case = b"".join(b"\0" + word.encode(errors="surrogateescape") for word in words)
    return fuzz_streams.spoil(draw, case) if draw.random() < 0.3 else case


def check(case):
    words = [word.decode(errors="surrogateescape") for word in case.split(b"\0")[1:]]
    kept = sys.argv
    sys.argv = ["demo.py", *words]
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            options = demo.parse_arguments()
    except SystemExit as end:
        assert end.code in (0, 2) and said.getvalue(), end.code
    else:
        assert 0 < options.timeout <= 3600, options.timeout
        assert options.no_micropython in (True, False)
        assert options.broker in ("auto", "mosquitto", "amqtt") or "://" in options.broker
    finally:
        sys.argv = kept
