"""Who drives the client on the emulated board: a timer, asyncio, and an interrupt beside them."""

import pytest
from test_lwip_traffic import uri_of

BACKGROUND = """
client.subscribe(%r, got_one, 1)
client.start()
client.connect()
def wait(done, ms=20_000):
    end_ms = ticks_add(ticks_ms(), ms)
    while not done():
        assert ticks_diff(end_ms, ticks_ms()) > 0, (client.state_name, len(got))
        time.sleep_ms(5)
wait(client.is_online)
"""
GOT = """
got = []
def got_one(client, message):
    got.append(bytes(message.view))
"""


@pytest.fixture
def background(start_client, broker, topic):
    """A board whose client is driven by a timer, and subscribed to `topic`."""
    board = start_client(uri_of(broker))
    board.run(GOT)
    board.run(BACKGROUND % topic)
    return board


def test_a_timer_drives_it_while_the_program_does_something_else(background, topic):
    background.run(
        """
sent = 0
def send():
    global sent
    while sent < 60 and sent - len(got) < 8:
        client.publish(%r, b"%%d" %% sent, 1)
        sent += 1
    return len(got) == 60
wait(send)
client.stop()
"""
        % topic
    )
    assert background.evaluate("got") == [b"%d" % number for number in range(60)]


def test_a_hard_interrupt_publishes(background, topic):
    """publish_isr() with the heap locked, between any two instructions of the program."""
    background.run(
        """
import machine
from machine import Timer
counted = [0, 0]
topic, payload = %r, b"from the interrupt"
def in_interrupt(timer):
    # Where the machine stands still, many calls come in one go: more than the queue can take
    # would be refused.
    if counted[1] - len(got) < 15:
        counted[0] += 1
        if client.publish_isr(topic, payload):
            counted[1] += 1
timer = Timer(period=20, callback=in_interrupt, hard=True)
numbers = [bytes(20) for _ in range(200)]
end_ms = ticks_add(ticks_ms(), 30_000)
while counted[0] < 60 and ticks_diff(end_ms, ticks_ms()) > 0:
    numbers = [bytes(20) for _ in range(200)]  # something to interrupt
timer.deinit()
wait(lambda: len(got) == counted[1])
client.stop()
"""
        % topic
    )
    called, taken, came = background.evaluate("counted[0], counted[1], len(got)")
    assert called >= 60 and taken == came >= called - 5
    assert set(background.evaluate("got")) == {b"from the interrupt"}


ASYNCIO = """
import asyncio
beats = 0
async def beat():
    global beats
    while True:
        await asyncio.sleep_ms(10)
        beats += 1
async def read():
    async for message in client.messages(%r, qos=1):
        got.append(bytes(message.payload))
        if len(got) == 40:
            return
async def main():
    tasks = [asyncio.create_task(each) for each in (beat(), client.run())]
    client.connect()
    reader = asyncio.create_task(read())
    while not client.is_online():
        await asyncio.sleep_ms(10)
    for number in range(40):
        await client.publish_wait(%r, b"%%d" %% number, qos=1)
    await asyncio.wait_for(reader, 20)
    for task in tasks:
        task.cancel()
asyncio.run(main())
"""


def test_asyncio_drives_it_beside_other_tasks(start_client, broker, topic):
    board = start_client(uri_of(broker))
    board.run(GOT)
    board.run(ASYNCIO % (topic, topic))
    got, beats = board.evaluate("got, beats")
    assert got == [b"%d" % number for number in range(40)]
    assert beats >= 5
