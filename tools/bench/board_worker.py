"""Runs on the emulated board, for tools/measure_lwip.py and bench.py: what a message costs.

Time is virtual there, 16 ns for each instruction. A figure is the median of what the client's
calls take. Of bursts it is the quickest tenth of the means of three in a row: each third has a
PINGREQ in it (see _SEGMENTS_PING in the client), and one that waits, as the machine that plays the
server is late, is left out. Of ours at QoS 1 it is the quickest tenth, which has no interrupt of a
PUBACK in it.
The pauses between calls are for the network stack's interrupts, so that nearly all of these happen
outside. Beside it the heap that a message takes, with the collector off.
"""

import gc
from array import array
from time import sleep_ms, ticks_diff, ticks_us

PAUSE_MS = 4
BURST = 32
RECEIVED = 60

topic, other_topic = b"home/lamp", b"home/door"
payload = b"x" * 64
burst = range(BURST)
received = 0


def nothing():
    pass


# `before` and `after` are around each call, and not counted.
def measure(
    name, call, messages, times=60, before=nothing, after=nothing, in_threes=False, share=0.5
):
    spent = array("i", [0] * times)
    for _ in range(4):
        before()
        sleep_ms(PAUSE_MS)
        call()
        after()
        sleep_ms(PAUSE_MS)
    for at in range(times):
        before()
        gc.collect()  # not within the call
        sleep_ms(PAUSE_MS)
        begin = ticks_us()
        call()
        spent[at] = ticks_diff(ticks_us(), begin)
        after()
        sleep_ms(PAUSE_MS)
    gc.disable()
    before()
    sleep_ms(PAUSE_MS)
    first = gc.mem_alloc()
    call()
    heap = gc.mem_alloc() - first
    after()
    gc.enable()
    gc.collect()
    if in_threes:
        spent = [sum(spent[at : at + 3]) // 3 for at in range(times - 2)]
    figure = sorted(spent)[int(len(spent) * share)]
    print("figure", repr((name, messages, figure, heap)))


def measure_mqttpipe(port):
    import mqttpipe

    client = mqttpipe.MQTTClient("mqtt://10.0.2.2:%d" % port)
    token = 0

    def on_view(client, message):
        global received
        message.view  # noqa: B018 it is made when it is asked for
        received += 1

    def on_both(client, message):
        global received
        message.topic_name  # noqa: B018
        message.payload  # noqa: B018
        received += 1

    def one():
        client.publish(topic, payload)
        client.step()

    def two_topics():
        client.publish(topic, payload)
        client.step()
        client.publish(other_topic, payload)
        client.step()

    def told(client, token):
        pass

    def many():
        for _ in burst:
            token = client.publish(topic, payload)
        client.step()
        while not client.is_done(token):
            client.step()

    def at_qos_1():
        nonlocal token
        token = client.publish(topic, payload, 1)
        client.step()

    def acknowledged():
        while not client.is_done(token):  # late, where the machine that plays the server is busy
            sleep_ms(PAUSE_MS)
            client.step()

    def sent():
        at_qos_1()
        sleep_ms(4 * PAUSE_MS)

    def ask(what="send"):
        global received
        received = 0
        client.publish(what, str(RECEIVED))
        client.step()
        sleep_ms(4 * PAUSE_MS)

    def receive():
        while received < RECEIVED:
            client.step()

    client.subscribe("home/#", on_view)
    client.connect()
    assert client.wait_online(10000)
    for _ in range(50):
        client.step()
        sleep_ms(2)
    measure("nothing", nothing, 1)
    measure("publish and send", one, 1)
    client.on_published = told
    measure("publish and send, told", one, 1)
    client.on_published = None
    measure("publish and send, two topics", two_topics, 2)
    measure("burst", many, BURST, 40, in_threes=True, share=0.1)
    # Not the median: with a quick server PUBACK's interrupt falls into half of the calls.
    measure("QoS 1", at_qos_1, 1, after=acknowledged, share=0.1)
    measure("PUBACK", client.step, 1, before=sent, after=acknowledged)
    measure("idle", client.step, 1)
    measure("receive, view", receive, RECEIVED, 15, before=ask)
    client.unsubscribe("home/#")
    client.subscribe("home/+", on_both)
    for _ in range(10):
        client.step()
        sleep_ms(PAUSE_MS)
    measure("receive, str and bytes", receive, RECEIVED, 15, before=ask)
    two = "receive, str and bytes, two topics"
    measure(two, receive, RECEIVED, 15, before=lambda: ask("send two"))


def measure_umqtt(port):
    from umqtt_simple import MQTTClient

    client = MQTTClient(b"board", "10.0.2.2", port)

    def on_message(topic, payload):
        global received
        received += 1

    def one():
        client.publish(topic, payload)

    def two_topics():
        client.publish(topic, payload)
        client.publish(other_topic, payload)

    def many():
        for _ in burst:
            client.publish(topic, payload)

    def at_qos_1():
        client.publish(topic, payload, False, 1)

    def ask(what=b"send"):
        global received
        received = 0
        client.publish(what, str(RECEIVED).encode())
        sleep_ms(4 * PAUSE_MS)

    def receive():
        while received < RECEIVED:
            client.check_msg()

    client.set_callback(on_message)
    client.connect()
    client.subscribe(b"home/#")
    measure("nothing", nothing, 1)
    measure("publish and send", one, 1)
    measure("publish and send, two topics", two_topics, 2)
    measure("burst", many, BURST, 40, in_threes=True, share=0.1)
    measure("QoS 1", at_qos_1, 1)
    measure("idle", client.check_msg, 1)
    measure("receive, str and bytes", receive, RECEIVED, 15, before=ask)
    two = "receive, str and bytes, two topics"
    measure(two, receive, RECEIVED, 15, before=lambda: ask(b"send two"))
