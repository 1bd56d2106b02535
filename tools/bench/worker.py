"""One measurement, in the interpreter that is measured; tools/bench.py starts it.

    worker.py FILE      with {"client": "mqttpipe", "task": "publish", "qos": 0, "size": 64, ...}

Prints one line of JSON. Clients, each with its own defaults:

    mqttpipe        ours; mqttpipe full: the same, at another path
    umqtt.simple    of micropython-lib; umqtt.simple2; mqtt_as: at `path` on this machine
    paho            paho-mqtt, on CPython
    raw             no client at all: bytes made before, to and from a socket. The ceiling.

Tasks:

    publish     messages per second, from the first call until the last one is done: handed to the
                socket (QoS 0) or acknowledged
    receive     messages per second, from the first callback to the last
    latency     milliseconds from publish() to the callback, through the broker
    allocation  bytes of heap per published (or, "receive": received) message; MicroPython only
    memory      bytes of heap: import, client, connection; MicroPython only
    count       publish (or receive) just `count` messages: for counting instructions
    turn        messages per second, one publish() in each turn of the program's loop, with the
                client's step() where it has one. "way": what else is so, see WAYS
    idle        looks per second that find nothing: step(), check_msg()
"""

import gc
import json
import sys
import time

if hasattr(time, "ticks_us"):
    ticks_us = time.ticks_us
    ticks_diff = time.ticks_diff
else:

    def ticks_us():
        return time.perf_counter_ns() // 1000

    def ticks_diff(end, start):
        return end - start


TOPIC = "bench/1"
TOPICS = ("bench/1", "bench/2")

# In what way a program publishes and receives, beside one topic name and payload as bytes.
# A blocking client has always told when publish() returns, and gives topic name and payload as
# copies: for it some ways are the same.
WAYS = ("", "told", "text", "topics", "copied")

BATCH = 32  # messages between two looks at the clock
TIMEOUT_S = 30


class Failed(Exception):
    pass


class Timer:
    """Runs out after so many seconds; counts what was done until then."""

    def __init__(self, seconds):
        self.limit_us = int(seconds * 1000000)
        self.start_us = ticks_us()

    def elapsed_us(self):
        return ticks_diff(ticks_us(), self.start_us)

    def is_over(self):
        return self.elapsed_us() >= self.limit_us


# ---------------------------------------------------------------------------
# The clients: publish(n), receive(n), one round trip
# ---------------------------------------------------------------------------


class Ours:
    """mqttpipe. `done` counts what is finished, `received` what came."""

    def __init__(self, job):
        import mqttpipe

        self.QueueFull = mqttpipe.QueueFull
        self.topic = TOPIC.encode()
        self.payload = b"x" * job["size"]
        self.qos = job["qos"]
        self.received = 0
        uri = "mqtt://%s:%d" % (job["host"], job["port"])
        more = {"packet_bytes_max": max(1024, job["size"] + 64)}
        self.client = mqttpipe.MQTTClient(uri, client_id="bench-ours", **more)
        way = job.get("way", "")
        self.client.on_message = self.on_copied if way == "copied" else self.on_message
        if way == "told":
            self.told = 0
            self.client.on_published = self.on_published
        self.publish_one = self.client.publish  # a bound method, made once

    def on_message(self, client, message):
        self.received += len(message.view) > 0

    def on_copied(self, client, message):
        self.received += len(message.topic_name) + len(message.payload) > 0

    def on_published(self, client, token):
        self.told += 1

    def turns(self, pairs):
        """Publish each (topic name, payload) in a turn of its own."""
        publish = self.publish_one
        step = self.client.step
        token = 0
        for topic, payload in pairs:
            token = publish(topic, payload)
            step()
        return token

    def look(self, count):
        step = self.client.step
        for _ in range(count):
            step()

    def connect(self):
        self.client.connect()
        if not self.client.wait_online(TIMEOUT_S * 1000):
            raise Failed("not online")

    def subscribe(self):
        token = self.client.subscribe("bench/+", None, self.qos)
        if not self.client.wait_for(token, TIMEOUT_S * 1000):
            raise Failed("not subscribed")

    def publish(self, count):
        client = self.client
        publish = self.publish_one
        token = 0
        while count:
            try:
                token = publish(self.topic, self.payload, self.qos)
                count -= 1
            except self.QueueFull:
                client.step(100)
        client.step()
        return token

    def finish(self, token):
        if not self.client.wait_for(token, TIMEOUT_S * 1000):
            raise Failed("not done")

    def settle(self, token):
        """Let a message be acknowledged, without a call that allocates by itself."""
        while not self.client.is_done(token):
            self.client.step(100)

    def receive(self):
        self.client.step(1000)

    def close(self):
        self.client.disconnect()
        while self.client.state:
            self.client.step(100)


