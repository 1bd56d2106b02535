"""What the tests of micropython/examples/ share.

The fixtures `start_example` and `listener` are in conftest.py.
"""

import time

from deploying import PASSWORD, ROOT, SERVER_ADDRESS, SSID

import deploy

EXAMPLES = ROOT / "micropython" / "examples"
NAME = "lamp"
TOPIC = "boards/%s/" % NAME
FULL = ("four_tasks", "from_mqtt_as", "threads_and_interrupts")  # need the profile `full`
WAIT_S = 20

# The address that the board knows this machine by, for 60 s.
A_RECORD = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04" + bytes(
    map(int, SERVER_ADDRESS.split("."))
)


def secrets_text(**settings):
    """A secrets.py: the example's, filled in."""
    names = {"WIFI": [(SSID, PASSWORD)], "NAME": NAME, "SERVER": "mqtt://" + SERVER_ADDRESS}
    names.update(settings)
    return deploy.EXAMPLE.read_text() + "".join("%s = %r\n" % item for item in names.items())


def wait_until(is_so, what, timeout_s=WAIT_S):
    deadline_s = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline_s, what
        time.sleep(0.02)


def next_on(listener, topic_name, timeout_s=WAIT_S):
    """The payload of the next message with this topic name."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        message = listener.next_message(max(0.1, deadline_s - time.monotonic()))
        if message.topic_name == topic_name:
            return message.payload
