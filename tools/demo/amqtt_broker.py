"""Run the pure-Python broker amqtt on one port of this machine, for tools/demo.py.

    python amqtt_broker.py PORT

It prints `ready` when it listens, and ends when its standard input does: so it can't outlive the
demo, however that ends. Anybody may connect, but only from this machine; nothing is kept.
"""

import asyncio
import contextlib
import os
import sys
import threading

import amqtt.broker

try:
    import amqtt.contexts
except ImportError:
    IS_OLD = True  # 0.10, which tools/requirements-demo.txt has for CPython 3.9
else:
    IS_OLD = False


class OldBroker(amqtt.broker.Broker):
    async def _broadcast_loop(self):
        # In 0.10 it collects what became of each sending. One that was cancelled, since the
        # connection was cut before PUBACK, it takes for its own end: from then on the broker
        # acknowledges every message and delivers none. (0.10.1 on CPython 3.9, one demo in ten.)
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await super()._broadcast_loop()


def configuration(port):
    """Return the settings for the amqtt that is installed: 0.11 loads plugins in a new way."""
    listeners = {"default": {"type": "tcp", "bind": "127.0.0.1:%d" % port}}
    if IS_OLD:
        auth = {"allow-anonymous": True, "plugins": ["auth_anonymous"]}
        # With "enabled": False it asks all its plugins, and their lack of settings means "no".
        checks = {"enabled": True, "plugins": ["topic_taboo"]}
        return {"listeners": listeners, "sys_interval": 0, "auth": auth, "topic-check": checks}
    anonymous = {"allow_anonymous": True}
    plugins = {"amqtt.plugins.authentication.AnonymousAuthPlugin": anonymous}
    return {"listeners": listeners, "plugins": plugins}


def end_with_stdin():
    sys.stdin.buffer.read()
    os._exit(0)  # at once: there is nothing to save


async def serve(port):
    broker = (OldBroker if IS_OLD else amqtt.broker.Broker)(configuration(port))
    await broker.start()
    print("ready", flush=True)
    await asyncio.Event().wait()  # for ever


if __name__ == "__main__":
    threading.Thread(target=end_with_stdin, daemon=True).start()
    asyncio.run(serve(int(sys.argv[1])))
