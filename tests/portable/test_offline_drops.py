"""What is dropped while offline: the latest of each topic, expiry, and what may go wrong."""

import gc

from fakes import (
    CONNACK,
    CONNACK_SESSION,
    ECONNRESET,
    Bench,
    Guarded,
    SkipTest,
    needs,
    offline,
    raises,
    reconnect,
    sent_after_connect,
)

import mqttpipe


def test_latest_keeps_one_message_of_each_topic_name():
    needs("stats", "offline")
    bench = offline(pipe_slots=3, offline="latest")
    for i in range(4):
        bench.client.publish("a", b"%d" % i)
        bench.client.publish("b", b"%d" % i, qos=1)
    assert len(bench.take_events()) == 6 and bench.client.stats["dropped"] == 6
    bench.client.publish("c", b"0")
    raises(mqttpipe.QueueFull, bench.client.publish, "d", b"0")
    assert sent_after_connect(bench) == (
        b"\x30\x04\x00\x01a3\x32\x06\x00\x01b\x00\x083\x30\x04\x00\x01c0"
    )


def test_latest_drops_nothing_while_online():
    bench = offline(offline="latest").go_online()
    bench.client.publish("a", b"1")
    bench.client.publish("a", b"2")
    bench.steps()
    assert bench.server.received() == b"\x30\x04\x00\x01a1\x30\x04\x00\x01a2"


def test_a_message_expires_while_it_waits():
    needs("offline")
    bench = offline(reconnect_min_ms=10_000, reconnect_max_ms=10_000)
    bench.client.publish("t", b"stale", expiry_s=5)
    bench.client.publish("t", b"fresh", expiry_s=60)
    bench.client.publish("t", b"ever")
    bench.clock.advance(4999)
    bench.steps()
    assert bench.take_events() == []
    bench.clock.advance(1)
    bench.steps()
    assert bench.take_events() == [("dropped", 1)], "told even without a connection"
    assert bench.client.is_done(1)
    assert sent_after_connect(bench) == b"\x30\x08\x00\x01tfresh\x30\x07\x00\x01tever"


def test_a_message_expires_at_the_moment_of_sending_too():
    needs("offline")
    bench = offline()
    bench.client.connect()
    bench.steps()
    bench.client.publish("t", b"stale", qos=1, expiry_s=1)
    bench.server.received()
    bench.clock.advance(1000)
    assert bench.exchange(CONNACK) == b""
    assert ("dropped", 1) in bench.take_events()


def test_a_message_expires_in_service_while_it_waits():
    needs("offline", "stats")
    bench = offline(in_flight_max=1, keep_alive_s=0).go_online()
    bench.client.publish("t", b"1", qos=1)
    bench.client.publish("t", b"2", qos=1, expiry_s=2)
    bench.client.publish("t", b"3", qos=1, expiry_s=9)
    bench.steps()
    bench.clock.advance(1999)
    bench.steps()
    assert bench.take_events() == []
    assert bench.client.next_deadline_ms() == 1, "step() wakes up for it"
    bench.clock.advance(1)
    bench.steps()
    assert bench.take_events() == [("dropped", 2)] and bench.client.stats["expired"] == 1
    bench.client.step()
    assert bench.client.next_deadline_ms() == 7000
    bench.server.received()
    assert bench.exchange(b"\x40\x02\x00\x01") == b"\x32\x06\x00\x01t\x00\x033"


def test_what_has_expired_in_a_pause_wakes_nobody_again():
    """Or start() and run() would not sleep until the next attempt."""
    needs("offline")
    bench = offline(reconnect_min_ms=60_000, reconnect_max_ms=60_000)
    bench.network.refused = "192.0.2.1"
    bench.client.connect()
    bench.steps()
    bench.client.publish("a", b"x", 1, expiry_s=1)
    bench.steps()
    assert bench.client.next_deadline_ms() == 1000
    bench.clock.advance(1100)
    bench.steps()
    assert bench.client.next_deadline_ms() == 58_900


