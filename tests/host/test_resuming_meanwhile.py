"""A thread publishes while step() sends again what a session holds: at each of its bytecodes."""

import fakes
import preemption

import mqttpipe

fast = preemption.fast


def test_a_writer_that_moves_messages_while_pubrels_are_sent_again_loses_none():
    failures = []
    target = 0
    while True:
        target += 1
        bench = fakes.offline(
            pipe_slots=4, clean_session=False, reconnect_min_ms=0, keep_alive_s=0
        )
        preemption.let_time_pass(bench)
        client = bench.go_online().client
        for topic_name, qos in (("a", 2), ("b", 1), ("c", 2), ("d", 1)):
            client.publish(topic_name, b"", qos)
        bench.steps()
        bench.exchange(b"\x50\x02\x00\x01", b"\x40\x02\x00\x02", b"\x50\x02\x00\x03")
        bench.server.error = fakes.ECONNRESET
        bench.steps()
        bench.server.received()
        bench.server.send(fakes.CONNACK_SESSION)
        client.step()  # the next one sends the PUBRELs of a and c; b has left a gap

        def write(client=client):
            try:
                client.publish("new", b"", 1)
            except mqttpipe.QueueFull:
                pass

        has_switched = preemption.Switch(target, write).run(client.step)
        bench.steps()
        sent = bench.server.received()
        if b"\x3a\x05\x00\x01d\x00\x04" not in sent or b"\x62\x02\x00\x04" in sent:
            failures.append((target, sent))
        if not has_switched:
            break
    assert target > 100, "the client was not stopped at all"
    assert failures == []
