"""messages(): what there is no memory to keep is not lost."""

import gc

from fakes import CONNACK_SESSION, SkipTest, reconnect
from test_full_queues import full, take
from wire import kinds, publish


def test_what_there_is_no_memory_to_keep_is_not_acknowledged_and_comes_again():
    """The server has it yet: the connection ends, and begins again."""
    for qos, kind in ((1, 0x40), (2, 0x50)):
        bench, messages = full(qos, 1, clean_session=False, reconnect_min_ms=0)
        bench.server.received()
        message = bench.client._message

        def fail(message=message, copy=message.copy):
            message.copy = copy
            raise MemoryError

        message.copy = fail
        wire = bench.exchange(publish(b"a", b"new", qos, b"\x00\x07"))
        assert kind not in kinds(wire) and not bench.client.is_online()
        reconnect(bench, CONNACK_SESSION)
        wire = bench.exchange(publish(b"a", b"new", qos, b"\x00\x07", flags=8))
        assert kind in kinds(wire)
        assert [take(messages), take(messages)] == [b"0", b"new"]


def test_at_qos_0_it_is_lost_and_told():
    bench, messages = full(0, 1)
    bench.take_events()

    def fail():
        raise MemoryError

    bench.client._message.copy = fail
    bench.exchange(publish(b"a", b"new", 0))
    ((name, error),) = bench.take_events()
    assert name == "error" and str(error) == "out of memory"
    assert bench.client.is_online() and take(messages) == b"0"


def test_however_often_it_happens_nothing_is_left_of_it():
    """MicroPython adds each raise to the traceback of an exception that is made in advance."""
    if not hasattr(gc, "mem_alloc"):
        raise SkipTest("CPython has no such meter")
    bench, messages = full(0, 1)

    def fail():
        raise MemoryError

    def forget(client, error):
        pass

    bench.client.on_error = forget
    bench.client._message.copy = fail
    used = []
    for _ in range(3):
        for _ in range(50):
            bench.exchange(publish(b"a", b"new", 0))
        gc.collect()
        used.append(gc.mem_alloc())
    assert used[2] - used[1] < 200, used