def test_what_is_on_its_way_does_not_expire_before_the_connection_breaks():
    needs("offline")
    bench = offline(clean_session=False, reconnect_min_ms=0).go_online()
    bench.server.write_credit = 3
    bench.client.publish("t", b"1", expiry_s=1)
    bench.client.publish("t", b"2", qos=1, expiry_s=1)
    bench.steps()
    bench.clock.advance(5000)
    bench.steps()
    assert bench.take_events() == []
    bench.server.write_credit = 1 << 20
    bench.steps()
    assert bench.server.received() == b"\x30\x04\x00\x01t1\x32\x06\x00\x01t\x00\x022"
    bench.exchange(b"\x40\x02\x00\x02")
    assert bench.take_events() == [("published", 1), ("published", 2)]


def test_what_was_on_its_way_when_the_connection_ended_expires_while_it_waits_again():
    needs("offline")
    bench = offline(reconnect_min_ms=60_000, reconnect_max_ms=60_000).go_online()
    bench.server.write_credit = 0
    bench.client.publish("t", b"1", expiry_s=1)
    bench.client.publish("t", b"2", expiry_s=9)
    bench.steps()
    bench.clock.advance(5000)
    bench.steps()
    assert bench.take_events() == []
    bench.server.error = ECONNRESET
    bench.steps()
    assert [event for event in bench.take_events() if event[0] == "dropped"] == [("dropped", 1)]
    bench.clock.advance(4000)
    bench.steps()
    assert bench.take_events() == [("dropped", 2)]


def test_what_was_sent_and_not_acknowledged_expires_at_the_next_connection():
    """A message that a server never takes stops blocking the others: perhaps it was delivered."""
    needs("offline", "qos2")
    for connack, again in (
        # The server may have the QoS 2 message: its exchange is finished, in silence.
        (CONNACK_SESSION, b"\x62\x02\x00\x04\x62\x02\x00\x03\x32\x05\x00\x01t\x00\x05"),
        (CONNACK, b"\x32\x05\x00\x01t\x00\x05"),
    ):
        bench = offline(clean_session=False, reconnect_min_ms=0).go_online()
        bench.server.write_credit = 27
        client = bench.client
        tokens = [
            client.publish("t", b"1", expiry_s=1),  # leaves as a whole
            client.publish("t", b"2", qos=1, expiry_s=1),
            client.publish("t", b"3", qos=2, expiry_s=1),
            client.publish("t", b"4", qos=2, expiry_s=1),
        ]
        bench.steps()
        # Of "4" only a byte may leave, so it is as if the server had guessed its identifier.
        bench.server.write_credit = 1 << 20
        bench.steps()
        bench.exchange(b"\x50\x02\x00\x04")
        assert bench.take_events() == [("published", tokens[0])]
        bench.clock.advance(1000)
        client.publish("t", b"", qos=1)
        bench.server.error = ECONNRESET
        bench.steps()
        told = [event for event in bench.take_events() if event[0] == "dropped"]
        assert told == [("dropped", tokens[1]), ("dropped", tokens[2])]
        for token in tokens[:3]:
            assert client.is_done(token)
        assert not client.is_done(tokens[3]), "the server has it for good"
        bench.server.received()
        assert bench.exchange(connack) == again, connack
        if connack is CONNACK_SESSION:
            bench.exchange(b"\x70\x02\x00\x04\x70\x02\x00\x03")
        bench.exchange(b"\x40\x02\x00\x05")
        told = [event for event in bench.take_events() if event[0] in ("published", "dropped")]
        end = "published" if connack is CONNACK_SESSION else "dropped"
        assert told == [(end, 4), ("published", 5)]
        assert client._pipe.head == client._pipe.tail


