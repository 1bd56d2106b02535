"""The clock from the network: what is asked, what is believed, what is asked again."""

import wifi_core
from clock_fakes import DAY_MS, NONCE, NOW, REAL_GMTIME, Bench, Rtc, Socket, answer, never_set
from wifi_core import Sntp, decode_time


def test_the_request_is_a_client_s_and_the_clock_is_set_from_the_answer():
    bench = Bench("192.0.2.1")
    assert not bench.step()
    assert bench.socket.where == ("192.0.2.1", 123)
    assert bench.socket.sent == b"\x23" + bytes(39) + NONCE
    bench.socket.answers.append(answer(bench.socket.sent))
    assert bench.step()
    year, month, day, weekday, hour, minute, second, _ = Rtc.set_to
    assert (year, month, day, hour, minute, second) == NOW and weekday == 2
    assert bench.socket.is_closed


def test_after_an_answer_there_is_no_question_for_a_day():
    bench = Bench("192.0.2.1")
    bench.step()
    bench.socket.answers.append(answer(bench.socket.sent))
    bench.step()
    bench.clock.advance(DAY_MS - 1)
    bench.step()
    assert len(bench.network.sockets) == 1
    bench.clock.advance(1)
    bench.step()
    assert len(bench.network.sockets) == 2


def test_what_is_no_good_answer_sets_nothing():
    request = b"\x23" + bytes(39) + NONCE
    good = answer(request)
    assert decode_time(good, request)[:3] == NOW[:3]
    for bad in (
        b"",
        good[:47],
        answer(request, originate=bytes(8)),  # a stranger who has not seen the request
        answer(request, first=0xE4),  # leap indicator 3: its clock is not set
        answer(request, first=0x23),  # mode 3: a client's
        answer(request, first=0x25),  # mode 5: broadcast
        answer(request, first=0x14),  # version 2
        answer(request, stratum=0),  # kiss of death
        answer(request, stratum=16),  # not synchronized
        answer(request, seconds=0),
    ):
        assert decode_time(bad, request) is None, bad
        bench = Bench("192.0.2.1")
        bench.step()
        bench.socket.answers.append(bad)
        assert not bench.step() and Rtc.set_to is None
        bench.socket.answers.append(good)  # it goes on listening
        assert bench.step()


def test_the_years_after_2036_are_right_too():
    request = b"\x23" + bytes(39) + NONCE
    # 2036-02-07 06:28:15 is the last second of the era, a day later is 86,399 in the next one.
    assert decode_time(answer(request, 0xFFFFFFFF), request)[:6] == (2036, 2, 7, 6, 28, 15)
    assert decode_time(answer(request, 86_399), request)[:6] == (2036, 2, 8, 6, 28, 15)


def test_the_next_server_is_asked_when_one_is_silent():
    bench = Bench("192.0.2.1", "192.0.2.2", "192.0.2.3")
    bench.run(9_000)
    assert bench.hosts() == ["192.0.2.1", "192.0.2.2", "192.0.2.3"]


def test_no_server_is_asked_twice_within_15_s_and_silent_ones_less_and_less():
    bench = Bench("192.0.2.1")
    asked = []
    for _ in range(4 * 3600):
        before = len(bench.network.sockets)
        bench.step()
        if len(bench.network.sockets) > before:
            asked.append(bench.clock.now_ms)
        bench.clock.advance(250)
    pauses = [later - earlier for earlier, later in zip(asked, asked[1:])]
    for pause, wanted in zip(pauses, (15_000, 30_000, 60_000, 120_000)):
        assert wanted <= pause <= wanted + 250, pauses
    assert len(asked) < 12, asked


def test_a_server_that_can_not_be_reached_is_left_for_the_next():
    bench = Bench("192.0.2.1", "192.0.2.2")
    bench.network.connect_error = 113
    bench.run(3_000)
    bench.network.connect_error = 0
    bench.run(3_000)
    assert bench.hosts() == ["192.0.2.1", "192.0.2.2"]
    bench.network.receive_error = 111  # nobody listens there
    bench.step()
    assert bench.socket.is_closed


