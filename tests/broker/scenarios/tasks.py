"""The client under asyncio: one check, by its name, against a real server.

    tasks.py NAME '{"uri": "mqtt://127.0.0.1:1883", "client_id": "a", ...}' TOPIC

The checks are below, coroutines for CPython's asyncio and MicroPython's. It ends with ["ok"], or
with a traceback. ["please", what] asks for something from the other side; a line on standard input
says that it is done. ["figure", name, value] is a figure to be shown.
"""

import asyncio
import gc
import sys

from control import error_text, open_files, read_argument, say

import mqttpipe
from mqttpipe import LocalError, MQTTClient, Refused, ticks_diff, ticks_ms

try:
    from time import ticks_us
except ImportError:
    from shim_time import ticks_us

WAIT_S = 30
IS_CPYTHON = sys.implementation.name == "cpython"
TASKS = 50
MESSAGES = 30


class Case:
    def __init__(self, options, topic):
        self.options = options
        self.topic = topic
        self.errors = []
        self.offline = []
        self.client = self.make()

    def make(self, **options):
        self.client = client = MQTTClient(**dict(self.options, **options))
        client.on_error = lambda c, error: self.errors.append(error)
        client.on_offline = lambda c, error: self.offline.append(error)
        return client

    async def online(self, **options):
        """Return (client, the task of its run()), in service."""
        return await self.online_of(self.make(**options) if options else self.client)

    async def online_of(self, client):
        task = asyncio.create_task(client.run())
        await until(client.is_online, "connection")
        return client, task

    async def end(self, client, task):
        client.disconnect()
        await asyncio.wait_for(task, WAIT_S)
        assert client.state_name == "DOWN" and client._driver is None


async def until(condition, what, limit_ms=WAIT_S * 1000):
    begin_ms = ticks_ms()
    while not condition():
        assert ticks_diff(ticks_ms(), begin_ms) < limit_ms, "no " + what
        await asyncio.sleep(0.002)


async def please(what):
    say("please", what)
    line = sys.stdin.readline()  # the other side answers at once; the loop stands still meanwhile
    assert line


async def cancelled(task):
    """Cancel a task; it must end with just that."""
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        return
    raise AssertionError("the task was not cancelled")


def raises(function, *arguments):
    try:
        function(*arguments)
    except LocalError:
        return
    raise AssertionError("no LocalError")


# What a client that has ended may leave behind: nothing.
def left_behind():
    gc.collect()
    left = [len(open_files())]
    if IS_CPYTHON:
        loop = asyncio.get_running_loop()
        left.append(len(loop._selector.get_map()))
        left.append(len(asyncio.all_tasks()))
    else:
        left.append(len(asyncio.core._io_queue.map))
    return left


# ---------------------------------------------------------------------------
# run()
# ---------------------------------------------------------------------------


async def check_run_ends_after_disconnect(case):
    before = left_behind()
    for _ in range(3):
        client, task = await case.online()
        await case.end(client, task)
        assert case.offline[-1] is None
    # The pipe's own descriptor stays with the client.
    after = left_behind()
    assert after[0] <= before[0] + 2 and after[1:] == before[1:], (before, after)
    assert not case.errors


class Points:
    """Counts where run() waits, and has the task cancelled at the one that is wanted."""

    def __init__(self):
        self.real_wait = mqttpipe.wait_ready
        self.real_sleep = asyncio.sleep
        self.count = self.wanted = 0
        self.task = None
        mqttpipe.wait_ready = self.wait_ready
        asyncio.sleep = self.sleep

    def restore(self):
        mqttpipe.wait_ready = self.real_wait
        asyncio.sleep = self.real_sleep

    def wait_ready(self, client, pipe):
        self.pass_point()
        return self.real_wait(client, pipe)

    def sleep(self, delay_s):
        if delay_s == 0:  # only run() does that here
            self.pass_point()
        return self.real_sleep(delay_s)

    def pass_point(self):
        self.count += 1
        if self.count == self.wanted:
            # By another task, when this one is waiting: MicroPython's can't cancel themselves.
            asyncio.create_task(self.cancel())

    async def cancel(self):
        self.task.cancel()


async def check_cancel_at_every_await_of_run_leaves_nothing_behind(case):
    points = Points()
    try:
        await cancel_at_every_await(case, points)
    finally:
        points.restore()
    say("figure", "awaits of run() at which it was cancelled", points.wanted - 1)


