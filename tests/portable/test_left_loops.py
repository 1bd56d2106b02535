"""run() in an event loop that was left: Ctrl-C at a REPL, an error in another task.

MicroPython's asyncio.run() then ends, and the other tasks neither end nor go on. The way to begin
anew is asyncio.new_event_loop().
"""

import board_heap  # noqa: F401
from fakes import Bench, needs, raises, use_real_parts

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
