"""Waiting for what can not come says so; what a wait has ended with can be asked."""

from fakes import CONNACK, DISCONNECT, Bench, needs, raises, use_real_parts
from wire import serve, split, suback

import mqttpipe


class Down:
    """A link that is never up: no network is needed."""

    def is_up(self):
        return False


def meanwhile(bench, deliver):
    """The server does `deliver` as soon as the client sleeps."""
    advance = bench.clock.advance

    def deliver_and_advance(ms):
        deliver()
        advance(ms)

    bench.clock.advance = deliver_and_advance


def test_wait_offline_waits_for_the_end_of_disconnect():
    bench = Bench().go_online()
    client = bench.client
    client.publish("t", "x")
    client.disconnect()
    assert client.wait_offline(1000) is True
    assert client.state_name == "DOWN" and bench.server.received().endswith(b"\xe0\x00")
    assert client.wait_offline(0) is True, "it is"


def test_wait_offline_gives_up_when_its_time_is_over():
    bench = Bench().go_online()
    bench.client.publish("t", "x", 1)
    bench.client.disconnect()  # the acknowledgement does not come
    assert bench.client.wait_offline(500) is False


def test_what_was_published_before_a_connection_was_given_up_waits_for_the_next_one():
    """docs/user-guide.md says so: the end of a program is the end of the message, too."""
    bench = Bench()
    client = bench.client
    client.connect()
    token = client.publish("t", "x", 1)
    client.disconnect()
    assert client.wait_offline(1000) is True and bench.take_events() == []
    assert not client.is_done(token)
    bench.go_online(CONNACK)
    assert bench.server.received() == b"\x32\x06\x00\x01t\x00\x01x"
    bench.exchange(b"\x40\x02\x00\x01")
    assert client.is_done(token)


def test_unsubscribe_goes_before_the_messages_that_wait():
    """docs/user-guide.md says so."""
    bench = Bench().go_online()
    bench.client.publish("t", "x", 1)
    bench.client.unsubscribe("t")
    bench.steps()
    assert bench.server.received() == (
        b"\xa2\x05\xff\x01\x00\x01t" + b"\x32\x06\x00\x01t\x00\x01x"
    )


def test_wait_online_before_connect_says_so():
    text = raises(mqttpipe.LocalError, Bench().client.wait_online, 1000)
    assert "connect()" in text, text


def test_publish_wait_without_run_says_so():
    needs("asyncio")
    import asyncio

    client = Bench().client
    text = raises(
        mqttpipe.LocalError,
        lambda: asyncio.run(asyncio.wait_for(client.publish_wait("t", "x"), 1)),
    )
    assert "run()" in text, text


def test_publish_wait_beside_start_says_so_too():
    """The thread of start() wakes no coroutine."""
    needs("asyncio", "background")
    import asyncio

    client = Bench(uri="mqtt://127.0.0.1:1").client
    use_real_parts()
    client.start()
    try:
        text = raises(
            mqttpipe.LocalError,
            lambda: asyncio.run(asyncio.wait_for(client.publish_wait("t", "x"), 1)),
        )
    finally:
        assert client.stop() is True
    assert "run()" in text, text


def test_stop_closes_a_connection_that_step_drives():
    needs("background")
    bench = Bench().go_online()
    assert bench.client.stop() is True
    assert bench.server.received() == DISCONNECT and bench.server.is_closed
    assert bench.client.state_name == "DOWN" and bench.take_events() == [("offline", None)]


def test_stop_takes_back_a_connect_that_no_step_has_seen():
    needs("background")
    bench = Bench()
    bench.client.connect()
    assert bench.client.stop() is True
    bench.clock.advance(100_000)
    bench.steps()
    assert bench.client.state_name == "DOWN"


def test_stop_in_a_callback_of_step_is_refused_and_changes_nothing():
    needs("background")
    bench = Bench().go_online()
    told = []
    bench.client.on_published = lambda client, token: told.append(
        raises(mqttpipe.LocalError, client.stop)
    )
    bench.client.publish("t", "x")
    bench.steps()
    assert len(told) == 1 and bench.client.is_online()