async def cancel_at_every_await(case, points):
    received = []
    client = case.client
    client.on_message = lambda c, message: received.append(message.payload)
    client.subscribe(case.topic, None, 1)
    before = None  # from the time on when the pipe has its descriptor, which stays
    while True:
        points.wanted += 1
        points.count = 0
        points.task = task = asyncio.create_task(client.run())
        sent = 0
        begin_ms = ticks_ms()
        while not task.done():
            if client.is_online() and sent < 3:
                sent += 1
                client.publish(case.topic, b"%d" % sent, sent - 1)
            if sent == 3 and len(received) >= 3:
                client.disconnect()
            assert ticks_diff(ticks_ms(), begin_ms) < WAIT_S * 1000, client.state_name
            await points.real_sleep(0.001)
        was_cancelled = points.count >= points.wanted
        try:
            await task
            assert not was_cancelled, points.count
        except asyncio.CancelledError:
            assert was_cancelled
        assert client.state_name == "DOWN" and client._driver is None and client._socket is None
        received.clear()
        task = points.task = None
        after = left_behind()
        assert before is None or after == before, (points.wanted, before, after)
        before = after if points.wanted > 6 else None
        if not was_cancelled:
            break
    assert points.wanted > 10, points.wanted
    assert not case.errors, case.errors


async def check_nothing_else_may_drive_it_meanwhile(case):
    client, task = await case.online()
    raises(client.step)
    raises(client.start)
    raises(client.wait_online, 10)
    raises(client.wait_for, 1, 10)
    try:
        await client.run()
        raise AssertionError("a second run()")
    except LocalError:
        pass
    assert client.is_online()
    await case.end(client, task)
    client.connect()
    assert client.step(100), "by its own now"
    client.disconnect()
    assert client.wait_offline(WAIT_S * 1000)


async def check_a_callback_that_raises_is_reported_and_run_goes_on(case):
    def on_message(client, message):
        raise ValueError("by the test")

    client, task = await case.online()
    client.subscribe(case.topic, on_message)
    for number in range(3):
        await client.publish_wait(case.topic, b"x", 1)
        await until(lambda number=number: len(case.errors) > number, "error")
    await case.end(client, task)


async def check_it_comes_back_when_the_connection_breaks(case):
    client, task = await case.online(reconnect_min_ms=1, reconnect_max_ms=20)
    async with client.messages(case.topic, 1) as messages:
        for number in range(3):
            count = len(case.offline)
            await please("cut")
            await until(lambda count=count: len(case.offline) > count, "on_offline")
            assert await asyncio.wait_for(
                client.publish_wait(case.topic, b"%d" % number, 1), WAIT_S
            )
            message = await asyncio.wait_for(messages.__anext__(), WAIT_S)
            assert message.payload == b"%d" % number
    await case.end(client, task)


async def check_a_refused_connection_is_told_and_tried_again(case):
    await please("refuse")
    client = case.make(reconnect_min_ms=1, reconnect_max_ms=20)
    task = asyncio.create_task(client.run())
    await until(lambda: len(case.offline) > 2, "attempts")
    assert not any(isinstance(error, Refused) for error in case.offline)
    await please("resume")
    await until(client.is_online, "connection")
    await case.end(client, task)


async def check_run_in_one_loop_after_another(case):
    """The body runs in a loop of its own; main() comes here a second time with another loop."""
    client, task = await case.online()
    assert await asyncio.wait_for(client.publish_wait(case.topic, b"x", 1), WAIT_S)
    async with client.messages(case.topic) as messages:
        assert await asyncio.wait_for(client.publish_wait(case.topic, b"y", 1), WAIT_S)
        message = await asyncio.wait_for(messages.__anext__(), WAIT_S)
        assert message.payload == b"y"
    await case.end(client, task)


LOOPS = {"run_in_one_loop_after_another": 3, "a_loop_over_messages_before_run_waits_for_it": 2}


async def check_idle_it_does_nothing(case):
    client, task = await case.online(keep_alive_s=0)
    await asyncio.sleep(0.1)
    steps = [0]
    real = client._step

    def counted(timeout_ms):
        steps[0] += 1
        return real(timeout_ms)

    client._step = counted
    await asyncio.sleep(0.5)
    assert steps[0] <= 2, steps  # not one for each turn of the loop
    client._step = real
    await case.end(client, task)


async def check_a_thread_may_publish_and_wakes_it(case):
    import _thread

    client, task = await case.online(keep_alive_s=0)
    await asyncio.sleep(0.1)  # it sleeps
    assert client.next_deadline_ms() > 5_000
    tokens = []

    def publish():
        for number in range(5):
            tokens.append(client.publish(case.topic, b"%d" % number, 1))

    _thread.start_new_thread(publish, ())
    await until(
        lambda: len(tokens) == 5 and all(client.is_done(t) for t in tokens), "PUBACKs", 5_000
    )
    await case.end(client, task)