class Umqtt:
    """umqtt.simple and umqtt.simple2: blocking calls."""

    def __init__(self, job):
        if job["client"] == "umqtt.simple2":
            import umqtt.simple2 as module
        else:
            import umqtt.simple as module

        self.topic = TOPIC.encode()
        self.payload = b"x" * job["size"]
        self.qos = job["qos"]
        self.received = 0
        self.client = module.MQTTClient("bench-umqtt", job["host"], job["port"])
        self.client.set_callback(self.on_message)
        self.publish_one = self.client.publish

    def turns(self, pairs):
        publish = self.publish_one
        for topic, payload in pairs:
            publish(topic, payload)

    def look(self, count):
        check_msg = self.client.check_msg
        for _ in range(count):
            check_msg()

    def on_message(self, topic, payload, *more):
        self.received += len(payload) > 0

    def connect(self):
        self.client.connect()

    def subscribe(self):
        self.client.subscribe(b"bench/+", self.qos)

    def publish(self, count):
        publish = self.publish_one
        while count:
            publish(self.topic, self.payload, False, self.qos)
            count -= 1

    def finish(self, token):
        pass

    def settle(self, token):
        pass

    def receive(self):
        self.client.wait_msg()

    def close(self):
        self.client.disconnect()


class Umqtt2(Umqtt):
    def finish(self, token):
        client = self.client
        deadline = Timer(TIMEOUT_S)
        while client.rcv_pids:
            client.check_msg()
            if deadline.is_over():
                raise Failed("not done")


class Paho:
    """paho-mqtt with its network thread, as its documentation has it."""

    def __init__(self, job):
        import paho.mqtt.client as module

        self.payload = b"x" * job["size"]
        self.qos = job["qos"]
        self.received = 0
        self.client = module.Client(module.CallbackAPIVersion.VERSION2, "bench-paho")
        self.client.on_message = self.on_message
        self.client.max_queued_messages_set(0)
        self.address = job["host"], job["port"]
        self.is_online = False
        self.client.on_connect = self.on_connect
        self.is_subscribed = False
        self.client.on_subscribe = self.on_subscribe

    def on_connect(self, *more):
        self.is_online = True

    def on_subscribe(self, *more):
        self.is_subscribed = True

    def on_message(self, client, data, message):
        self.received += len(message.payload) > 0

    def _wait(self, name):
        deadline = Timer(TIMEOUT_S)
        while not getattr(self, name):
            time.sleep(0.001)
            if deadline.is_over():
                raise Failed("not " + name)

    def connect(self):
        self.client.connect(*self.address)
        self.client.loop_start()
        self._wait("is_online")

    def subscribe(self):
        self.client.subscribe(TOPIC, self.qos)
        self._wait("is_subscribed")

    def publish(self, count):
        info = None
        for _ in range(count):
            info = self.client.publish(TOPIC, self.payload, self.qos)
        if self.qos == 0 or len(self.client._out_messages) > 200:
            info.wait_for_publish(TIMEOUT_S)  # or the queue would grow without end
        return info

    def finish(self, info):
        info.wait_for_publish(TIMEOUT_S)

    def receive(self):
        time.sleep(0.001)

    def close(self):
        self.client.disconnect()
        self.client.loop_stop()