def test_one_server_may_be_given_without_a_list_around_it():
    """("192.0.2.1") looks like a tuple, and is a str."""
    bench = Bench("192.0.2.9")
    bench.sntp = Sntp("192.0.2.1", list)
    bench.run(4_000)
    assert bench.hosts() == ["192.0.2.1"]


def test_closing_gives_the_socket_back_and_may_be_repeated():
    bench = Bench("192.0.2.1")
    bench.sntp.close()
    bench.step()
    bench.sntp.close()
    bench.sntp.close()
    assert bench.socket.is_closed
    bench.run(15_500)
    assert len(bench.network.sockets) == 2


def test_a_new_link_forgets_the_long_pauses_and_asks_no_server_twice_within_15_s():
    for count in (1, 2, 3, 7):
        bench = Bench(*["192.0.2.%d" % n for n in range(count)])
        wifi_core.gmtime = never_set
        for _ in range(90):
            bench.run(10_000)
            del bench.network.sockets[:-1]  # a board's heap holds some 100 of them
        last_ms = {}
        asked = 0
        for turn in range(4_000):
            if turn % 31 == 0:
                bench.sntp.close()
                bench.sntp.hurry(bench.clock.now_ms)
            before = len(bench.network.sockets)
            bench.step()
            if len(bench.network.sockets) > before:
                asked += 1
                host = bench.socket.where[0]
                now_ms = bench.clock.now_ms
                assert now_ms - last_ms.get(host, -15_000) >= 15_000, (count, host)
                last_ms[host] = now_ms
                bench.network.sockets = bench.network.sockets[-1:]
            bench.clock.advance(250)
        assert asked > 50 and len(last_ms) == count, (count, asked, last_ms)


def test_a_new_link_changes_nothing_for_a_clock_that_is_set():
    bench = Bench("192.0.2.1")
    bench.step()
    bench.socket.answers.append(answer(bench.socket.sent))
    assert bench.step()
    bench.sntp.hurry(bench.clock.now_ms)
    bench.run(60_000)
    assert len(bench.network.sockets) == 1


def test_a_question_that_was_due_while_the_link_was_away_is_asked_after_however_long():
    """ticks_ms() wraps: behind its half, 6.2 days, what is past would seem to come."""
    bench = Bench("192.0.2.1")
    bench.step()
    for _ in range(9):  # days, of attempts to find a network
        bench.clock.advance(DAY_MS)
        bench.sntp.close()
        bench.sntp.hurry(bench.clock.now_ms)
    bench.step()
    assert len(bench.network.sockets) == 2


def test_so_is_one_that_was_due_while_nobody_stepped():
    """As after stop() and, days later, start()."""
    for days in (2, 6, 7, 9, 12):
        bench = Bench("192.0.2.1")
        bench.step()
        bench.socket.answers.append(answer(bench.socket.sent))
        assert bench.step()
        bench.sntp.hurry(bench.clock.now_ms)
        bench.clock.advance(days * DAY_MS)
        bench.step()
        assert len(bench.network.sockets) == 2, days


def test_a_new_link_without_memory_for_the_date_raises_nothing():
    bench = Bench("192.0.2.1")
    bench.step()

    def gmtime(*seconds):
        raise MemoryError("by the test")

    wifi_core.gmtime = gmtime
    bench.sntp.hurry(bench.clock.now_ms)


def board_gmtime(epoch):
    """gmtime() of a board: what is not in 32 bits is an error (extmod/modtime.c)."""

    def gmtime(seconds=None):
        if seconds is None:
            return (2021, 1, 1, 0, 0, 0, 4, 1)  # never set
        if not 0 <= seconds < 1 << 32:
            raise OverflowError("overflow converting long int to machine word")
        if epoch == 2000:  # a date that is in both: 10,957 days lie between the two
            if not seconds:
                return (2000, 1, 1, 0, 0, 0, 5, 1)
            seconds += 946_684_800
        return REAL_GMTIME(seconds)

    return gmtime


SECONDS_2024 = 3_913_056_000
SECONDS_2100 = 6_311_433_600 - (1 << 32)  # of the era after 2036