def test_past_pubrec_the_expiry_is_kept_for_a_server_that_loses_the_session():
    needs("offline", "qos2")
    bench = offline(clean_session=False, reconnect_min_ms=0, in_flight_max=1).go_online()
    client = bench.client
    client.publish("t", b"1", qos=1)
    bench.steps()
    bench.exchange(b"\x40\x02\x00\x01")
    client.publish("t", b"2", qos=2, expiry_s=3)
    bench.steps()
    bench.exchange(b"\x50\x02\x00\x02")
    for connack, again in (
        (CONNACK_SESSION, b"\x62\x02\x00\x02"),
        (CONNACK, b"\x34\x06\x00\x01t\x00\x022"),
    ):
        bench.clock.advance(1000)
        assert reconnect(bench, connack) == again, connack
    bench.exchange(b"\x50\x02\x00\x02")
    bench.clock.advance(1000)
    # The server has it for good: what is overdue does not change that.
    assert reconnect(bench, CONNACK_SESSION) == b"\x62\x02\x00\x02"
    bench.take_events()
    assert reconnect(bench, CONNACK) == b"" and ("dropped", 2) in bench.take_events()
    assert client.is_done(2) and client._pipe.head == client._pipe.tail


def test_what_begins_anew_and_has_to_wait_expires_in_its_time():
    needs("offline", "qos2")
    bench = offline(clean_session=False, reconnect_min_ms=0, keep_alive_s=0).go_online()
    bench.client.publish("t", b"1", qos=2, expiry_s=5)
    bench.steps()
    bench.exchange(b"\x50\x02\x00\x01")
    bench.server.error = ECONNRESET
    bench.steps()
    bench.server.write_credit = 0
    bench.server.received()
    bench.client.subscribe("a")
    bench.client.in_flight_max = 0  # as if others were in flight
    bench.server.send(CONNACK)
    bench.steps()
    bench.take_events()
    bench.clock.advance(5000)
    bench.steps()
    assert bench.take_events() == [("dropped", 1)]


def test_a_callback_told_of_a_drop_may_publish():
    needs("offline")
    bench = offline(pipe_slots=2, offline="drop_oldest")
    told = []

    def on_dropped(client, token):
        told.append(token)
        if len(told) == 1:
            client.publish("log", b"dropped")

    bench.client.on_dropped = on_dropped
    for i in range(3):
        bench.client.publish("t", b"%d" % i)
    assert told == [1, 2]
    assert sent_after_connect(bench) == b"\x30\x04\x00\x01t2\x30\x0c\x00\x03logdropped"


def test_policies_allocate_no_slot_and_lose_no_token():
    """Drops and sends, for long: the bytes counted come out even."""
    needs("stats", "offline")
    bench = offline(pipe_slots=4, pipe_bytes_max=40, offline="drop_oldest").go_online()
    tokens = 0
    for turn in range(30):
        if turn % 7 == 3:
            bench.server.error = ECONNRESET
            bench.steps()
            bench.clock.advance(60_000)
            bench.steps()
            bench.server.received()
            bench.server.send(CONNACK)
        for i in range(turn % 5):
            bench.client.publish("t" * (1 + i), b"x" * (turn % 9), qos=0)
            tokens += 1
        bench.steps()
    told = [event for event in bench.take_events() if event[0] in ("dropped", "published")]
    assert len(told) == tokens, (len(told), tokens)
    assert bench.client.stats["dropped"] + bench.client.stats["sent"] == tokens
    assert bench.client._pipe._survey(None)[0] == 0


def test_nothing_is_kept_of_a_message_that_has_gone():
    """A payload may be as large as packet_bytes_max: memory of a board."""
    needs("offline")
    for policy in ("drop_oldest", "latest"):
        bench = offline(pipe_slots=4, offline=policy)
        client = bench.client
        pipe = client._pipe
        tokens = []
        for name in "abcdabacdbabcdaabd":
            tokens.append(client.publish(name, b"x", 1, expiry_s=60, offline=policy))
            if len(tokens) % 3 == 0:
                client.cancel(tokens[-2])
            waiting = range(pipe.head, pipe.tail + pipe.size * (pipe.tail < pipe.head))
            waiting = sum(1 for at in waiting if pipe.firsts[at % pipe.size])
            for kept in (pipe.payloads, pipe.extras):
                assert sum(1 for one in kept if one is not None) == waiting, (policy, kept)
    bench = offline().go_online()
    pipe = bench.client._pipe
    bench.client.publish("t", b"x", 1, expiry_s=60)
    bench.client.publish("t", b"x", 0, expiry_s=60)
    bench.steps()
    bench.exchange(b"\x40\x02\x00\x01")
    assert pipe.payloads == pipe.extras == [None] * pipe.size


