"""A client that does what it is told: a scenario for tests of one thing at a time.

    remote.py '{"uri": "mqtt://127.0.0.1:1883", "client_id": "a", ...}' DEADLINE_S

Orders: ["connect"], ["publish", topic_name, payload as hex, qos, retain], ["disconnect"],
["subscribe", topic_filter, qos], ["unsubscribe", topic_filter], ["quit"].
Events: what the client's callbacks are told, ["token", ...] for each order that gets one, and
["unsubscribed", token] when the client says that this is done; ["offline", text, return code].
"""

import json
import sys

from control import Control, error_text, leave, say

import mqttpipe


def on_message(client, message):
    payload = "".join("%02x" % byte for byte in message.view)
    say("message", message.topic_name, payload, message.qos, message.retain, message.dup)


def on_offline(client, error):
    say("offline", error_text(error), getattr(error, "return_code", None))


def from_hex(text):
    return bytes(int(text[at : at + 2], 16) for at in range(0, len(text), 2))


def obey(client, order, arguments, unsubscriptions):
    if order == "publish":
        topic_name, payload, qos, retain = arguments
        say("token", client.publish(topic_name, from_hex(payload), qos, retain))
    elif order == "subscribe":
        say("token", client.subscribe(arguments[0], None, arguments[1]))
    elif order == "unsubscribe":
        unsubscriptions.append(client.unsubscribe(arguments[0]))
        say("token", unsubscriptions[-1])
    elif order == "connect":
        client.connect()
    elif order == "disconnect":
        client.disconnect()
    else:
        raise ValueError(order)


def main(options, deadline_s):
    client = mqttpipe.MQTTClient(**json.loads(options))
    client.on_connect = lambda c, session_present: say("connect", session_present)
    client.on_online = lambda c: say("online")
    client.on_offline = on_offline
    client.on_published = lambda c, token: say("published", token)
    client.on_subscribed = lambda c, token, granted: say("subscribed", token, list(granted))
    client.on_error = lambda c, error: say("error", error_text(error))
    client.on_message = on_message
    control = Control(int(deadline_s) * 1000)
    unsubscriptions = []  # tokens
    while True:
        client.step(2)
        if unsubscriptions and client.is_done(unsubscriptions[0]):
            say("unsubscribed", unsubscriptions.pop(0))
        order = control.next_order()
        if order is None:
            continue
        if order[0] == "quit":
            break
        obey(client, order[0], order[1:], unsubscriptions)
    leave(client)


main(sys.argv[1], sys.argv[2])
