"""One run: clients, each with a proxy before one mosquitto, observers behind it, and faults."""

import contextlib
import functools
import math
import time
import types

import chaos_books
import chaos_schedule
import ends
from chaos_shared import payload_of
from traffic import IN, OUT

import dns_server
import servers
from certificates import DAY_S
from proxy import DOWN, RST, UP, Proxy, Shape

NAME = "broker.test"
PERSISTENT, CLEAN = "persistent", "clean"
SESSIONS = (PERSISTENT, CLEAN)

CONFIGURATION = """\
persistence true
persistence_location {data}
set_tcp_nodelay true
listener %d 127.0.0.1
"""

OPTIONS = {
    "keep_alive_s": 3,
    "connect_timeout_ms": 2500,
    "reconnect_min_ms": 20,
    "reconnect_max_ms": 300,
}
# The board's time goes slower than the broker's when this machine has much to do: with a short
# keep alive the broker would close connections that are well. Dead ones are noticed by a PUBACK
# that does not come.
BOARD_OPTIONS = {**OPTIONS, "keep_alive_s": 120, "connect_timeout_ms": 5000}

EXPIRY_S = 24 * 3600  # of a session, with MQTT 5.0: longer than any run

BATCH_EVERY_S = 0.3
BATCH = 5  # messages of each QoS that an observer publishes in one go
AHEAD_MAX = 60  # messages that may wait in the broker for a client
LAST_BATCH = 10
SAMPLE_EVERY_S = 60
FIRST_SAMPLE = 0.25  # of the whole: before, caches fill
GROWTH_MAX = 2048  # bytes of heap: some hundred is what a collection leaves by chance

# The emulated board is several times slower than itself on a machine that has much to do.
ONLINE_TIMEOUT_S = 120
SETTLE_TIMEOUT_S = 240
# Of a short run, and of one on the board: what is lost is told before whoever started it gives up.
SHORT_SETTLE_TIMEOUTS_S = (30, 60)
SUBSCRIBED_TIMEOUT_S = 120
WHY_TIMEOUT_S = 20
PEER_SETTLE_S = 20  # what has not come by then is lost
WATCHDOG_S = 30  # a peer that says nothing for so long is started anew, as a board would be

DNS_ANSWERS = {
    "no such name": (dns_server.no_such_name,),
    "failure": (dns_server.failure,),
    "silence": (),
    "junk": (dns_server.junk,),
}


class Failed(Exception):
    """The run could not be brought to its end."""


def name_answer(address):
    """Return what answers a query with this address, for a second."""
    record = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x01\x00\x04"
    record += bytes(map(int, address.split(".")))
    return lambda query: dns_server.answer(query, record, 1)