def test_step_does_not_look_at_the_ring_while_a_message_is_being_dropped():
    needs("offline")
    bench = offline().go_online()
    bench.client.publish("t", b"1")
    pipe = bench.client._pipe
    pipe.wait_for_lock()  # another thread is in put(),
    pipe.is_dropping = True  # and drops something
    for _ in range(5):
        bench.client.step()
    assert bench.server.received() == b"" and bench.client.is_online()
    pipe.release_lock()
    bench.steps()
    assert bench.server.received() == b"\x30\x04\x00\x01t1"


def test_a_lock_left_behind_by_ctrl_c_is_given_back_by_step():
    needs("offline")
    for is_dropping in (False, True):
        bench = offline(pipe_slots=2, offline="drop_oldest", keep_alive_s=0).go_online()
        bench.client.publish("t", b"1")
        pipe = bench.client._pipe
        pipe.wait_for_lock()  # as put() does, and then it is ended
        pipe.is_dropping = is_dropping
        if not is_dropping:  # who finds it so says it
            mqttpipe.ticks_ms = lambda clock=bench.clock: clock.advance(1) or clock.ticks_ms()
            raises(mqttpipe.QueueFull, bench.client.publish, "t", b"2")
            mqttpipe.ticks_ms = bench.clock.ticks_ms
        for _ in range(100):
            bench.clock.advance(100)
            bench.client.step()
        assert bench.server.received() == b"\x30\x04\x00\x01t1"
        bench.client.publish("t", b"2")
        bench.steps()
        assert bench.server.received() == b"\x30\x04\x00\x01t2"


def test_put_does_not_wait_for_ever_for_what_it_may_have_interrupted():
    needs("offline")
    bench = offline(pipe_slots=1, offline="drop_oldest")
    bench.client.publish("t", b"1")
    pipe = bench.client._pipe
    ticks = [0]

    def ticks_ms():
        ticks[0] += 1
        return ticks[0]

    mqttpipe.ticks_ms = ticks_ms
    pipe._lock.acquire()
    raises(mqttpipe.QueueFull, bench.client.publish, "t", b"2")
    pipe._lock.release()
    # step(), which is looking at the ring: it may be this thread's own, or another's.
    pipe.is_looking = True
    raises(mqttpipe.QueueFull, bench.client.publish, "t", b"2")
    pipe.is_looking = False
    assert bench.take_events() == []
    bench.client.publish("t", b"2")
    assert bench.take_events() == [("dropped", 1)]


def test_put_waits_for_a_step_of_another_thread_that_looks_at_the_ring():
    needs("offline")
    bench = offline(pipe_slots=1, offline="drop_oldest")
    bench.client.publish("t", b"1")
    pipe = bench.client._pipe
    pipe.is_looking = True
    pass_on = mqttpipe.pass_on

    def step_has_looked():
        pipe.is_looking = False

    mqttpipe.pass_on = step_has_looked
    try:
        assert bench.client.publish("t", b"2") == 2
    finally:
        mqttpipe.pass_on = pass_on
    assert bench.take_events() == [("dropped", 1)]


def test_nothing_is_dropped_in_vain():
    needs("offline")
    bench = offline(pipe_bytes_max=12, offline="drop_oldest").go_online()
    bench.server.write_credit = 0
    bench.client.publish("t", b"x" * 8)  # on its way, so it stays
    bench.steps()
    bench.client.publish("t", b"")
    raises(mqttpipe.QueueFull, bench.client.publish, "t", b"xxxx")
    assert bench.take_events() == []


def test_expired_slots_are_free_again_and_do_not_hold_up_disconnect():
    needs("stats", "offline")
    bench = offline(pipe_slots=4, keep_alive_s=0).go_online()
    for _ in range(2):
        for _ in range(4):
            bench.client.publish("t", b"", expiry_s=1)
        bench.clock.advance(2000)
        bench.steps()
    bench.client.publish("t", b"", expiry_s=1)
    bench.client.disconnect()
    bench.clock.advance(2000)
    bench.steps()
    assert bench.client.state_name == "DOWN" and bench.client.stats["expired"] == 9


