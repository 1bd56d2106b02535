"""A client that does what it is told: a scenario for tests of one thing at a time.

    remote.py '{"uri": "mqtt://127.0.0.1:1883", "client_id": "a", ...}' DEADLINE_S

JSON has no bytes and no contexts: {"ca": ["bytes", file name]} gives the client what is in the
file, as bytes, and so for cert and key; {"tls": "ready"} gives it a context with ca, cert and key
in it (file names, PEM), made as a user of this interpreter would make it.

Orders: ["connect"], ["publish", topic_name, payload as hex, qos, retain], ["disconnect"],
["subscribe", topic_filter, qos], ["subscribe_callback", topic_filter, qos] for one with a callback
of its own, ["unsubscribe", topic_filter], ["quit"], and ["publish_large", topic_name, bytes, qos],
whose payload is large_payload(), and ["files"], which asks how many files and sockets are open.
Events: what the client's callbacks are told, ["token", ...] for each order that gets one, and
["unsubscribed", token] when the client says that this is done; ["offline", text, return code];
["callback", topic_name, payload as hex] from that callback;
["large", topic_name, bytes, SHA-256 as hex] for a message that is too large to be printed here;
["files", count];
["refused", text] when the client does not take the options: then it ends.
"""

import hashlib
import sys

from control import Control, error_text, leave, open_files, read_argument, say

import mqttpipe

SHOWN_BYTES_MAX = 2000


def to_hex(data):
    return "".join("%02x" % byte for byte in data)


def on_message(client, message):
    view = message.view
    if len(view) > SHOWN_BYTES_MAX:
        say("large", message.topic_name, len(view), to_hex(hashlib.sha256(view).digest()))
        return
    say("message", message.topic_name, to_hex(view), message.qos, message.retain, message.dup)


def on_callback(client, message):
    say("callback", message.topic_name, to_hex(message.view))


def on_offline(client, error):
    say("offline", error_text(error), getattr(error, "return_code", None))


def from_hex(text):
    return bytes(int(text[at : at + 2], 16) for at in range(0, len(text), 2))


def large_payload(size):
    """Bytes of which none is like its neighbours; the same as in test_tls_traffic.py."""
    payload = bytearray(size)
    for at in range(size):
        payload[at] = at * 31 + (at >> 8) & 0xFF
    return payload


def read_file(name):
    with open(name, "rb") as file:
        return file.read()


def make_ready_context(ca=None, cert=None, key=None):
    try:
        import tls
    except ImportError:
        import ssl

        context = ssl.create_default_context(cafile=ca)
        if cert:
            context.load_cert_chain(cert, key)
        return context
    context = tls.SSLContext(tls.PROTOCOL_TLS_CLIENT)
    context.verify_mode = tls.CERT_REQUIRED
    context.load_verify_locations(read_file(ca))
    if cert:
        context.load_cert_chain(read_file(cert), read_file(key))
    return context


def unpack(options):
    """Make of what JSON can say what the client takes."""
    names = ("ca", "cert", "key")
    if options.get("tls") == "ready":
        files = {name: options.pop(name) for name in names if name in options}
        options["tls"] = make_ready_context(**files)
    for name in names:
        if isinstance(options.get(name), list):
            options[name] = read_file(options[name][1])
    return options


def obey(client, order, arguments, unsubscriptions):
    if order == "publish":
        topic_name, payload, qos, retain = arguments
        say("token", client.publish(topic_name, from_hex(payload), qos, retain))
    elif order == "publish_large":
        topic_name, size, qos = arguments
        say("token", client.publish(topic_name, large_payload(size), qos))
    elif order == "subscribe":
        say("token", client.subscribe(arguments[0], None, arguments[1]))
    elif order == "subscribe_callback":
        say("token", client.subscribe(arguments[0], on_callback, arguments[1]))
    elif order == "unsubscribe":
        unsubscriptions.append(client.unsubscribe(arguments[0]))
        say("token", unsubscriptions[-1])
    elif order == "connect":
        client.connect()
    elif order == "disconnect":
        client.disconnect()
    elif order == "files":
        say("files", len(open_files()))
    else:
        raise ValueError(order)


def main(options, deadline_s):
    try:
        client = mqttpipe.MQTTClient(**unpack(read_argument(options)))
    except mqttpipe.LocalError as error:
        say("refused", error_text(error))
        return
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