async def check_an_interrupt_wakes_it(case):
    client, task = await case.online(keep_alive_s=0)
    await asyncio.sleep(0.1)
    assert client.next_deadline_ms() > 5_000
    assert client.publish_isr(case.topic.encode(), b"x", 1)
    await until(lambda: client.stats["acknowledged"] == 1, "PUBACK", 5_000)
    await case.end(client, task)


# ---------------------------------------------------------------------------
# publish_wait()
# ---------------------------------------------------------------------------


async def check_publish_wait_is_true_when_it_is_done(case):
    client, task = await case.online()
    for qos in range(3):
        assert await asyncio.wait_for(client.publish_wait(case.topic, b"x", qos), WAIT_S) is True
    assert client.stats["acknowledged"] == 2 and client.stats["sent"] == 3
    try:
        await client.publish_wait("a/#", b"x")
        raise AssertionError("no LocalError")
    except LocalError:
        pass
    assert not client._awaited
    await case.end(client, task)


async def check_publish_wait_waits_for_room(case):
    client, task = await case.online(pipe_slots=2, in_flight_max=1)
    answers = await asyncio.wait_for(
        asyncio.gather(*[client.publish_wait(case.topic, b"%d" % n, 1) for n in range(20)]), WAIT_S
    )
    assert list(answers) == [True] * 20
    assert client.stats["acknowledged"] == 20 and not client._awaited
    await case.end(client, task)


async def check_publish_wait_without_run_says_so(case):
    client = case.client
    try:
        await asyncio.wait_for(client.publish_wait(case.topic, b"x", 1), WAIT_S)
        raise AssertionError("no LocalError")
    except LocalError:
        pass
    assert client._pipe.head == client._pipe.tail and not client._awaited


async def check_publish_wait_is_false_when_run_ends_or_the_message_is_dropped(case):
    client, task = await case.online(offline="drop_oldest", pipe_slots=1)
    await please("stall")
    waiting = asyncio.create_task(client.publish_wait(case.topic, b"x", 1))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await cancelled(task)
    assert await asyncio.wait_for(waiting, WAIT_S) is False
    await please("resume")

    await please("refuse")
    client = case.make(
        offline="drop_oldest", pipe_slots=1, reconnect_min_ms=1, reconnect_max_ms=20
    )
    task = asyncio.create_task(client.run())
    await asyncio.sleep(0)
    first = asyncio.create_task(client.publish_wait(case.topic, b"old", 1))
    await asyncio.sleep(0.05)
    assert not first.done()
    client.publish(case.topic, b"new", 1)  # takes its place
    assert await asyncio.wait_for(first, WAIT_S) is False
    await please("resume")
    await until(client.is_online, "connection")
    await case.end(client, task)


async def check_publish_wait_cancelled_anywhere_leaves_nothing_behind(case):
    client, task = await case.online(pipe_slots=1, in_flight_max=1)
    await asyncio.sleep(0.05)  # until it waits
    before = left_behind()
    for turns in list(range(12)) * 2:
        tasks = [asyncio.create_task(client.publish_wait(case.topic, b"x", 1)) for _ in range(3)]
        for _ in range(turns):
            await asyncio.sleep(0)
        for each in tasks:
            each.cancel()
        for each in tasks:
            try:
                await each
            except asyncio.CancelledError:
                pass
        tasks = each = None
        assert not client._awaited, client._awaited
    await until(lambda: client._pipe.head == client._pipe.tail, "empty pipe")
    await until(lambda: left_behind() == before, "tidiness: %r, %r" % (before, left_behind()))
    await case.end(client, task)


# ---------------------------------------------------------------------------
# messages()
# ---------------------------------------------------------------------------


async def check_request_wait_ends_where_there_is_no_memory_for_the_response(case):
    client, task = await case.online()
    message = client._message

    def fail():
        message.copy = copy
        raise MemoryError

    copy, message.copy = message.copy, fail

    def answer(client, question):
        asked = question.properties
        data = {"correlation_data": asked["correlation_data"]}
        client.publish(asked["response_topic"], b"answer", properties=data)

    client.subscribe(case.topic, answer)
    waiting = client.request_wait(case.topic, b"?", 60_000)
    assert await asyncio.wait_for(waiting, WAIT_S) is None
    assert [type(error) for error in case.errors] == [MemoryError]
    response = await asyncio.wait_for(client.request_wait(case.topic, b"?", 60_000), WAIT_S)
    assert response.payload == b"answer"
    await case.end(client, task)