def test_expiry_counts_from_the_clock_and_not_from_the_last_step():
    bench = offline(now_ms=0x30000000)
    bench.client.publish("a", b"1", expiry_s=100)
    bench.client.subscribe("b")
    assert bench.take_events() == []


def test_latest_leaves_no_older_value_behind_the_newest():
    needs("offline")
    bench = offline(in_flight_max=1, offline="latest", reconnect_min_ms=0, clean_session=False)
    bench.go_online()
    for i in (1, 2, 3, 4):
        bench.client.publish("a", b"%d" % i, qos=1)
    bench.steps()
    bench.network.is_silent = True
    bench.server.error = ECONNRESET
    bench.steps()
    bench.client.publish("a", b"5", qos=1)
    bench.network.is_silent = False
    bench.steps()
    bench.server.received()
    assert bench.exchange(b"\x20\x02\x01\x00") == b"\x3a\x06\x00\x01a\x00\x011"
    assert bench.exchange(b"\x40\x02\x00\x01") == b"\x32\x06\x00\x01a\x00\x055"
    assert bench.exchange(b"\x40\x02\x00\x05") == b""
    told = [event for event in bench.take_events() if event[0] == "dropped"]
    assert told == [("dropped", 2), ("dropped", 3), ("dropped", 4)], "the oldest first"


def test_latest_takes_no_place_before_an_older_value_that_was_sent():
    """A QoS 0 message had not left yet, and what came behind it had: the newest went before that.

    The subscribers kept the older value.
    """
    needs("offline")
    for slots in (2, 8):
        bench = offline(
            pipe_slots=slots, offline="latest", reconnect_min_ms=0, clean_session=False
        )
        bench.go_online()
        bench.server.write_credit = 0
        bench.client.publish("a", b"1")
        bench.client.publish("a", b"2", qos=1)
        bench.steps()
        bench.network.is_silent = True
        bench.server.error = ECONNRESET
        bench.steps()
        assert bench.client.publish("a", b"3", qos=1) == 3, "there is room"
        bench.network.is_silent = False
        bench.steps()
        bench.server.received()
        again, newest = b"\x3a\x06\x00\x01a\x00\x022", b"\x32\x06\x00\x01a\x00\x033"
        assert bench.exchange(b"\x20\x02\x01\x00") == again + newest, slots
        told = [event for event in bench.take_events() if event[0] == "dropped"]
        assert told == [("dropped", 1)]


def test_the_lock_is_given_back_whatever_happens():
    needs("offline")
    bench = offline(pipe_slots=2, offline="drop_oldest")
    pipe = bench.client._pipe
    bench.client.publish("t", b"1")
    bench.client.publish("t", b"2")

    def no_memory(at):
        raise MemoryError

    pipe.give_up = no_memory
    raises(MemoryError, bench.client.publish, "t", b"3")
    del pipe.give_up
    bench.client.publish("t", b"3")
    assert bench.take_events() == [("dropped", 1)]


def test_a_callback_that_answers_each_drop_with_a_message_does_not_go_round_for_ever():
    needs("offline")
    bench = offline(pipe_slots=2, offline="drop_oldest")
    told = [0]

    def on_dropped(client, token):
        told[0] += 1
        client.publish("log", b"dropped")

    bench.client.on_dropped = on_dropped
    for _ in range(3):
        bench.client.publish("t", b"")
    assert told[0] == 1000, "as many as are told at once"
    bench.client.on_dropped = None
    bench.client.publish("t", b"")


def test_the_list_of_what_was_dropped_changes_under_the_lock_only():
    """Without a GIL two threads that change it at once break it: tokens were never told, or an
    item was no object at all."""
    needs("offline")
    bench = offline(pipe_slots=2, offline="drop_oldest")
    pipe = bench.client._pipe
    pipe.dropped = Guarded(pipe._lock)
    tokens = [bench.client.publish("t", b"%d" % n, 1, expiry_s=5) for n in range(5)]
    bench.client.cancel(tokens[3])
    bench.clock.advance(6000)
    bench.steps()
    assert bench.take_events() == [("dropped", token) for token in tokens]


