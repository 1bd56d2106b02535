"""A thread publishes while another is in step(): just between two of its lines."""

import threading

import fakes
import pytest

import mqttpipe

WAIT_S = 5


@pytest.fixture(autouse=True)
def real_parts():
    yield
    fakes.use_real_parts()


def test_a_writer_that_moves_messages_while_step_looks_away_loses_none(monkeypatch):
    is_armed = []
    main = threading.get_ident()
    in_squeeze, go_on, has_squeezed = threading.Event(), threading.Event(), threading.Event()

    class Pipe(mqttpipe.Pipe):
        _is_dropping = False
        squeezes = 0

        @property
        def is_dropping(self):
            value = self._is_dropping
            if value and in_squeeze.is_set() and threading.get_ident() == main:
                go_on.set()
                has_squeezed.wait(WAIT_S)
            return value

        @is_dropping.setter
        def is_dropping(self, value):
            self._is_dropping = value

        def _squeeze(self):
            if not is_armed or threading.get_ident() == main:
                return super()._squeeze()
            self.squeezes += 1
            if self.squeezes != 2:
                return super()._squeeze()
            in_squeeze.set()
            go_on.wait(WAIT_S)
            try:
                return super()._squeeze()
            finally:
                has_squeezed.set()

    monkeypatch.setattr(mqttpipe, "Pipe", Pipe)
    bench = fakes.offline(pipe_slots=3, offline="drop_oldest")
    bench.go_online()
    for number in range(3):
        bench.client.publish("t", b"m%d" % number)
    is_armed.append(True)
    writer = threading.Thread(target=lambda: bench.client.publish("t", b"m3"))
    writer.start()
    assert in_squeeze.wait(WAIT_S)
    bench.client.step()
    writer.join(WAIT_S)
    is_armed.clear()
    bench.steps()
    for number in range(4, 12):
        bench.client.publish("t", b"m%d" % number)
        bench.steps()
    sent = bench.server.received()
    assert [b"tm%d" % n in sent for n in range(1, 12)] == [True] * 11, sent


def test_a_writer_that_drops_just_before_step_looks_sends_nothing_twice(monkeypatch):
    class Pipe(mqttpipe.Pipe):
        meanwhile = None
        _is_looking = False

        @property
        def is_looking(self):
            return self._is_looking

        @is_looking.setter
        def is_looking(self, value):
            meanwhile = Pipe.meanwhile
            if value and meanwhile:
                Pipe.meanwhile = None
                meanwhile()
            self._is_looking = value

    monkeypatch.setattr(mqttpipe, "Pipe", Pipe)
    bench = fakes.offline(
        pipe_slots=20, offline="drop_oldest", pipe_bytes_max=80, packet_bytes_max=256
    )
    bench.go_online()
    bench.client.publish("t", "f" * 9, 1)
    bench.steps()
    for number in range(6):
        bench.client.publish("t", ("%d" % number) * 9)
    bench.server.write_credit = 20
    Pipe.meanwhile = lambda: bench.client.publish("t", "N" * 39)
    bench.client.step()
    bench.steps()
    bench.server.write_credit = 1 << 20
    bench.steps()
    sent = bench.server.received()
    for text in (b"3" * 9, b"4" * 9, b"5" * 9, b"N" * 39):
        assert sent.count(text) == 1, (text, sent)
