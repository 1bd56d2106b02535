"""publish() or is_done() in one thread, step() or publish() in another, who frees or moves slots.

One of the two is stopped at each of its bytecodes in turn, and all of the other runs just there.
"""

import fakes
import preemption

fast = preemption.fast


def test_who_counts_bytes_bears_that_step_frees_a_slot_just_then():
    """MQTT 5.0: publish() asked for the properties twice, and the second time there were none."""
    target = 0
    failures = []
    while True:
        target += 1
        bench = fakes.offline(
            pipe_slots=4, pipe_bytes_max=200, offline="drop_oldest", protocol=5, keep_alive_s=0
        )
        preemption.let_time_pass(bench)
        client = bench.client
        bench.go_online(b"\x20\x03\x00\x00\x00")
        for _ in range(2):
            client.publish("t", b"x" * 20, 1, properties={"content_type": "text"})
        bench.steps()
        client._pipe.bytes_left = 0  # has them counted
        bench.server.send(b"\x40\x02\x00\x01\x40\x02\x00\x02")
        published = []

        def publish(client=client, published=published):
            published.append(client.publish("t", b"y" * 20, 1))

        try:
            has_switched = preemption.Switch(target, client.step).run(publish)
        except Exception as error:
            failures.append("bytecode %d: %r" % (target, error))
            continue
        if not has_switched:
            break
    assert target > 100 and published, "the client was not stopped at all"
    assert failures == []
