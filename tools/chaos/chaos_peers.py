"""Another client in the place of chaos_client.py: it publishes, receives and says the same events.

    chaos_peers.py '{"client": "umqtt.robust", "paths": [...], "clients": [...], ...}'

    umqtt.robust     of micropython-lib, on MicroPython
    mqtt_as          on MicroPython; it can't resume a session, so it asks for none
    chumicro-mqtt    on CPython

Each is used as its own documentation says. All are of QoS 0 and 1. What an application can do
about an exception is done: it is caught, and the client is asked to connect again. "longest" is
the longest time for which one call kept the program; for mqtt_as, the longest time for which its
event loop let no other task run.
"""

import json
import select
import sys
import time

from chaos_shared import payload_of, read_config, say, waited_us

try:
    from time import ticks_diff, ticks_ms, ticks_us
except ImportError:
    from shim_time import ticks_diff, ticks_ms, ticks_us

KEEP_ALIVE_S = 3  # as ours has
FLUSH_MS = 100
WAITED_MAX_AGE_MS = 20


class Notes:
    """What came and what was accepted; orders from outside."""

    def __init__(self, config):
        (each,) = config["clients"]
        self.host = config["host"]
        self.port = each["port"]
        self.client_id = each["options"]["client_id"]
        self.topic = each["topic"]
        self.every_ms = config["every_ms"]
        self.topics = ["%s/out/%d" % (self.topic, qos) for qos in range(2)]
        self.filters = ["%s/in/%d" % (self.topic, qos) for qos in range(2)]
        self.accepted = config.get("accepted", [0, 0, 0])  # before the reset
        self.came = [[], []]
        self.longest_us = 0
        self.waited_us = waited_us()
        self.waited_ms = ticks_ms()
        self.raised = {}  # class of an exception: how often
        self.connections = 0
        self.flush_ms = ticks_ms()
        self.is_over = self.is_quiet = False
        self.orders = open(0, "rb", 0)
        self.poll = select.poll()
        self.poll.register(self.orders, select.POLLIN)

    def online(self):
        self.connections += 1
        say("online", 0, self.connections)

    def message(self, topic, payload):
        topic = topic if isinstance(topic, str) else bytes(topic).decode()
        number = bytes(payload).split(b" ")[0]
        if topic in self.filters and number.isdigit():
            if bytes(payload) == payload_of(int(number)):
                self.came[int(topic[-1])].append(int(number))
                return
        if not topic.endswith("/toggle"):
            say("broken", 0, topic)

    def timed(self, function, *arguments, **named):
        begin_us = ticks_us()
        try:
            return function(*arguments, **named)
        finally:
            self.note_call(ticks_diff(ticks_us(), begin_us))

    def note_call(self, took_us):
        if took_us > self.longest_us:
            took_us -= waited_us() - self.waited_us
            self.longest_us = max(self.longest_us, took_us)

    def note_error(self, error):
        name = type(error).__name__
        self.raised[name] = self.raised.get(name, 0) + 1

    def look(self):
        """Tell what is new, and take orders."""
        if ticks_diff(ticks_ms(), self.flush_ms) >= FLUSH_MS or self.is_over:
            self.flush_ms = ticks_ms()
            for qos in range(2):
                if self.came[qos]:
                    say("in", 0, qos, self.came[qos])
                    self.came[qos] = []
            say("count", 0, self.accepted, [self.longest_us, "", 0], 0)
        for _ in self.poll.poll(0):
            line = self.orders.readline()
            order = json.loads(line)[0] if line else "finish"
            self.is_over = order == "finish"
            self.is_quiet = self.is_quiet or order == "quiet"
        if ticks_diff(ticks_ms(), self.waited_ms) > WAITED_MAX_AGE_MS:
            self.waited_us, self.waited_ms = waited_us(), ticks_ms()

    def leave(self):
        self.is_over = True
        self.look()
        say("bye", [self.raised])


# ---------------------------------------------------------------------------
# umqtt.robust
# ---------------------------------------------------------------------------