async def check_request_wait_cancelled_gives_its_place_back(case):
    client, task = await case.online()
    for _ in range(20):  # there are eight places
        waiting = client.request_wait(case.topic, b"?", 3_600_000)
        try:
            await asyncio.wait_for(waiting, 0.01)
            raise AssertionError("who has answered?")
        except asyncio.TimeoutError:
            pass
    assert not client._waiting
    await case.end(client, task)


async def check_messages_come_in_order_and_stay_valid(case):
    client, task = await case.online()
    kept = []
    async with client.messages(case.topic + "/#", 1, 100) as messages:
        for number in range(50):
            await client.publish_wait("%s/%d" % (case.topic, number), b"payload %d" % number, 1)
        async for message in messages:
            kept.append(message)
            if len(kept) == 50:
                break
    for number, message in enumerate(kept):
        assert message.topic_name == "%s/%d" % (case.topic, number)
        assert message.payload == b"payload %d" % number == bytes(message.view)
        assert message.qos == 1 and message.retain is False
    await until(lambda: not client._filters.rows, "UNSUBACK")
    await case.end(client, task)


async def check_what_has_no_room_waits_at_the_server(case):
    client, task = await case.online(keep_alive_s=1)
    messages = client.messages(case.topic, 1, 3)
    tokens = [client.publish(case.topic, b"%d" % number, 1) for number in range(5)]
    await until(lambda: len(messages._queue) == 3, "messages")
    await asyncio.sleep(2)  # two keep alives in which nothing is read
    await until(lambda: case.errors, "the error")
    assert client.is_online() and len(messages._queue) == 3
    came = []
    async for message in messages:
        came.append(message.payload)
        if len(came) == 5:
            break
    assert came == [b"0", b"1", b"2", b"3", b"4"]
    await until(lambda: all(client.is_done(token) for token in tokens), "PUBACKs")
    # Nothing was read for a keep alive: that is told, once.
    error = case.errors.pop()
    assert type(error) is LocalError and "is full" in str(error) and not case.errors
    messages.close()
    await case.end(client, task)


async def check_publish_wait_in_the_loop_over_messages_comes_to_its_end(case):
    """Its PUBACK comes behind messages that the queue has no room for."""
    client, task = await case.online(pipe_slots=64)
    done = []

    async def obey():
        async with client.messages(case.topic, 1, queue_max=2) as messages:
            async for message in messages:
                assert await client.publish_wait(case.topic + "/state", message.payload, 1)
                done.append(message.payload)

    obeying = asyncio.create_task(obey())
    await client.publish_wait(case.topic + "/none", b"", 1)  # the filter is in service by now
    for number in range(40):
        client.publish(case.topic, b"%d" % number, 1)
    await until(lambda: len(done) == 40, "end of the work")
    assert done == [b"%d" % number for number in range(40)]
    assert not client._waiting and not client._full
    await cancelled(obeying)
    await case.end(client, task)


async def check_anext_of_messages_made_before_run_waits(case):
    messages = case.client.messages(case.topic, 1)
    client, task = await case.online_of(case.client)
    client.publish(case.topic, b"x", 1)
    message = await asyncio.wait_for(messages.__anext__(), WAIT_S)
    assert message.payload == b"x"
    messages.close()
    await case.end(client, task)


async def check_close_ends_the_loop_when_what_has_come_is_taken(case):
    client, task = await case.online()
    messages = client.messages(case.topic, 1)
    for number in range(3):
        await client.publish_wait(case.topic, b"%d" % number, 1)
    await until(lambda: len(messages._queue) == 3, "messages")
    messages.close()
    messages.close()
    came = await all_of(messages)
    assert came == [b"0", b"1", b"2"], came
    await case.end(client, task)


async def all_of(messages):
    came = []
    async for message in messages:
        came.append(message.payload)
    return came


async def check_close_wakes_who_waits(case):
    client, task = await case.online()
    messages = client.messages(case.topic, 1)
    waiting = asyncio.create_task(all_of(messages))
    await asyncio.sleep(0.05)
    messages.close()
    assert await asyncio.wait_for(waiting, WAIT_S) == []
    await case.end(client, task)


