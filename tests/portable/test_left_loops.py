"""run() in an event loop that was left: Ctrl-C at a REPL, an error in another task.

MicroPython's asyncio.run() then ends, and the other tasks neither end nor go on. The way to begin
anew is asyncio.new_event_loop().
"""

import board_heap  # noqa: F401
from fakes import DISCONNECT, Bench, needs, raises, use_real_parts

import mqttpipe


class Down:
    """A link that is never up: no network is needed."""

    def is_up(self):
        return False


def leave(client):
    """Have run() drive it, and leave the loop. Returns the loop and the task."""
    needs("asyncio")
    import asyncio

    async def main():
        task = asyncio.create_task(client.run())
        for _ in range(3):
            await asyncio.sleep(0)
        try:
            await client.run()
        except mqttpipe.LocalError as error:
            assert "run()" in str(error), error
            return task
        raise AssertionError("two run() in one loop")

    use_real_parts()
    loop = asyncio.new_event_loop()
    return loop, loop.run_until_complete(main())


def forget(left):
    """CPython would report a task that was never ended; MicroPython can't end it."""
    import asyncio

    loop, task = left
    if hasattr(loop, "is_closed"):
        task.cancel()
        loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
        loop.close()
    else:
        asyncio.new_event_loop()


def test_run_begins_again_in_another_loop():
    client = mqttpipe.MQTTClient("mqtt://192.0.2.1", link=Down())
    first = leave(client)
    second = leave(client)
    forget(first)  # what is left of it does not disconnect the second
    assert client.state_name == "WAITING"
    forget(second)


def test_step_and_start_go_on_after_another_loop_was_made():
    client = mqttpipe.MQTTClient("mqtt://192.0.2.1", link=Down())
    left = leave(client)
    forget(left)
    client.step()
    client.wait_for(client.subscribe("t"), 10)
    left = leave(client)
    forget(left)
    client.disconnect()
    assert client.wait_offline(1000)


def test_another_thread_does_not_take_it_from_run():
    client = mqttpipe.MQTTClient("mqtt://192.0.2.1", link=Down())
    left = leave(client)
    client._driver += 1  # as if that had been in another thread
    message = raises(mqttpipe.LocalError, client.step)
    assert "run()" in message
    client._driver -= 1
    forget(left)


def test_a_loop_that_only_rests_still_drives_it():
    """As by run_until_complete(), piece by piece."""
    client = mqttpipe.MQTTClient("mqtt://192.0.2.1", link=Down())
    left = leave(client)
    message = raises(mqttpipe.LocalError, client.step)
    assert "run()" in message
    forget(left)


def test_stop_after_another_loop_was_made_closes_the_connection():
    needs("background")
    client = mqttpipe.MQTTClient("mqtt://192.0.2.1", link=Down())
    left = leave(client)
    forget(left)
    client.connect()  # the task of CPython was cancelled, which has disconnected
    assert client.stop(1000)
    assert client.state_name == "DOWN"


def test_a_full_queue_that_nobody_takes_from_any_more_does_not_stop_the_others():
    """messages() of a loop that was left."""
    needs("asyncio", "background")
    bench = Bench().go_online()
    client = bench.client
    came = []
    client.on_message = lambda client, message: came.append(message.payload)
    client.messages("t", queue_max=1)
    bench.steps()
    bench.server.received()
    bench.exchange(b"\x90\x03\xff\x01\x00\x30\x04\x00\x01t1")
    bench.exchange(b"\x30\x04\x00\x01u2")
    assert came == [], "it is full"
    import asyncio

    loop = asyncio.new_event_loop()
    if hasattr(loop, "is_closed"):
        loop.close()
    client._loop, client._driver, client._is_running = loop, mqttpipe.get_ident(), True
    client.subscribe("u", None)
    bench.steps()
    assert came == [b"2"]


def test_a_task_that_ends_after_its_loop_was_closed_lets_go_of_the_client():
    """CPython's Event.set() raises then, if somebody waits for it, and the client seemed driven
    for ever."""
    client = mqttpipe.MQTTClient("mqtt://192.0.2.1", link=Down())
    loop, task = left = leave(client)
    changed = client._changed

    def is_closed():
        raise RuntimeError("Event loop is closed")

    changed.set = is_closed
    try:
        forget(left)
    except RuntimeError:
        pass
    client.step()
    assert client.wait_online(0) is False if client._is_wanted else client.wait_offline(1000)


def test_who_watched_does_not_step_when_nobody_drives_it_any_more():
    """Several threads may have watched: they would all be in step() at once."""
    needs("background")
    use_real_parts()
    client = mqttpipe.MQTTClient("mqtt://192.0.2.1", link=Down())
    token = client.publish("t", "x", 1)
    client._driver = 0  # start(), in another thread
    is_done = client.is_done
    drivers = []

    def look(token):
        client._driver = drivers.pop() if drivers else None
        return is_done(token)

    client.is_done = look
    step, client.step = client.step, None
    assert client.wait_for(token, 20) is False
    client.step = step  # and if start() comes while somebody drives it, he watches from there on
    drivers.append(0)
    assert client.wait_for(token, 20) is False


def test_stop_drives_what_the_background_has_left():
    """A callback that raised SystemExit has ended the thread, and the connection is still open."""
    needs("background")
    bench = Bench().go_online()
    client = bench.client
    client._driver = 0
    has_stopped = client._has_stopped

    def has_left_and_stopped():
        client._driver = None
        return has_stopped()

    client._has_stopped = has_left_and_stopped
    assert client.stop(1000) and client.state_name == "DOWN"
    assert bench.server.received().endswith(DISCONNECT)