class Link:
    """One client as it is seen from here: its proxy, its observer, the books about both.

    The observer is paho-mqtt, at the broker's other port. What is between them only reads along.
    """

    def __init__(self, number, session, broker, observers_port, run):
        self.number = number
        self.session = session
        self.run = run
        self.topic = "chaos/%d" % number
        self.books = {(way, qos): chaos_books.Book() for way in (OUT, IN) for qos in range(3)}
        self.ours = chaos_books.Reader(self.topic, run.protocol)
        self.theirs = chaos_books.Reader(self.topic, run.protocol)
        self.books[OUT, 2].repeated = self.theirs.repeated[DOWN]
        self.books[IN, 2].repeated = self.ours.repeated[DOWN]
        self.is_encrypted = broker.uri.startswith("mqtts:")
        on_bytes = None if self.is_encrypted else self.ours.on_bytes
        self.proxy = Proxy(broker.host, broker.port, on_bytes=on_bytes)
        self.observers_proxy = Proxy(broker.host, observers_port, on_bytes=self.theirs.on_bytes)
        self.accepted = [0, 0, 0]
        self.connections = 0
        self.longest_us, self.longest_state, self.longest_tls_us = 0, "", 0
        self.toggles = 0
        self.is_ended = False
        self.toggle_number = self.off_number = (
            0  # of the toggle's messages: the last, and at UNSUBACK
        )
        # The numbers up to which nothing is owed to a clean session: all, while there are faults.
        self.not_owed = [math.inf] * 3
        self.unsubscribed_since = None
        self.observer = ends.Peer(
            self.observers_proxy.uri,
            client_id="observer-%d" % number,
            on_message=self.on_message,
            protocol=run.protocol,
        )

    def close(self):
        with contextlib.suppress(Exception):
            self.observer.disconnect()
        self.proxy.close()
        self.observers_proxy.close()

    # -- the observer ------------------------------------------------------------

    def connect_observer(self):
        self.observer.connect()
        self.observer.subscribe(self.topic + "/out/#", self.topic + "/end")

    def on_message(self, message):
        if message.topic_name == self.topic + "/end":
            self.is_ended = True
            return
        qos = int(message.topic_name[-1])
        number = message.payload.partition(b" ")[0]
        book = self.books[OUT, qos]
        is_whole = number.isdigit() and message.payload == payload_of(int(number))
        if not is_whole or message.qos != qos:
            book.broken.append(message.payload[:20])
            return
        book.grow(int(number))
        book.enter(int(number))

    def publish(self, count=BATCH):
        """Have the observer publish some messages, unless too many are on their way."""
        messages = []
        for qos in range(self.run.qos_max + 1):
            book = self.books[IN, qos]
            is_behind = book.sent - book.different - book.lost_by_broker > AHEAD_MAX
            if qos and self.session == PERSISTENT and is_behind:
                continue
            for number in range(book.sent + 1, book.sent + count + 1):
                topic_name = "%s/in/%d" % (self.topic, qos)
                messages.append((topic_name, payload_of(number), qos))
            book.grow(book.sent + count)
        self.toggle_number += 1
        messages.append((self.topic + "/toggle", b"%d" % self.toggle_number, 1))
        self.observer.publish_all(messages, ONLINE_TIMEOUT_S)

    # -- the broker has been killed ----------------------------------------------

    def charge_broker(self):
        """The broker is back, without its memory; the observer has subscribed again."""
        for qos in (1, 2):
            self.books[OUT, qos].charge_broker(self.ours.acknowledged[qos])
        for qos in range(3):
            book = self.books[IN, qos]
            book.charge_broker(set(range(1, book.sent + 1)) - self.ours.taken[qos])
        self.ours.start_anew()
        self.theirs.start_anew()
        self.unsubscribed_since = time.monotonic()

    def is_subscribed(self):
        """False while nothing is owed to the client: the broker does not know its filters yet."""
        if self.unsubscribed_since is None:
            return True
        wanted = {"%s/in/%d" % (self.topic, qos) for qos in range(self.run.qos_max + 1)}
        if wanted <= self.ours.filters:
            self.unsubscribed_since = None
        elif time.monotonic() - self.unsubscribed_since > SUBSCRIBED_TIMEOUT_S:
            raise Failed(
                "client %d does not subscribe again\n%s" % (self.number, self.run.story())
            )
        return self.unsubscribed_since is None

    # -- what is said at the end -------------------------------------------------

    def wrongs(self):
        """Yield what breaks a promise."""
        is_kept = self.session == PERSISTENT
        for (way, qos), book in self.books.items():
            case = "%s session, %s, QoS %d: " % (self.session, way, qos)
            if book.broken:
                yield case + "broken: %r" % book.broken[:3]
            if qos == 0 and book.duplicated:
                yield case + "came twice: %r" % book
            if qos and (is_kept or way == OUT) and book.lost:
                yield case + "lost: %r" % book
            if qos and way == IN and not is_kept:
                late = [n for n in book.lost_numbers() if n > self.not_owed[qos]]
                if late:
                    yield case + "lost with nothing in its way: %r" % late
            if book.late:
                yield case + "out of order: %r" % book
            is_excused = self.is_encrypted and way == IN and self.proxy.cuts
            # Without a session the broker sends nothing again.
            is_once = is_kept or way == IN
            if qos == 2 and is_once and book.unexcused and not is_excused:
                yield case + "came twice: %r" % book
        again = set(self.ours.repeated[UP]) - self.books[OUT, 2].anew
        if is_kept and again:
            yield "PUBLISH after PUBREL: %r" % sorted(again)[:10]

    def as_dict(self):
        return {
            "session": self.session,
            "connections": self.connections,
            "cuts": self.proxy.cuts,
            "longest_us": self.longest_us,
            "longest_state": self.longest_state,
            "longest_tls_us": self.longest_tls_us,
            "by_alias": self.ours.by_alias[UP],
            "toggles": self.toggles,
            "books": [
                {"way": way, "qos": qos, **book.as_dict()}
                for (way, qos), book in self.books.items()
            ],
        }