def test_what_another_thread_keeps_from_being_told_is_told_by_step():
    needs("offline")
    bench = offline(pipe_slots=2)
    pipe = bench.client._pipe
    token = bench.client.publish("t", b"x", 1)
    cancel = pipe.cancel

    def cancel_and_lose_the_lock(token):
        is_taken_back = cancel(token)
        pipe.wait_for_lock()  # the other thread was faster
        return is_taken_back

    pipe.cancel = cancel_and_lose_the_lock
    assert bench.client.cancel(token) and bench.take_events() == []
    assert pipe.is_signalled, "nobody wakes step()"
    bench.client.step()
    assert bench.take_events() == []
    pipe.release_lock()
    bench.client.step()
    assert bench.take_events() == [("dropped", token)]


def test_the_ring_is_gone_through_once_for_all_that_the_latest_replaces():
    """Else one call of a client with a thousand slots would take seconds on a board."""
    bench = offline(pipe_slots=40)
    pipe = bench.client._pipe
    for _ in range(40):
        bench.client.publish("t", b"x", 1)
    survey, looks = pipe._survey, []

    def count(topic):
        looks.append(1)
        return survey(topic)

    pipe._survey = count
    bench.client.publish("t", b"y", 1, offline="latest")
    assert len(looks) <= 3 and len(bench.take_events()) == 40
    assert sent_after_connect(bench) == b"\x32\x06\x00\x01t\x00\x29y"


def test_ctrl_c_at_any_look_at_the_clock_leaves_a_client_that_tells_what_is_dropped():
    for count in range(1, 9):
        bench = offline(pipe_slots=2, offline="drop_oldest")
        client = bench.client
        told = []
        client.on_dropped = lambda client, token, told=told: told.append(token)
        looks = []
        now = mqttpipe.ticks_ms

        def ticks_ms(count=count, looks=looks, now=now):
            looks.append(1)
            if len(looks) == count:
                raise KeyboardInterrupt
            return now()

        mqttpipe.ticks_ms = ticks_ms
        for n in range(6):
            try:
                client.publish("t", b"%d" % n)
            except (KeyboardInterrupt, mqttpipe.QueueFull):
                bench.clock.advance(1001)
                client.step()  # gives back the lock
                bench.clock.advance(1001)
                client.step()
        assert len(looks) >= count
        client.step()
        assert told == list(range(1, client._pipe.last_token - 1)), (count, told)


def test_to_make_room_takes_no_memory_for_each_message_that_waits():
    """A tuple for each: with 1000 slots a publish() took 24 ms, most of it to collect them."""
    needs("offline")
    if not hasattr(gc, "mem_alloc"):
        raise SkipTest("CPython has no such meter")
    client = Bench(pipe_slots=100, offline="drop_oldest").client
    for _ in range(103):
        client.publish(b"t", b"x")
    gc.collect()
    gc.disable()
    before = gc.mem_alloc()
    client.publish(b"t", b"x")
    took = gc.mem_alloc() - before
    gc.enable()
    assert took < 500, took


def test_a_look_for_what_has_expired_reckons_once_for_each_message():
    """CONNACK has two of them: with 1000 slots 5.5 ms of its step."""
    needs("offline")
    bench = offline(pipe_slots=30)
    for n in range(30):
        bench.client.publish("t", b"x", expiry_s=n + 1)
    pipe = bench.client._pipe
    diff = mqttpipe.ticks_diff
    counted = []

    def ticks_diff(end, start):
        counted.append(1)
        return diff(end, start)

    mqttpipe.ticks_diff = ticks_diff
    pipe.drop_expired(bench.clock.now_ms)
    mqttpipe.ticks_diff = diff
    assert len(counted) == 30 and not pipe.dropped
    assert pipe.next_expiry_ms == bench.clock.now_ms + 1000