async def check_a_loop_over_messages_ends_with_run_and_the_next_goes_on(case):
    client, task = await case.online()
    came = []
    messages = client.messages(case.topic, 1)

    async def take():
        async for message in messages:
            came.append(message.payload)
            await asyncio.sleep(0.02)  # run() may end while the loop's body is at work

    for number in range(4):
        taking = asyncio.create_task(take())
        await client.publish_wait(case.topic, b"%d" % number, 1)
        await until(lambda number=number: len(came) == number + 1, "message")
        if number % 2:
            await asyncio.sleep(0.05)  # the loop waits for the next message
        assert not taking.done()
        await case.end(client, task)
        await asyncio.wait_for(taking, WAIT_S)
        _, task = await case.online_of(client)
    messages.close()
    assert await all_of(messages) == []
    assert came == [b"0", b"1", b"2", b"3"]
    await case.end(client, task)


async def check_a_loop_over_messages_before_run_waits_for_it(case):
    messages = case.client.messages(case.topic, 1)
    taking = asyncio.create_task(all_of(messages))
    await asyncio.sleep(0.05)
    client, task = await case.online_of(case.client)
    await client.publish_wait(case.topic, b"x", 1)
    await asyncio.sleep(0.05)
    await cancelled(task)
    assert await asyncio.wait_for(taking, WAIT_S) == [b"x"]
    # One that waits when the event loop ends leaves nothing of it to the client in the next one.
    async with client.messages(case.topic, 1) as messages:
        waiting = asyncio.create_task(all_of(messages))
        await asyncio.sleep(0.05)
        await cancelled(waiting)


async def check_waiting_for_a_message_can_be_cancelled(case):
    client, task = await case.online()
    await asyncio.sleep(0.05)  # until it waits
    before = left_behind()
    async with client.messages(case.topic, 1) as messages:
        for turns in range(8):
            waiting = asyncio.create_task(messages.__anext__())
            for _ in range(turns):
                await asyncio.sleep(0)
            await cancelled(waiting)
            waiting = None
        await client.publish_wait(case.topic, b"after", 1)
        message = await asyncio.wait_for(messages.__anext__(), WAIT_S)
        assert message.payload == b"after", "no message went to a task that was cancelled"
    await until(lambda: not client._filters.rows, "UNSUBACK")
    await until(lambda: left_behind() == before, "tidiness: %r, %r" % (before, left_behind()))
    await case.end(client, task)


# ---------------------------------------------------------------------------
# Beside other tasks
# ---------------------------------------------------------------------------


async def check_50_tasks_beside_a_client(case):
    """All make headway; how late the loop was at most is shown, with us and without."""
    turns = [0] * TASKS
    worst_us = [0, 0]
    mode = [0]
    is_over = []

    async def busy(number):
        while not is_over:
            turns[number] += 1
            await asyncio.sleep(0.001 * (1 + number % 5))

    async def ticker():
        while not is_over:
            begin_us = ticks_us()
            await asyncio.sleep(0.001)
            late_us = ticks_diff(ticks_us(), begin_us) - 1000
            worst_us[mode[0]] = max(worst_us[mode[0]], late_us)

    tasks = [asyncio.create_task(busy(number)) for number in range(TASKS)]
    tasks.append(asyncio.create_task(ticker()))
    await asyncio.sleep(0.4)
    mode[0] = 1
    client, task = await case.online()
    before = list(turns)
    async with client.messages(case.topic, 1, MESSAGES) as messages:
        for number in range(MESSAGES):
            assert await client.publish_wait(case.topic, b"%d" % number, number % 3)
        # At QoS 2 the server delivers when all of the exchange is over: later ones overtake it.
        came = []
        while len(came) < MESSAGES:
            came.append(await asyncio.wait_for(messages.__anext__(), WAIT_S))
    assert sorted(int(message.payload) for message in came) == list(range(MESSAGES))
    assert all(now > then for now, then in zip(turns, before)), "a task stood still"
    is_over.append(True)
    for each in tasks:
        await each
    await case.end(client, task)
    say("figure", "worst delay of the loop without a client, us", worst_us[0])
    say("figure", "worst delay of the loop with one at work, us", worst_us[1])


async def to_its_end(check, ended):
    await check
    ended.append(True)


def main(name, options, topic):
    case = Case(read_argument(options), topic)
    for _ in range(LOOPS.get(name, 1)):
        ended = []
        asyncio.run(to_its_end(globals()["check_" + name](case), ended))
        # MicroPython's run() returns as well when all tasks wait and nothing could wake them.
        assert ended, "all tasks wait for ever"
    wrong = [error_text(error) for error in case.errors if isinstance(error, LocalError)]
    assert not wrong, wrong
    say("ok")


main(*sys.argv[1:])