class Raw:
    """No client: what a socket of this interpreter can move."""

    def __init__(self, job):
        import socket

        topic = TOPIC.encode()
        body = bytes((0, len(topic))) + topic + b"x" * job["size"]
        size = len(body)
        if size > 127:
            header = bytes((0x30, size & 0x7F | 0x80, size >> 7))
        else:
            header = bytes((0x30, size))
        self.packet = header + body
        self.received = 0
        self.socket = socket.socket()
        self.address = socket.getaddrinfo(job["host"], job["port"])[0][-1]
        self.buf = bytearray(len(self.packet))
        if not hasattr(self.socket, "write"):
            self.socket = self.socket.makefile("rwb", buffering=0) and self.socket
            self.write = self.socket.sendall
            self.readinto = self.read_whole
        else:
            self.write = self.socket.write
            self.readinto = self.socket.readinto

    def read_whole(self, buf, count):
        import socket

        return self.socket.recv_into(buf, count, socket.MSG_WAITALL)

    def connect(self):
        self.socket.connect(self.address)
        self.write(b"\x10\x0f\x00\x04MQTT\x04\x02\x00\x3c\x00\x03raw")
        self.readinto(self.buf, 4)

    def subscribe(self):
        topic = TOPIC.encode()
        body = b"\x00\x01" + bytes((0, len(topic))) + topic + b"\x00"
        self.write(bytes((0x82, len(body))) + body)
        self.readinto(self.buf, 5)

    def publish(self, count):
        write = self.write
        packet = self.packet
        for _ in range(count):
            write(packet)

    def finish(self, token):
        pass

    def receive(self):
        self.readinto(self.buf, len(self.packet))
        self.received += 1

    def close(self):
        self.socket.close()


CLIENTS = {
    "mqttpipe": Ours,
    "mqttpipe full": Ours,
    "umqtt.simple": Umqtt,
    "umqtt.simple2": Umqtt2,
    "paho": Paho,
    "raw": Raw,
}


# ---------------------------------------------------------------------------
# The tasks, for blocking clients and for ours
# ---------------------------------------------------------------------------


def publish(client, job):
    client.connect()
    client.finish(client.publish(1))
    batch = 1
    count = 0
    token = None
    timer = Timer(job["seconds"])
    while not timer.is_over():
        token = client.publish(batch)
        count += batch
        if batch < BATCH and timer.elapsed_us() < 20000 * batch:
            batch *= 2
    client.finish(token)
    elapsed_us = timer.elapsed_us()
    client.close()
    return {"rate": count * 1e6 / elapsed_us, "count": count}