def test_a_refused_subscription_can_be_told_from_a_granted_one():
    needs("qos2")
    bench = Bench().go_online()
    client = bench.client
    for code, refused in ((0, False), (1, False), (0x80, True), (2, False)):
        token = client.subscribe("a/%d" % code, qos=2 if code == 2 else 1)
        assert client.was_refused(token) is False, "not answered yet"
        ((first_byte, body),) = split(bench.exchange())
        bench.exchange(suback(first_byte, body, code))
        assert client.is_done(token) and client.was_refused(token) is refused, code
    assert client.was_refused(12345) is False
    raises(mqttpipe.LocalError, client.was_refused, "1")


def test_a_refusal_is_known_when_wait_for_returns():
    bench = Bench().go_online()
    client = bench.client
    token = client.subscribe("secret/#")

    def refuse():
        for first_byte, body in split(bench.server.received()):
            bench.server.send(suback(first_byte, body, 0x80))

    meanwhile(bench, refuse)
    assert client.wait_for(token, 1000) is True and client.was_refused(token) is True


def test_a_refused_filter_that_is_granted_later_is_refused_no_more():
    bench = Bench(reconnect_min_ms=0).go_online()
    token = bench.client.subscribe("a")
    ((first_byte, body),) = split(bench.exchange())
    bench.exchange(suback(first_byte, body, 0x80))
    assert bench.client.was_refused(token)
    token = bench.client.subscribe("a")
    serve(bench)
    assert bench.client.is_done(token) and not bench.client.was_refused(token)
    assert bench.client.is_online()


def test_publish_wait_hears_of_a_drop_by_another_thread_right_behind_it():
    """That was told before anybody noted that it is waited for: publish_wait() said True."""
    needs("asyncio", "offline")
    import asyncio

    use_real_parts()
    client = mqttpipe.MQTTClient(
        "mqtt://192.0.2.1", link=Down(), pipe_slots=1, offline="drop_oldest"
    )
    publish = client.publish
    dropped = []
    client.on_dropped = lambda client, token: dropped.append(token)

    def publish_and_lose(*arguments):
        token = publish(*arguments)
        client.publish = publish
        publish("t", "of another thread")
        return token

    client.publish = publish_and_lose

    async def main():
        task = asyncio.create_task(client.run())
        answer = await asyncio.wait_for(client.publish_wait("t", "x", 1), 2)
        client.disconnect()
        await task
        return answer

    answer = asyncio.run(main())
    assert answer is False and dropped == [1], (answer, dropped)
    publish("t", "y")
    assert dropped == [1, 2], "nothing is held back any more"


class OddPolls:
    """The real polls, of which the first ones fail."""

    def __init__(self, real, errors):
        self.real = real
        self.errors = errors
        self.POLLIN = real.POLLIN
        self.POLLOUT = real.POLLOUT

    def poll(self):
        if self.errors:
            raise self.errors.pop(0)
        return self.real.poll()


def test_run_goes_on_after_polls_that_fail():
    needs("asyncio")
    import asyncio

    use_real_parts()
    real = mqttpipe.select
    errors = [MemoryError(), OSError(9)] * 2
    client = mqttpipe.MQTTClient("mqtt://192.0.2.1", link=Down())

    async def main():
        task = asyncio.create_task(client.run())
        while errors:
            await asyncio.sleep(0)
        client.disconnect()
        await task

    try:
        mqttpipe.select = OddPolls(real, errors)
        asyncio.run(asyncio.wait_for(main(), 10))
    finally:
        mqttpipe.select = real
    assert client.state_name == "DOWN"


def test_wait_online_ends_when_a_callback_gives_up():
    """A wrong password, and on_offline calls disconnect(): nothing can come any more."""
    bench = Bench()
    client = bench.client
    client.on_offline = lambda client, error: client.disconnect()
    client.connect()
    bench.steps()
    meanwhile(bench, lambda: bench.server.send(b"\x20\x02\x00\x04"))
    began_ms = bench.clock.now_ms
    assert client.wait_online(60_000) is False
    assert client.state_name == "DOWN" and bench.clock.now_ms - began_ms < 60_000


def test_run_in_a_callback_of_step_is_refused():
    """It would wait for the step() that waits for it."""
    needs("asyncio")
    import asyncio

    bench = Bench()
    told = []

    def on_offline(client, error):
        told.append(
            raises(mqttpipe.LocalError, lambda: asyncio.run(asyncio.wait_for(client.run(), 5)))
        )

    bench.client.on_offline = on_offline
    bench.network.connect_error = 111
    bench.client.connect()
    bench.steps()
    assert told and "step()" in told[0], told
