"""What the files of a system say of names and of its DNS servers, however they are written."""

from fakes import CONNACK, Bench, needs, use_real_parts

import mqttpipe

HOSTS = b"""# des serveurs \xe9teints et d\xe9mont\xe9s
127.0.0.1\tlocalhost Own.Example # broker
::1 localhost
192.0.2.8 own.example.org\xff

192.0.2.9
gateway own.example
2001:DB8::9 OWN.example
"""

RESOLV_CONF = b"""; \xfc
search own.example
nameserver
nameserver 192.0.2.53
#nameserver 192.0.2.54
nameserver 2001:DB8::53 # \xfc
options nameserver
"""


class File:
    """An open file, in either mode."""

    def __init__(self, data, mode):
        self.lines = data.split(b"\n")
        self.is_text = "b" not in mode

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass

    def __iter__(self):
        for line in self.lines:
            yield str(line, "utf-8") if self.is_text else line


def with_files(ask, *arguments):
    """All that mqttpipe's function of this name answers on a system with these files."""
    needs("resolver")
    use_real_parts()
    files = {"/etc/hosts": HOSTS, "/etc/resolv.conf": RESOLV_CONF}
    wlan, mqttpipe.WLAN = mqttpipe.WLAN, None
    mqttpipe.open = lambda path, mode="r": File(files[path], mode)
    try:
        return list(getattr(mqttpipe, ask)(*arguments))
    finally:
        del mqttpipe.open
        mqttpipe.WLAN = wlan


def test_a_name_is_found_among_lines_that_are_no_text_or_begin_with_no_address():
    found = with_files("hosts", "own.example")
    assert found == ["127.0.0.1", "2001:db8::9"], found
    assert with_files("hosts", "other.example") == []


def test_its_case_and_a_dot_at_its_end_do_not_matter():
    needs("resolver")
    for name in ("OWN.example", "own.example.", "Own.Example."):
        assert with_files("hosts", name) == ["127.0.0.1", "2001:db8::9"], name
    for name in ("localhost", "LocalHost", "localhost."):
        assert with_files("hosts", name)[0] == "127.0.0.1", name


def test_dns_servers_are_found_among_lines_that_are_no_text():
    found = with_files("dns_servers")
    assert found == ["192.0.2.53", "2001:db8::53"], found


def test_without_files_nothing_is_known_but_localhost():
    needs("resolver")
    use_real_parts()

    def fail(path, mode="r"):
        raise OSError(2, "by the test")

    mqttpipe.open = fail
    try:
        assert list(mqttpipe.hosts("own.example")) == []
        assert list(mqttpipe.hosts("Localhost")) == ["127.0.0.1"]
    finally:
        del mqttpipe.open


class LongFile(File):
    """Lists of blocked hosts have 100,000 lines; it counts those that were read."""

    LINES = 1_000
    LAST = b"192.0.2.9 own.example"
    count = 0

    def __init__(self):
        pass

    def __iter__(self):
        for i in range(self.LINES):
            LongFile.count += 1
            yield self.LAST if i == self.LINES - 1 else b"0.0.0.0 blocked.example"


def test_the_time_that_a_long_list_of_hosts_takes_is_not_the_servers():
    """A program that calls step() ten times a second read 6,400 lines, and timed out each time."""
    needs("resolver")
    use_real_parts()
    hosts = mqttpipe.hosts
    bench = Bench(uri="mqtt://own.example", connect_timeout_ms=1000)
    mqttpipe.hosts = hosts
    mqttpipe.open = lambda path, mode: LongFile()
    try:
        bench.client.connect()
        while bench.client.state_name in ("DOWN", "RESOLVING"):
            bench.client.step()
            bench.clock.advance(100)
        bench.steps()
        bench.exchange(CONNACK)
        assert bench.client.is_online(), bench.take_events()
    finally:
        del mqttpipe.open


def test_a_long_list_of_hosts_is_read_in_many_steps():
    needs("resolver")
    use_real_parts()
    hosts = mqttpipe.hosts
    bench = Bench(uri="mqtt://own.example")
    client = bench.client
    mqttpipe.hosts = hosts
    mqttpipe.open = lambda path, mode: LongFile()
    LongFile.count = 0
    try:
        client.connect()
        while client.state_name in ("DOWN", "RESOLVING"):
            before = LongFile.count
            assert client.step() and LongFile.count - before <= 64, LongFile.count - before
            bench.clock.advance(1)
        assert LongFile.count == LongFile.LINES
        assert bench.server.address[0] == "192.0.2.9"
        client.disconnect()
        bench.steps()
        client.connect()
        for _ in range(3):
            client.step()
        client.disconnect()  # in the middle of the file
        bench.steps()
        assert client.state_name == "DOWN"
    finally:
        del mqttpipe.open