def run_robust(notes):
    from umqtt.robust import MQTTClient

    client = MQTTClient(notes.client_id, notes.host, notes.port, keepalive=KEEP_ALIVE_S)
    client.set_callback(notes.message)
    if not client.connect(clean_session=False):
        for qos in range(2):
            client.subscribe(notes.filters[qos], qos)
    notes.online()
    due_ms = ping_ms = ticks_ms()
    turn = 0
    while not notes.is_over:
        try:
            notes.timed(client.check_msg)
            if not notes.is_quiet and ticks_diff(ticks_ms(), due_ms) >= notes.every_ms:
                due_ms = ticks_ms()
                qos = turn % 2
                number = notes.accepted[qos] + 1
                payload = payload_of(number)
                notes.timed(client.publish, notes.topics[qos], payload, False, qos)
                notes.accepted[qos] = number
                turn += 1
            if ticks_diff(ticks_ms(), ping_ms) >= 1000 * KEEP_ALIVE_S // 2:
                ping_ms = ticks_ms()
                notes.timed(client.ping)
        except Exception as error:
            notes.note_error(error)
            notes.timed(reconnect, client, notes)
        notes.look()
        time.sleep_ms(1)
    notes.leave()


def reconnect(client, notes):
    while True:
        try:
            return client.reconnect()
        except Exception as error:  # reconnect() takes OSError alone for a reason to try again
            notes.note_error(error)


# ---------------------------------------------------------------------------
# mqtt_as
# ---------------------------------------------------------------------------


def run_as(notes):
    import asyncio

    import mqtt_as

    class Client(mqtt_as.MQTTClient):
        async def wifi_connect(self, quick=False):  # there is no Wi-Fi here
            pass

    async def on_connect(client):
        for qos in range(2):
            await client.subscribe(notes.filters[qos], qos)
        notes.online()

    async def publish(client, qos):
        while not notes.is_quiet:
            number = notes.accepted[qos] + 1
            await client.publish(notes.topics[qos], payload_of(number), qos=qos)
            notes.accepted[qos] = number
            await asyncio.sleep_ms(2 * notes.every_ms)

    async def main():
        config = mqtt_as.config
        config["server"] = notes.host
        config["port"] = notes.port
        config["client_id"] = notes.client_id
        config["keepalive"] = KEEP_ALIVE_S
        config["response_time"] = KEEP_ALIVE_S
        config["subs_cb"] = lambda topic, payload, retained: notes.message(topic, payload)
        config["connect_coro"] = on_connect
        client = Client(config)
        await client.connect()
        tasks = [asyncio.create_task(publish(client, qos)) for qos in range(2)]
        while not notes.is_over:
            begin_us = ticks_us()
            await asyncio.sleep_ms(1)
            notes.note_call(ticks_diff(ticks_us(), begin_us) - 1000)
            notes.look()
        for task in tasks:
            task.cancel()

    asyncio.run(main())
    notes.leave()


# ---------------------------------------------------------------------------
# chumicro-mqtt
# ---------------------------------------------------------------------------


def run_chumicro(notes):
    from chumicro_mqtt import MQTTBackpressureError, MQTTClient
    from chumicro_timing import ticks_ms as their_ms

    client = MQTTClient.from_config(
        {
            "mqtt.broker.host": notes.host,
            "mqtt.broker.port": notes.port,
            "mqtt.client_id": notes.client_id,
            "mqtt.keep_alive_seconds": KEEP_ALIVE_S,
        },
        clean_session=False,
        rx_buffer_size=1024,
    )
    client.on_message = notes.message
    client.on_connect = lambda *arguments: notes.online()
    for qos in range(2):
        client.subscribe(notes.filters[qos], qos=qos)
    client.connect()
    due_ms = ticks_ms()
    turn = 0
    while not notes.is_over:
        try:
            now = their_ms()
            if client.check(now):
                notes.timed(client.handle, now)
            is_wanted = notes.connections and not notes.is_quiet
            if is_wanted and ticks_diff(ticks_ms(), due_ms) >= notes.every_ms:
                due_ms = ticks_ms()
                qos = turn % 2
                number = notes.accepted[qos] + 1
                notes.timed(client.publish, notes.topics[qos], payload_of(number), qos=qos)
                notes.accepted[qos] = number
                turn += 1
        except MQTTBackpressureError:
            pass  # not accepted
        except Exception as error:
            notes.note_error(error)
            client.connect()
        notes.look()
        time.sleep(0.001)
    notes.leave()


RUN = {"umqtt.robust": run_robust, "mqtt_as": run_as, "chumicro-mqtt": run_chumicro}


def main():
    config = read_config()
    for folder in config["paths"]:
        sys.path.insert(0, folder)
    RUN[config["client"]](Notes(config))


main()