def test_a_date_before_2024_or_after_2099_is_passed_over_on_boards_too():
    request = b"\x23" + bytes(39) + NONCE
    for epoch in (1970, 2000):
        bench = Bench("192.0.2.1", "192.0.2.2")
        wifi_core.gmtime = board_gmtime(epoch)
        bench.step()
        for seconds in (
            2_208_988_800 + 1_500_000_000,  # July 2017
            SECONDS_2024 - 1,
            SECONDS_2100,
            1 << 31,
            SECONDS_2024 - (1 << 20),
        ):
            assert decode_time(answer(request, seconds), request) is None, seconds
            bench.socket.answers.append(answer(bench.socket.sent, seconds))
            assert not bench.step() and Rtc.set_to is None, seconds
        bench.run(3_250)
        assert bench.hosts()[-1] == "192.0.2.2", "the next one is asked"
        bench.socket.answers.append(answer(bench.socket.sent))
        assert bench.step() and Rtc.set_to[:3] == NOW[:3], Rtc.set_to


def test_the_first_and_the_last_second_are_good():
    """gmtime() of the 32-bit unix port ends in 2038: so this one tells what it is asked for."""
    request = b"\x23" + bytes(39) + NONCE
    wifi_core.gmtime = lambda seconds: (1970,) if not seconds else (seconds,)
    for seconds, since_1970 in (
        (SECONDS_2024, 1_704_067_200),  # 2024-01-01 00:00:00
        (SECONDS_2100 - 1, 4_102_444_799),  # 2099-12-31 23:59:59
    ):
        assert decode_time(answer(request, seconds), request) == (since_1970,)


def test_every_truncation_and_every_changed_byte_is_survived():
    good = answer(b"\x23" + bytes(39) + NONCE)
    bench = Bench("192.0.2.1")
    wifi_core.gmtime = board_gmtime(1970)
    for size in range(len(good)):
        bench.step()
        bench.socket.answers.append(good[:size])
        assert not bench.step(), size
    for at in range(len(good)):
        for byte in (0, 0x7F, 0x80, 0xFF):
            bench.sntp.close()
            bench.sntp._due_ms = None
            bench.step()
            bench.socket.answers.append(good[:at] + bytes((byte,)) + good[at + 1 :])
            bench.step()
            bench.network.sockets = bench.network.sockets[-1:]
            year = Rtc.set_to[0] if Rtc.set_to else 2026
            assert 2024 <= year <= 2099, (at, byte)


def test_whatever_is_raised_costs_this_server_s_turn_and_no_more():
    for error in (OSError(5), ValueError("by the test"), MemoryError(), OverflowError()):
        bench = Bench("192.0.2.1", "192.0.2.2")
        bench.step()
        bench.network.close_error = error
        bench.socket.answers.append(error)
        assert not bench.step()
        bench.network.close_error = None
        bench.run(3_250)
        assert bench.hosts()[-1] == "192.0.2.2", error
        bench.socket.answers.append(answer(bench.socket.sent))
        assert bench.step(), error


def test_a_clock_that_can_not_be_set_is_no_end():
    class Broken:
        def datetime(self, when):
            raise ValueError("by the test")

    bench = Bench("192.0.2.1")
    wifi_core.RTC = Broken
    bench.step()
    bench.socket.answers.append(answer(bench.socket.sent))
    assert not bench.step()
    wifi_core.RTC = Rtc
    bench.run(15_500)
    bench.socket.answers.append(answer(bench.socket.sent))
    assert bench.step()


def test_an_address_that_this_board_has_no_form_for_is_passed_over():
    """ESP32 answers None for the address of an IPv6 literal."""
    bench = Bench("192.0.2.1", "192.0.2.2")
    real = bench.network.getaddrinfo

    def getaddrinfo(host, port):
        return [(2, 1, 0, "", None)] if host == "192.0.2.1" else real(host, port)

    def connect(self, where):
        if where is None:
            raise TypeError("object of type 'NoneType' has no len()")
        self.where = where

    bench.network.getaddrinfo = getaddrinfo
    kept, Socket.connect = Socket.connect, connect
    try:
        bench.run(3_250)
        assert bench.socket.where == ("192.0.2.2", 123)
    finally:
        Socket.connect = kept
