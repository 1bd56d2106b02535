"""An answer that comes while cancel() of another thread looks for the same message."""

from fakes import Bench, needs, offline


def test_an_answer_waits_for_a_cancel_of_another_thread():
    """Else one message could have two ends: told to on_published and to on_dropped."""
    needs("offline")
    bench = offline().go_online()
    token = bench.client.publish("t", b"1", qos=1)
    bench.steps()
    pipe = bench.client._pipe
    pipe.wait_for_lock()  # another thread is in cancel()
    pipe.wait_for_lock(True)
    bench.server.send(b"\x40\x02\x00\x01\x30\x04\x00\x01tm")
    for _ in range(5):
        bench.client.step()
    assert bench.take_events() == [] and not bench.client.is_done(token)
    pipe.release_lock()
    bench.steps()
    assert bench.take_events() == [("published", token), ("message", "t", b"m", 0)]


def test_an_answer_does_not_wait_for_a_cancel_that_ctrl_c_has_ended():
    needs("offline")
    bench = offline().go_online()
    token = bench.client.publish("t", b"1", qos=1)
    bench.steps()
    pipe = bench.client._pipe
    pipe.wait_for_lock()
    pipe.wait_for_lock(True)
    bench.server.send(b"\x40\x02\x00\x01")
    for _ in range(30):
        bench.clock.advance(100)
        bench.client.step()
    assert bench.take_events() == [("published", token)] and bench.client.is_online()


def test_no_cancel_of_another_thread_comes_between_an_answer_and_its_message():
    needs("offline")
    bench = Bench().go_online()
    bench.client.publish("t", b"x", 1)
    bench.steps()
    pipe = bench.client._pipe
    find_id, noted = pipe.find_id, []
    pipe.find_id = lambda packet_id: noted.append(pipe.is_looking) or find_id(packet_id)
    for _ in range(2):  # the first may take the short way
        bench.exchange(b"\x40\x02\x00\x01")
    assert noted and all(noted) and not pipe.is_looking