class Run:
    """A leg: some clients of ours, through a schedule of faults.

    Args:
        start: start(config, on_event) -> what chaos_ends.py has; the client's end.
        host: as whom the client's end knows this machine.
        faults: of chaos_schedule.draw(). made: certificates.Certificates, for TLS, or None.
        board: the Board, whose cable may be pulled, or None.
        say: say(text) tells how it goes.
        qos_max: the highest QoS that the client can do. is_checked: False: only figures.
        settle_timeout_s: for so long what is owed may take to come.
        protocol: 4 or 5, of all clients.
    """

    def __init__(
        self,
        start,
        faults,
        say,
        host="127.0.0.1",
        made=None,
        board=None,
        sessions=SESSIONS,
        every_ms=20,
        options=OPTIONS,
        qos_max=2,
        is_checked=True,
        protocol=4,
        settle_timeout_s=SETTLE_TIMEOUT_S,
    ):
        self.faults = faults
        self.say = say
        self.qos_max = qos_max
        self.protocol = protocol
        self.is_checked = is_checked
        self._settle_timeout_s = settle_timeout_s if is_checked else PEER_SETTLE_S
        self._host = host
        self._made = made
        self._board = board
        self._wrongs = []
        self._samples = []
        self._last_words = []
        self._resets = 0
        self._heard_at = time.monotonic()
        self._is_broker_up = True
        self._stack = contextlib.ExitStack()
        self.client = None
        try:
            self._open(start, sessions, every_ms, options)
        except BaseException:
            self._stack.close()
            raise

    def _open(self, start, sessions, every_ms, options):
        observers_port = servers.free_port()
        extra = ends.NO_WINDOW + "\n" + CONFIGURATION % observers_port
        tls = servers.Tls(self._issue()) if self._made else None
        self.broker = self._stack.enter_context(
            servers.choose("mosquitto").another(extra, tls=tls)
        )
        self._right_answer = (name_answer(self._host),)
        self.names = dns_server.NameServer([], self._right_answer)
        self._stack.callback(self.names.close)
        self.links = []
        for number, session in enumerate(sessions):
            link = Link(number, session, self.broker, observers_port, self)
            self._stack.callback(link.close)
            self.links.append(link)
            link.connect_observer()
        scheme = "mqtts" if self._made else "mqtt"
        config = {
            "every_ms": every_ms,
            "host": self._host,
            "dns": [self._host, self.names.port],
            "ca": self._made.ca.cert_pem.decode() if self._made else None,
            "clients": [
                {
                    "uri": "%s://%s:%d" % (scheme, NAME, link.proxy.port),
                    "port": link.proxy.port,
                    "topic": link.topic,
                    "options": {
                        **options,
                        "client_id": "chaos-%d" % link.number,
                        "clean_session": link.session == CLEAN,
                        **(self._options_5(link.session) if self.protocol == 5 else {}),
                    },
                }
                for link in self.links
            ],
        }
        self._config = config
        self._start = functools.partial(start, config, self.on_event)
        self.client = self._start()
        self._stack.callback(lambda: self.client.close())

    def _options_5(self, session):
        return {"protocol": 5, "session_expiry_s": EXPIRY_S if session == PERSISTENT else 0}

    def _issue(self, how=None):
        if how == "expired":
            return self._made.ca.issue(NAME, begins_s=-2 * DAY_S, ends_s=-DAY_S)
        if how == "of a stranger":
            return self._made.other_ca.issue(NAME)
        return self._made.ca.issue("other.test" if how else NAME)

    def close(self):
        self._stack.close()

    def story(self):
        log = "\n".join(self.links[0].proxy.log().splitlines()[-ends.SHOWN :])
        return "%s\nproxy:\n%s" % (self.client.story(), log)

    # -- events ------------------------------------------------------------------

    # True: dealt with here, not to be kept.
    def on_event(self, event):
        name, number = event[:2]
        self._heard_at = time.monotonic()
        if name == "in":
            link = self.links[number]
            for each in event[3]:
                link.books[IN, event[2]].enter(each)
            return True
        if name == "count":
            link = self.links[number]
            link.accepted = event[2]
            longest_us, link.longest_state, link.longest_tls_us = event[3]
            link.longest_us = max(link.longest_us, longest_us)
            link.toggles = event[4]
            return True
        if name == "online":
            self.links[number].connections = event[2]
        elif name == "off":
            self.links[number].off_number = self.links[number].toggle_number
            return True
        elif name == "stray":
            if event[2] > self.links[number].off_number:
                self._wrongs.append("client %d: a message published after UNSUBACK" % number)
            return True
        elif name == "wrong":
            text = "client %d: %s" % (number, event[2])
            if text not in self._wrongs:
                self._wrongs.append(text)
                self.say("WRONG: %s" % event[2])
        return False

    # -- the course of it --------------------------------------------------------

    def run(self):
        """Run it to its end; return its figures as a dict."""
        begin = time.monotonic()
        try:
            self._wait(lambda: all(link.connections for link in self.links), "never online")
            self._pass_time(1)
            self._run_faults()
            self._settle()
        except (AssertionError, Failed, OSError, servers.BrokerError) as error:
            self._wrongs.append(str(error))
        if self.is_checked:
            self._wrongs += ["a step of " + text for text in self.client.slow_steps()]
            for link in self.links:
                self._wrongs += link.wrongs()
            self._wrongs += self._growth()
        return {
            "seconds": round(time.monotonic() - begin),
            "faults": self._count_faults(),
            "samples": self._samples,
            "last_words": self._last_words,
            "resets": self._resets,
            "links": [link.as_dict() for link in self.links],
            "wrong": self._wrongs,
        }

    def _run_faults(self):
        seconds = sum(fault.pause_s + fault.duration_s for fault in self.faults)
        passed = 0
        sample_at = FIRST_SAMPLE * seconds
        for number, fault in enumerate(self.faults):
            self._pass_time(fault.pause_s)
            self.say("%d of %d: %r" % (number + 1, len(self.faults), fault))
            self._begin(fault)
            self._pass_time(fault.duration_s)
            self._end(fault)
            passed += fault.pause_s + fault.duration_s
            if self.is_checked and passed > sample_at:
                sample_at += SAMPLE_EVERY_S
                self._sample()
                self.client.tell("go")

    def _wait(self, condition, what, timeout_s=ONLINE_TIMEOUT_S):
        self.client.wait_until(condition, what, timeout_s)

    def _pass_time(self, seconds):
        """Let the observers publish for so long."""
        deadline = time.monotonic() + seconds
        while True:
            if not self.is_checked:
                self._watch_peer()
            elif self.client.is_over():
                raise Failed("the client has ended\n" + self.client.story())
            if self._is_broker_up:
                for link in self.links:
                    if link.is_subscribed():
                        link.publish()
            left = deadline - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, BATCH_EVERY_S))

    def _watch_peer(self):
        """Reset a peer that hangs or has ended, as a board's watchdog does."""
        silence_s = time.monotonic() - self._heard_at
        if silence_s < WATCHDOG_S and not self.client.is_over():
            return
        (link,) = self.links
        self.client.close()
        self._resets += 1
        link.longest_us = max(link.longest_us, round(1e6 * silence_s))
        self._config["accepted"] = [
            max(link.accepted[qos], link.books[OUT, qos].sent) for qos in range(3)
        ]
        self.client = self._start()
        self._heard_at = time.monotonic()

    def _sample(self):
        """Wait until all tokens have ended, and see how much the client holds."""
        self.client.tell("quiet")
        deadline = time.monotonic() + self._settle_timeout_s
        try:
            while time.monotonic() < deadline and not self.client.count("quiet"):
                self._pass_time(BATCH_EVERY_S)
            self._samples.append(self.client.next("quiet", 0))
        except AssertionError as error:
            if self.client.is_over():
                raise
            self.client.tell("why")
            for _ in self.links:
                number, state_name, tokens = self.client.next("why", WHY_TIMEOUT_S)
                if tokens or state_name != "ONLINE":
                    why = "client %d does not come to rest: %s, without an end: tokens %r"
                    self._wrongs.append(why % (number, state_name, tokens))
            raise Failed(str(error))

    def _settle(self):
        """No more faults: all that is owed must come, and the clients must end in good order."""
        if self.is_checked:
            self._wait_subscribed()
            self._sample()
        else:
            self.client.tell("quiet")
        for link in self.links:
            link.not_owed = [link.books[IN, qos].sent for qos in range(3)]
            link.publish(LAST_BATCH)
        bearable = [] if self.is_checked else [AssertionError]
        with contextlib.suppress(*bearable):
            self._wait(self._has_all_in, "messages are missing", self._settle_timeout_s)
        self.client.tell("finish")
        try:
            (self._last_words,) = self.client.next("bye", self._settle_timeout_s)
        except AssertionError:
            if self.is_checked:
                raise
            (link,) = self.links  # the call that it is in counts, too
            link.longest_us = max(
                link.longest_us, round(1e6 * (time.monotonic() - self._heard_at))
            )
            self._wrongs.append("it hangs at the end")
        for link in self.links:
            for qos in range(3):
                book = link.books[OUT, qos]
                if book.sent > link.accepted[qos] and self.is_checked:
                    self._wrongs.append("QoS %d: more came than was accepted" % qos)
                book.grow(link.accepted[qos])
            link.observer.publish(link.topic + "/end", b"", 2)
            link.observer.wait_until(
                lambda link=link: link.is_ended, "the last message is missing"
            )

    def _wait_subscribed(self):
        deadline = time.monotonic() + SUBSCRIBED_TIMEOUT_S
        while not all(link.is_subscribed() for link in self.links):
            if time.monotonic() > deadline:
                raise Failed("not subscribed again\n" + self.story())
            time.sleep(0.05)

    def _has_all_in(self):
        for link in self.links:
            for qos in range(1, self.qos_max + 1):
                floor = 0 if link.session == PERSISTENT else link.not_owed[qos]
                lost = link.books[IN, qos].lost_numbers()
                if lost and lost[-1] > floor:
                    return False
        return True

    def _growth(self):
        heaps = [heap for heap, _ in self._samples]
        files = [count for _, count in self._samples]
        if heaps and heaps[-1] > heaps[0] + GROWTH_MAX:
            yield "the heap has grown: %r" % heaps
        if files and files[-1] > files[0]:
            yield "files were left open: %r" % files

    def _count_faults(self):
        names = [fault.name for fault in self.faults]
        return {name: names.count(name) for name in sorted(set(names))}

    # -- faults ------------------------------------------------------------------

    def _begin(self, fault):
        details = types.SimpleNamespace(**fault.details)
        for link in self.links:
            proxy = link.proxy
            if fault.name == "cut":
                proxy.cut(details.how)
            elif fault.name == "cuts at bytes":
                proxy.plan(details.cuts[link.number])
                proxy.cut(RST)
            elif fault.name == "half close":
                proxy.half_close(details.direction)
            elif fault.name == "stall":
                proxy.stall()
            elif fault.name == "swallow":
                proxy.swallow()
            elif fault.name in ("delay", "throttle", "split"):
                proxy.shape(details.shape)
            elif fault.name == "refuse":
                proxy.refuse()
                proxy.cut(RST)
        if fault.name == "broker restarted":
            self._stop_broker()
        elif fault.name == "broker frozen":
            self._is_broker_up = False
            self.broker.pause()
        elif fault.name == "broker killed":
            self._stop_broker(kills=True)
        elif fault.name == "certificate renewed":
            self._stop_broker()
            self.broker.use(servers.Tls(self._issue(details.how)))
            self._start_broker()
        elif fault.name == "DNS fails":
            self.names.then = DNS_ANSWERS[details.how]
            self._cut_all(RST)
        elif fault.name == "Wi-Fi down":
            self.client.tell("link", False)
            self._cut_all(details.how)
        elif fault.name == "cable out":
            self._board.pull_cable()

    def _end(self, fault):
        for link in self.links:
            if fault.details.get("cut"):
                link.proxy.cut(fault.details["cut"])
            link.proxy.plan([])
            link.proxy.shape(Shape())
            if fault.name != "broker killed":
                link.proxy.resume()
        if fault.name == "broker restarted":
            self._start_broker()
        elif fault.name == "broker frozen":
            self.broker.go_on()
            self._is_broker_up = True
        elif fault.name == "broker killed":
            self.broker.forget()
            self._start_broker()
            self.client.tell("held")  # it is offline: what it holds does not change
            for _ in self.links:
                number, held = self.client.next("held", ONLINE_TIMEOUT_S)
                self.links[number].books[OUT, 2].anew.update(held)
            for link in self.links:
                link.charge_broker()
                link.proxy.resume()
        elif fault.name == "certificate renewed":
            self._stop_broker()
            self.broker.use(servers.Tls(self._issue()))
            self._start_broker()
        elif fault.name == "DNS fails":
            self.names.then = self._right_answer
        elif fault.name == "Wi-Fi down":
            self.client.tell("link", True)
        elif fault.name == "cable out":
            self._board.plug_cable()

    def _cut_all(self, how):
        for link in self.links:
            link.proxy.cut(how)

    # What is tested is how our client takes it: the observers are away meanwhile.
    def _stop_broker(self, kills=False):
        self._is_broker_up = False
        for link in self.links:
            if kills:  # and nobody gets in before the observers do
                link.proxy.refuse()
            link.observer.disconnect()
        if kills:
            self.broker.kill()
        else:
            self.broker.stop()

    def _start_broker(self):
        self.broker.start()
        for link in self.links:
            link.connect_observer()
        self._is_broker_up = True


def kinds_of(made, board, is_compared=False):
    """Return the faults that a run has."""
    kinds = {**chaos_schedule.PROXY, **chaos_schedule.BROKER}
    if not is_compared:
        kinds.update(chaos_schedule.NETWORK)
        kinds.update(chaos_schedule.TLS if made else chaos_schedule.FORGETFUL)
    if board:
        kinds.update(chaos_schedule.CABLE)
    return kinds