def turn(client, job):
    text = "x" * job["size"]
    way = job["way"]
    if way == "text":
        pairs = ((TOPIC, text),) * BATCH
    else:
        names = TOPICS if way == "topics" else (TOPIC, TOPIC)
        pairs = tuple((name.encode(), text.encode()) for name in names) * (BATCH // 2)
    client.connect()
    client.finish(client.turns(pairs[:1]))
    count = 0
    token = None
    timer = Timer(job["seconds"])
    while not timer.is_over():
        token = client.turns(pairs)
        count += BATCH
    client.finish(token)
    return {"rate": count * 1e6 / timer.elapsed_us(), "count": count}


def idle(client, job):
    client.connect()
    client.look(BATCH)
    count = 0
    timer = Timer(job["seconds"])
    while not timer.is_over():
        client.look(BATCH)
        count += BATCH
    return {"rate": count * 1e6 / timer.elapsed_us(), "count": count}


def receive(client, job):
    client.connect()
    client.subscribe()
    deadline = Timer(TIMEOUT_S)
    while not client.received:
        client.receive()
    first = client.received
    timer = Timer(job["seconds"])
    while not timer.is_over():
        for _ in range(BATCH):
            client.receive()
        if deadline.is_over():
            raise Failed("receives nothing")
    elapsed_us = timer.elapsed_us()
    count = client.received - first
    return {"rate": count * 1e6 / elapsed_us, "count": count}


def latency(client, job):
    client.connect()
    client.subscribe()
    times_us = []
    for _ in range(job["count"]):
        seen = client.received
        timer = Timer(TIMEOUT_S)
        client.publish(1)
        while client.received == seen:
            client.receive()
            if timer.is_over():
                raise Failed("no answer")
        times_us.append(timer.elapsed_us())
    client.close()
    times_us.sort()
    at = [times_us[len(times_us) * part // 100] / 1000 for part in (50, 95, 99)]
    return {"p50_ms": at[0], "p95_ms": at[1], "p99_ms": at[2], "count": len(times_us)}


def allocation(client, job):
    client.connect()
    if job["direction"] == "receive":
        client.subscribe()
        while client.received < 100:
            client.receive()
    else:
        client.finish(client.publish(100))
    count = job["count"]
    gc.collect()
    gc.disable()
    first = client.received
    before = gc.mem_alloc()
    if job["direction"] == "receive":
        while client.received - first < count:
            client.receive()
        count = client.received - first
        after = gc.mem_alloc()
    else:
        token = None
        left = count
        while left:
            token = client.publish(1)
            client.settle(token)
            left -= 1
        after = gc.mem_alloc()
        client.finish(token)
    gc.enable()
    return {"bytes": (after - before) / count, "count": count}


def memory(job):
    # What a client would import anyway is there before, so that only its own part is counted.
    import binascii, errno, io, os, select, socket, struct, _thread  # noqa: E401,F401,I001

    if job["client"] == "mqtt_as":
        import asyncio  # noqa: F401

    gc.collect()
    begin = gc.mem_alloc()
    client = CLIENTS[job["client"]](job) if job["client"] != "mqtt_as" else None
    if client is None:
        import mqtt_as  # noqa: F401
    else:
        client.connect()
        client.finish(client.publish(1))
    gc.collect()
    return {"bytes": gc.mem_alloc() - begin}


def count(client, job):
    client.connect()
    if job["direction"] == "receive":
        client.subscribe()
        while client.received < job["count"]:
            client.receive()
    else:
        left = job["count"]
        while left:
            batch = min(left, BATCH)
            token = client.publish(batch)
            left -= batch
        client.finish(token)
    return {"count": job["count"]}


# ---------------------------------------------------------------------------
# mqtt_as: the same tasks as coroutines
# ---------------------------------------------------------------------------


async def as_job(job):
    import asyncio

    import mqtt_as

    class Client(mqtt_as.MQTTClient):
        async def wifi_connect(self, quick=False):  # there is no Wi-Fi here
            pass

    payload = b"x" * job["size"]
    came = [0]

    def on_message(topic, message, retained, *more):
        came[0] += len(message) > 0

    config = mqtt_as.config
    config["server"] = job["host"]
    config["port"] = job["port"]
    config["client_id"] = "bench-as"
    config["subs_cb"] = on_message
    client = Client(config)
    await client.connect()
    task = job["task"]
    qos = job["qos"]
    if task == "publish":
        count = 0
        timer = Timer(job["seconds"])
        while not timer.is_over():
            await client.publish(TOPIC, payload, qos=qos)
            count += 1
        return {"rate": count * 1e6 / timer.elapsed_us(), "count": count}
    if task == "allocation" and job["direction"] == "publish":
        for _ in range(10):
            await client.publish(TOPIC, payload, qos=qos)
        gc.collect()
        gc.disable()
        before = gc.mem_alloc()
        count = min(job["count"], 100)
        for _ in range(count):
            await client.publish(TOPIC, payload, qos=qos)
        after = gc.mem_alloc()
        gc.enable()
        return {"bytes": (after - before) / count, "count": count}
    await client.subscribe(TOPIC, qos)
    if task == "receive":
        while not came[0]:
            await asyncio.sleep(0)
        first = came[0]
        timer = Timer(job["seconds"])
        while not timer.is_over():
            await asyncio.sleep(0)
        return {"rate": (came[0] - first) * 1e6 / timer.elapsed_us(), "count": came[0] - first}
    if task == "latency":
        times_us = []
        for _ in range(min(job["count"], 50)):
            seen = came[0]
            timer = Timer(TIMEOUT_S)
            await client.publish(TOPIC, payload, qos=qos)
            while came[0] == seen:
                await asyncio.sleep(0)
                if timer.is_over():
                    raise Failed("no answer")
            times_us.append(timer.elapsed_us())
        times_us.sort()
        at = [times_us[len(times_us) * part // 100] / 1000 for part in (50, 95, 99)]
        return {"p50_ms": at[0], "p95_ms": at[1], "p99_ms": at[2], "count": len(times_us)}
    raise Failed("mqtt_as is not made for this task")


def main(job):
    for folder in job.get("paths", ()):
        sys.path.insert(0, folder)
    if job["task"] == "memory":
        return memory(job)
    if job["client"] == "mqtt_as":
        import asyncio

        return asyncio.run(as_job(job))
    client = CLIENTS[job["client"]](job)
    return {
        "publish": publish,
        "turn": turn,
        "idle": idle,
        "receive": receive,
        "latency": latency,
        "allocation": allocation,
        "count": count,
    }[job["task"]](client, job)


with open(sys.argv[1]) as job_file:
    print(json.dumps(main(json.load(job_file))))
