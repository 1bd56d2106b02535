"""A client that connects by host name, with a DNS server of the test's own.

    host_name.py '{"uri": "mqtt://broker.test:1883", ...}' DNS_PORT DEADLINE_S

Events: ["online"], ["offline", text], and ["longest", microseconds] of a step(0) before it came
online or failed; then it ends.
"""

import json
import sys

from control import error_text, leave, say

import mqttpipe

try:
    from time import ticks_us
except ImportError:
    from shim_time import ticks_us


class Link:
    """An interface that is up and knows a DNS server."""

    def __init__(self, port):
        self.port = port

    def is_up(self):
        return True

    def dns_servers(self):
        return [("127.0.0.1", self.port)]


def main(options, port, deadline_s):
    client = mqttpipe.MQTTClient(link=Link(int(port)), **json.loads(options))
    errors = []
    client.on_offline = lambda c, error: errors.append(error_text(error))
    client.connect()
    begin_ms = mqttpipe.ticks_ms()
    longest_us = 0
    while not client.is_online() and not errors:
        begin_us = ticks_us()
        client.step(0)
        longest_us = max(longest_us, mqttpipe.ticks_diff(ticks_us(), begin_us))
        if mqttpipe.ticks_diff(mqttpipe.ticks_ms(), begin_ms) > int(deadline_s) * 1000:
            errors.append("late, in " + client.state_name)
    say("longest", longest_us)
    if errors:
        say("offline", errors[0])
    else:
        say("online")
    leave(client)


main(sys.argv[1], sys.argv[2], sys.argv[3])
