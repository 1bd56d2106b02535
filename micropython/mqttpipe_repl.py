"""MQTT by hand: commands for the REPL of a board, of MicroPython's unix port and of CPython.

    >>> from mqttpipe_repl import *
    >>> mqtt_start("mqtt://broker.example")     or mqtt_start(), with the board's secrets.py
    >>> mqtt_subscribe("lamp/+")
    >>> mqtt_publish("lamp/hall", "on")         mqtt_publish("on"): to a topic of its own
    >>> mqtt_status()
    >>> mqtt_test("start")                      the stability test; mqtt_test("stop")
    >>> mqtt_stop()

A second file beside mqttpipe.py, for those who want it; no program needs it.

How a message comes onto the screen while somebody types
--------------------------------------------------------
The client runs in the background (`client.start()`), so a message may come at any time, in the
middle of a line. That line can not be printed again after it, because nobody gives it to us:

    MicroPython   it is in a C structure (shared/readline/readline.c: `static readline_t rl`)
    CPython       with readline it is in that library, and get_line_buffer() reads it while
                  another thread may change it; without readline it is in the kernel; since 3.13
                  it is in a private module

But it is on the screen, and there it can be moved. `_ABOVE` has the terminal move the whole line
down by one row and put the message where it was; the cursor goes along with it. So neither the
line nor the place in it is lost, whoever holds it. MicroPython's own REPL takes an ANSI terminal
for granted (ESC [K in readline.c), and so does this. One thing is not as it should be: a line
that is longer than the screen is wide is cut in two by the message. It is still whole to who
reads it. Output that is no terminal gets plain lines.

What drives it, and where messages are printed
----------------------------------------------
`client.start()` chooses (the portability block of mqttpipe.py); paths are in MicroPython's source:

    rp2      a timer: a second thread would run on the other core, without a lock between the two
             (ports/rp2/mpthreadport.c). The prompt runs what is scheduled while it waits for a key
             (mp_hal_stdin_rx_chr() in ports/rp2/mphalport.c waits in mp_event_wait_indefinite()).
    ESP32    a thread: the prompt lets go of the interpreter while it waits (mp_hal_stdin_rx_chr()
             in ports/esp32/mphalport.c runs MICROPY_EVENT_POLL_HOOK, which does). What is longer
             than 20 bytes is written without the interpreter's lock (mp_hal_stdout_tx_strn()), so
             a key echoed at just that moment may land in the message. It is in the line all the
             same.
    unix     a thread: the prompt's read() lets go of the interpreter (ports/unix/mphalport.h).
    CPython  a thread.
"""

import gc as _gc
import sys as _sys

import mqttpipe as _mqttpipe
from mqttpipe import LocalError as _LocalError
from mqttpipe import MQTTClient as _MQTTClient
from mqttpipe import MQTTError as _MQTTError
from mqttpipe import QueueFull as _QueueFull
from mqttpipe import parse_uri as _parse_uri
from mqttpipe import sleep_ms as _sleep_ms
from mqttpipe import ticks_add as _ticks_add
from mqttpipe import ticks_diff as _ticks_diff
from mqttpipe import ticks_ms as _ticks_ms

try:
    from time import ticks_us as _ticks_us

    from micropython import const as _const
except ImportError:  # CPython
    from shim_micropython import const as _const
    from shim_time import ticks_us as _ticks_us

# MicroPython before 1.26 does not look at it: `import *` then takes all names without underscore.
__all__ = (
    "mqtt_start",
    "mqtt_stop",
    "mqtt_publish",
    "mqtt_subscribe",
    "mqtt_unsubscribe",
    "mqtt_status",
    "mqtt_test",
)

_WAIT_MS = _const(10_000)  # for the server's answer to a command; it goes on after that
_WIFI_MS = _const(20_000)  # more than that for a Wi-Fi that has to be joined first
_PATIENCE_MS = _const(1_000)  # longer than this, and a person is told what is waited for
_NAP_MS = _const(20)
_LAST_MS = _const(3_000)  # for the last messages of the stability test to come back

# What is shown of a payload, and how many messages in a second: at 115,200 baud a serial REPL
# takes 11 KB/s, and the client stands still while it prints.
_SHOWN_BYTES = _const(200)
_SHOWN_PER_S = _const(20)

# Rows of the screen: no board knows how wide it is.
_COLUMNS = _const(80)

_client = None
_link = None  # the Wi-Fi of the last mqtt_start(): nobody else would join it again
_own_id = None  # the client identifier of all that mqtt_start() makes without one
_uris = ()
# Topic filter: (token, the QoS that the server has granted to who waited for it, or None).
_filters = {}
# What the server has answered to the last subscription, (token, granted), and whether an
# mqtt_subscribe() waits for it. Two threads look at these, so they are not in a dict: without a
# lock around the interpreter, as in the unix port, that might be caught while it grows.
_answer = (0, b"")
_is_asking = False
_refused_token = 0  # of the last call that the server has refused (MQTT 5.0)
_last_error = None  # of the connection
_connections = 0
_online_ms = 0  # ticks_ms() of the last on_online
_test = None
_ansi = None  # is the output a terminal? None: not looked at yet


# ---------------------------------------------------------------------------
# The screen
# ---------------------------------------------------------------------------
# ESC D    the cursor one row down; at the foot of the screen all moves up by one row instead
# ESC [A   and back: now there is a row below the line that is being typed
# ESC 7    remember the place; \r: to the begin of the row
# ESC [L   this row and all below move down, an empty one takes the place
# ESC 8    back to the place, and one down: there the line is now
#
# One write for all of it, so that nothing else comes in between.
def _above(text):
    return "\x1bD\x1b[A\x1b7\r\x1b[L" + text + "\x1b8\x1b[B"


def _is_terminal():
    stdout = _sys.stdout
    try:
        from os import getenv
    except ImportError:  # a board: what else should be at the other end?
        return True
    if getenv("TERM") in (None, "", "dumb"):
        return False
    if hasattr(stdout, "isatty"):
        return stdout.isatty()
    from os import system  # the unix port

    return system("test -t 1") == 0


def _columns():
    try:
        from os import get_terminal_size

        return get_terminal_size().columns or _COLUMNS
    except (ImportError, OSError):
        return _COLUMNS


def _tell(text):
    """Print a line that nobody has asked for just now, above the one that is being typed."""
    global _ansi
    if _ansi is None:
        _ansi = _is_terminal()
    if not _ansi:
        print(text)
        return
    # A character of the Far East takes two places.
    width = _columns() // (2 if max(text) >= "\u1100" else 1) - 1
    rows = [_above(text[at : at + width]) for at in range(0, len(text), width)]
    _sys.stdout.write("".join(rows))
    if hasattr(_sys.stdout, "flush"):
        _sys.stdout.flush()


def _shown(data):
    """Return bytes as text that does nothing to the terminal."""
    is_cut = len(data) > _SHOWN_BYTES
    start = bytes(data[:_SHOWN_BYTES])
    text = None
    for left_out in range(4 if is_cut else 1):  # a character may have been cut in two
        try:
            text = str(start[: len(start) - left_out], "utf-8")
            break
        except UnicodeError:
            pass
    if text is None or any(map(_is_harmful, text)):
        text = repr(start)
    return "%s... (%d bytes)" % (text, len(data)) if is_cut else text


def _is_harmful(one):
    """Is it a control character, or one that ends a line or turns the direction of writing?"""
    if one < "\xa0":  # below the blank, DEL, and the ones between DEL and no-break space
        return not " " <= one < "\x7f"
    return (
        "\u2028" <= one <= "\u202e"
        or "\u2066" <= one <= "\u2069"
        or one in "\u061c\u200e\u200f\ufeff"
    )


# A topic that is bytes is the same as text. What is no topic at all is refused later.
def _text(topic):
    try:
        return topic if isinstance(topic, str) else str(topic, "utf-8")
    except (TypeError, ValueError):
        return repr(topic)


def _error_text(error):
    """The text of an error, which may name what a server or a driver has sent."""
    text = str(error)
    return repr(text.encode()) if any(map(_is_harmful, text)) else text


def _age(since_ms):
    seconds = _ticks_diff(_ticks_ms(), since_ms) // 1000
    if seconds < 120:
        return "%d s" % seconds
    return "%d h %d min" % (seconds // 3600, seconds // 60 % 60)


# ---------------------------------------------------------------------------
# What the client tells, in the background
# ---------------------------------------------------------------------------

_second_ms = 0  # ticks_ms() of the begin of this second
_in_second = 0  # messages shown in it
_unshown = 0  # since the last one that was shown


def _on_message(client, message):
    global _second_ms, _in_second, _unshown
    now_ms = _ticks_ms()
    if not 0 <= _ticks_diff(now_ms, _second_ms) < 1000:
        _second_ms = now_ms
        _in_second = 0
    if _in_second >= _SHOWN_PER_S:
        _unshown += 1
        return
    _in_second += 1
    if _unshown:
        _tell("<- (%d more came too fast to be shown)" % _unshown)
        _unshown = 0
    mark = " (retained)" if message.retain else ""
    topic_name = _shown(message.topic_name.encode())
    _tell("<- %s: %s%s" % (topic_name, _shown(message.view), mark))


def _on_online(client):
    global _connections, _last_error, _online_ms
    _online_ms = _ticks_ms()
    _connections += 1
    if _connections > 1 or _last_error is not None:
        _tell("mqtt: online")
    _last_error = None


def _on_offline(client, error):
    global _last_error
    if error is None:
        return  # asked for
    # The same again and again, as attempts go on: once is enough.
    if _last_error is None or str(error) != str(_last_error):
        _tell("mqtt: offline: %s" % _error_text(error))
    _last_error = error


def _on_error(client, error):
    global _refused_token
    _refused_token = getattr(error, "token", _refused_token)
    _tell("mqtt: %s: %s" % (type(error).__name__, _error_text(error)))


def _on_subscribed(client, token, granted):
    global _answer
    _answer = (token, granted)
    if granted[0] > 2 and not _is_asking:
        _tell("mqtt: the server refuses a subscription")


# ---------------------------------------------------------------------------
# The commands
# ---------------------------------------------------------------------------
# They print what came of it and return nothing: at a prompt a value would be printed, too. What
# may be wrong with arguments is printed as one line, not as a traceback.


def _started():
    if _client is None:
        print("not started: mqtt_start(uri)")
    return _client


def _why_offline():
    if _last_error is not None:
        return "offline, %s" % _error_text(_last_error)
    return "offline (%s)" % _client.state_name


# Wait for a token, if that has a point now. True: done. False: that was told.
def _is_done(token, what):
    begin_ms = _ticks_ms()
    if not _client.is_online():
        print("%s: waits, as it is %s" % (what, _why_offline()))
        return False
    if _client.wait_for(token, _WAIT_MS):
        if token == _refused_token:  # on_error has told why
            print("%s: refused" % what)
            return False
        print("%s: done after %d ms" % (what, _ticks_diff(_ticks_ms(), begin_ms)))
        return True
    print("%s: no answer within %d s; it goes on in the background" % (what, _WAIT_MS // 1000))
    return False


def _read_secrets():
    try:
        import secrets
    except ImportError:
        return None
    return secrets if hasattr(secrets, "SERVER") else None  # CPython has another of that name


class _Link:
    """The Wi-Fi of boards/, driven by the client's own question whether it is up."""

    def __init__(self, wifi):
        self._wifi = wifi

    # A link that stands (main.py has made it, and was stopped) is left alone until it breaks: the
    # driver of a Pico W does not join again.
    def is_up(self):
        wifi = self._wifi
        if wifi.state_name == "OFF":
            if _is_joined():
                return True
            wifi.start()
        wifi.step()
        return wifi.is_up()

    def dns_servers(self):
        wifi = self._wifi if self._wifi.state_name != "OFF" else _mqttpipe
        return wifi.dns_servers()


def _is_joined():
    return _mqttpipe.WLAN(_mqttpipe.STA_IF).isconnected()


def _find_link(secrets):
    global _link
    if _link or _mqttpipe.WLAN is None:
        return _link
    is_joined = _is_joined()
    try:
        from wifi import Wifi

        wifi = Wifi(
            secrets.WIFI,
            address=getattr(secrets, "ADDRESS", None),
            country=getattr(secrets, "COUNTRY", None),
            hostname=getattr(secrets, "NAME", None),
            ntp=getattr(secrets, "NTP", ()),
        )
    except Exception as error:
        if is_joined:
            return None  # it does without
        if not isinstance(error, (ImportError, AttributeError)):
            raise
        print("the Wi-Fi is not connected, and there is no wifi.py with a secrets.py to do that")
        return None
    wifi.on_up = lambda wifi: _tell("wifi: up")
    wifi.on_down = lambda wifi, reason: _tell("wifi: down: %s" % _error_text(reason))
    _link = _Link(wifi)
    if not is_joined:
        wifi.start()
        print("joining the Wi-Fi")
    return _link


def mqtt_start(uri=None, **options):
    """Connect, and stay connected in the background until mqtt_stop().

    Args:
        uri: as for MQTTClient. None: SERVER of the board's secrets.py, with CLIENT_ID, USER,
            PASSWORD, CA, CERT, KEY and TLS, which boards/secrets_example.py explains.
        options: further arguments of MQTTClient, such as protocol=5. Without link=, a Wi-Fi that
            is not connected is joined with wifi.py and secrets.py, if the board has them.

    Blocks: until it is online, 10 s at most (30 s if the Wi-Fi has to be joined first).
    """
    global _client, _own_id, _uris, _connections, _last_error, _refused_token, _ansi
    if _client is not None:
        print("already started: mqtt_status(), or mqtt_stop() first")
        return
    secrets = _read_secrets()
    if uri is None:
        if secrets is None:
            print('mqtt_start("mqtt://host"), or put SERVER = "mqtt://host" into secrets.py')
            return
        uri = secrets.SERVER
        # Of no other server.
        for name in ("CLIENT_ID", "USER", "PASSWORD", "CA", "CERT", "KEY", "TLS"):
            if getattr(secrets, name, None) is not None:
                options.setdefault(name.lower(), getattr(secrets, name))
    _ansi = None
    _connections = 0
    _last_error = None
    _refused_token = 0
    _filters.clear()
    try:
        if "link" not in options:
            options["link"] = _find_link(secrets)
        is_own = options.get("client_id") is None
        if is_own and _own_id:  # the same again: a session belongs to it
            options["client_id"] = _own_id
        client = _MQTTClient(uri, **options)
        if is_own:
            _own_id = client.client_id
        _uris = [_parse_uri(one) for one in (uri if isinstance(uri, (list, tuple)) else (uri,))]
        client.on_message = _on_message
        client.on_online = _on_online
        client.on_offline = _on_offline
        client.on_error = _on_error
        client.on_subscribed = _on_subscribed
        if not hasattr(client, "start"):
            raise _LocalError("this build has no start(): build it --with background")
        print("connecting to %s" % _servers())
        client.start()
    # TypeError: protocol=5, and the build has it not. ValueError: a setting of the Wi-Fi is wrong.
    except (_MQTTError, TypeError, ValueError) as error:
        print("mqtt_start: %s" % _error_text(error))
        return
    _client = client
    begin_ms = _ticks_ms()
    link = options.get("link")
    wait_ms = _WAIT_MS
    if isinstance(link, _Link) and not _is_joined():
        wait_ms += _WIFI_MS
    try:
        is_online = client.wait_online(wait_ms)
    except KeyboardInterrupt:
        is_online = False
    if is_online:
        print("online after %d ms" % _ticks_diff(_ticks_ms(), begin_ms))
    else:
        print("not online yet; it goes on trying. mqtt_status() tells more, mqtt_stop() ends it")


# Without user and password.
def _servers():
    return ", ".join("%s port %d%s" % (one[0], one[1], " (TLS)" * one[4]) for one in _uris)


def mqtt_stop():
    """Send what is queued, disconnect, and end what runs in the background.

    While offline, what is queued is lost: mqtt_start() makes another client.

    Blocks: while that takes, about 20 s at most; Ctrl-C ends the wait, not the stopping.
    """
    global _client
    client = _started()
    if client is None:
        return
    if _test is not None:
        _test.stop()
    if not client.stop(_PATIENCE_MS):
        print("waiting for the server to acknowledge what was sent")
        if not client.stop():
            print("not stopped yet: try again")
            return
    _client = None
    print("stopped")


def mqtt_publish(*topic_and_message, qos=1, retain=False):
    """mqtt_publish([topic,] message): publish, and wait for the server's acknowledgement.

    Args:
        topic: str or bytes; without it, mqttpipe/ and the client identifier.
        message: str or bytes; anything else becomes text, as print() makes it.
        qos, retain: as for publish() of MQTTClient.

    Blocks: 10 s at most; not while offline: then the message waits for the connection.
    """
    client = _started()
    if client is None:
        return
    if not 1 <= len(topic_and_message) <= 2:
        print("mqtt_publish([topic,] message)")
        return
    topic = (
        b"mqttpipe/" + client.client_id if len(topic_and_message) == 1 else topic_and_message[0]
    )
    message = topic_and_message[-1]
    if not isinstance(message, (str, bytes, bytearray, memoryview)):
        message = str(message)
    try:
        token = client.publish(topic, message, qos, retain)
    except _MQTTError as error:
        print("mqtt_publish: %s" % _error_text(error))
        return
    _is_done(token, "-> %s" % _shown(_text(topic).encode()))


def mqtt_subscribe(topic_filter, qos=1):
    """Subscribe; what comes is printed.

    Args:
        topic_filter: str or bytes, may hold + and #. qos: 0, 1 or 2, the highest wanted.

    Blocks: 10 s at most; not while offline: it is done with the connection then.
    """
    global _is_asking
    client = _started()
    if client is None:
        return
    _is_asking = True
    try:
        token = client.subscribe(topic_filter, None, qos)
        name = _text(topic_filter)
        _filters[name] = token, None
        if not _is_done(token, "subscribe %s" % name):
            return
        if client.was_refused(token):
            print("the server refuses it")  # the client asks again with the next connection
        elif _answer[0] == token:
            _filters[name] = token, _answer[1][0]
    except _MQTTError as error:
        print("mqtt_subscribe: %s" % _error_text(error))
    finally:
        _is_asking = False


def mqtt_unsubscribe(topic_filter):
    """Take back a subscription.

    Args:
        topic_filter: as it was given to mqtt_subscribe().

    Blocks: 10 s at most.
    """
    client = _started()
    if client is None:
        return
    name = _text(topic_filter)
    if name not in _filters:
        print("not subscribed: %s" % name)
        return
    try:
        token = client.unsubscribe(topic_filter)
    except _MQTTError as error:
        print("mqtt_unsubscribe: %s" % _error_text(error))
        return
    asked = _filters.pop(name)
    _is_done(token, "unsubscribe %s" % name)
    if token == _refused_token:  # the server still sends what matches it
        _filters[name] = asked


def mqtt_status():
    """Print how the connection is, and what went over it."""
    client = _started()
    if client is None:
        return
    state = client.state_name
    if client.is_online():
        state += " for " + _age(_online_ms)
    elif _last_error is not None:
        state += ", after: %s" % _error_text(_last_error)
    print("state       ", state)
    print("server      ", _servers())
    print("client id   ", _shown(client.client_id))
    print("reconnected ", max(0, _connections - 1), "times")
    names = []
    for topic_filter, (token, qos) in _filters.items():
        if client.was_refused(token):
            words = "refused"
        elif not client.is_done(token):
            words = "not answered"
        else:
            words = "granted" if qos is None else "QoS %d" % qos
        names.append("%s (%s)" % (topic_filter, words))
    print("subscribed  ", ", ".join(sorted(names)) or "nothing")
    if hasattr(client, "stats"):
        stats = client.stats
        print("messages    ", "%d sent, %d received" % (stats["sent"], stats["received"]))
        print(
            "bytes       ", "%d sent, %d received" % (stats["bytes_sent"], stats["bytes_received"])
        )
        print("attempts    ", stats["attempts"])
    if _free_bytes() is not None:
        print("memory      ", "%d bytes free" % _free_bytes())
    if _test is not None:
        print("test         runs: mqtt_test()")


def _free_bytes():
    if not hasattr(_gc, "mem_free"):  # CPython
        return None
    _gc.collect()
    return _gc.mem_free()


# ---------------------------------------------------------------------------
# The stability test
# ---------------------------------------------------------------------------
# It publishes to a topic that it subscribes to: a number, and when it was sent. All that it keeps
# has a fixed size, so that it may run for months:
#
#   window       one byte for each of the last 256 numbers: has it come? When a number's place is
#                needed for a new one, it has been missing for 256 messages: it counts as lost. If
#                it comes after all, it is taken off that again.
#   histogram    how many messages took how long; from 8 us on there are 8 steps in each doubling,
#                so the median is told to within 6 %.
#
# The publisher (a thread; a timer where the client has one) writes `published`, `missed`,
# `refused` and clears places of the window; callbacks, where step() runs, write all the rest and
# set places. So no count has two writers.

_WINDOW = _const(256)
_STEPS = _const(8)
_BUCKETS = _const(8 + 8 * 32)


def _bucket(value):
    exponent = 0
    while value >= 2 * _STEPS:
        value >>= 1
        exponent += 1
    return min(exponent * _STEPS + value, _BUCKETS - 1)


# The middle of what is in a bucket.
def _value(bucket):
    exponent = max(0, bucket // _STEPS - 1)
    low = bucket - exponent * _STEPS << exponent
    return low + ((1 << exponent) - 1) // 2


class _Test:
    REPORT_EVERY_MS = 10_000

    def __init__(self, client, rate_hz, qos, payload_bytes):
        self.client = client
        self.topic = b"mqttpipe/test/" + client.client_id
        self.period_ms = 1000 // rate_hz
        self.qos = qos
        self.run = _ticks_us()  # so that what an earlier one has left is known by it
        self.filling = b" " + b"." * payload_bytes
        self.published = self.missed = self.refused = 0
        self.received = self.duplicated = self.late = 0
        self.window = bytearray(_WINDOW)
        # In rows: a heap that is in pieces may have no 1 KB in one.
        self.histogram = [[0] * _STEPS for _ in range(_BUCKETS // _STEPS)]
        self.low_us = self.high_us = None
        self.connections = _connections
        self.begin_ms = self.report_ms = _ticks_ms()
        self.seconds = 0  # of whole minutes that begin_ms has been moved on by
        self.free_bytes = _free_bytes()
        self.is_running = True
        self.timer = None
        self.token = client.subscribe(self.topic, self._on_message, qos)
        if _mqttpipe.Timer:
            timer = _mqttpipe.Timer
            self.timer = timer(period=self.period_ms, mode=timer.PERIODIC, callback=self._on_timer)
        else:
            _mqttpipe.start_thread(self._publish_all)

    # -- publishing

    def _publish_all(self):
        due_ms = _ticks_ms()
        while self.is_running:
            self._publish()
            due_ms = _ticks_add(due_ms, self.period_ms)
            left_ms = _ticks_diff(due_ms, _ticks_ms())
            if left_ms < -1000:  # the machine was busy: what is missed is not made up for
                due_ms = _ticks_ms()
            _sleep_ms(max(1, left_ms))

    def _on_timer(self, timer):
        if self.is_running:
            self._publish()

    def _publish(self):
        # Before it is subscribed to, what is published would not come back.
        if not self.client.is_done(self.token):
            return
        number = self.published + 1
        payload = b"%d %d %d %d" % (self.run, number, _ticks_ms(), _ticks_us())
        place = number % _WINDOW
        was_missing = number > _WINDOW and not self.window[place]
        before = self.window[place]
        self.window[place] = 0
        try:
            self.client.publish(self.topic, payload + self.filling, self.qos)
        except _QueueFull:
            self.window[place] = before
            self.refused += 1
        except Exception as error:  # a thread must not end in silence
            self.is_running = False
            _tell("mqtt_test has stopped: %s" % _error_text(error))
            return
        else:
            self.published = number
            self.missed += was_missing
        now_ms = _ticks_ms()
        while _ticks_diff(now_ms, self.begin_ms) >= 60_000:
            self.begin_ms = _ticks_add(self.begin_ms, 60_000)
            self.seconds += 60
        if _ticks_diff(now_ms, self.report_ms) >= self.REPORT_EVERY_MS:
            self.report_ms = now_ms
            _tell("mqtt_test: %s" % self.summary())

    # -- receiving

    def _on_message(self, client, message):
        parts = message.payload.split(b" ")
        if len(parts) < 4 or parts[0] != b"%d" % self.run:
            return  # somebody else's, or of an earlier run
        number = int(parts[1])
        if number <= self.published - _WINDOW:
            if self.late < self.missed:
                self.late += 1
            else:
                self.duplicated += 1
            return
        if self.window[number % _WINDOW]:
            self.duplicated += 1
            return
        self.window[number % _WINDOW] = 1
        self.received += 1
        took_ms = _ticks_diff(_ticks_ms(), int(parts[2]))
        took_us = _ticks_diff(_ticks_us(), int(parts[3]))
        if took_ms > 60_000:  # microseconds go round every 18 minutes
            took_us = took_ms * 1000
        took_us = max(0, took_us)
        bucket = _bucket(took_us)
        self.histogram[bucket // _STEPS][bucket % _STEPS] += 1
        if self.low_us is None or took_us < self.low_us:
            self.low_us = took_us
        if self.high_us is None or took_us > self.high_us:
            self.high_us = took_us

    # -- what came of it

    def on_the_way(self):
        # A number may be counted as received before `published` says that it was sent.
        return max(0, self.published - self.received - self.late - self.lost())

    def lost(self):
        return max(0, self.missed - self.late)

    def median_us(self):
        left = (self.received + 1) // 2
        bucket = 0
        for row in self.histogram:
            for count in row:
                left -= count
                if left <= 0:
                    return _value(bucket)
                bucket += 1
        return None

    def summary(self):
        return "%d s, %d published, %d lost, median %s" % (
            self.duration_s(),
            self.published,
            self.lost(),
            _milliseconds(self.median_us() if self.received else None),
        )

    def duration_s(self):
        return self.seconds + _ticks_diff(_ticks_ms(), self.begin_ms) // 1000

    def show(self):
        lost = self.lost()
        share = lost * 100.0 / self.published if self.published else 0.0
        print("duration      %d s" % self.duration_s())
        print("published     %d (%d refused: the queue was full)" % (self.published, self.refused))
        print("received      %d, %d on the way" % (self.received + self.late, self.on_the_way()))
        print("lost          %d (%.2f %%)" % (lost, share))
        print("duplicated    %d" % self.duplicated)
        print("reconnections %d" % (_connections - self.connections))
        if self.received:
            times = [_milliseconds(us) for us in (self.low_us, self.median_us(), self.high_us)]
            print("latency       min %s, median %s, max %s" % tuple(times))
        if self.free_bytes is not None:
            print(
                "memory        %d bytes free, %d at the start" % (_free_bytes(), self.free_bytes)
            )

    def stop(self):
        global _test
        self.is_running = False
        if self.timer is not None:
            self.timer.deinit()
        # What is still on its way has some time to come; then it is lost.
        deadline_ms = _ticks_add(_ticks_ms(), _LAST_MS)
        while self.on_the_way() and self.client.is_online():
            if _ticks_diff(deadline_ms, _ticks_ms()) <= 0:
                break
            _sleep_ms(_NAP_MS)
        self.missed += self.on_the_way()
        try:
            self.client.unsubscribe(self.topic)
        except _QueueFull:
            pass
        _test = None
        self.show()


def _milliseconds(value_us):
    return "-" if value_us is None else "%.1f ms" % (value_us / 1000)


def mqtt_test(action="show", rate_hz=10, qos=1, payload_bytes=32):
    """The stability test: publishes at a fixed rate to a topic of its own that it subscribes to.

    Args:
        action: "start", "stop", or "show": how it is. While it runs, a line comes every 10 s.
        rate_hz: 1..100 messages a second. qos: 0, 1 or 2. payload_bytes: added to about 40.

    What was on its way when a connection broke is lost, unless mqtt_start() was given
    clean_session=False: the server has forgotten the subscription.

    Blocks: "stop" waits for what is on its way, 3 s at most.
    """
    global _test
    client = _started()
    if client is None:
        return
    if action == "start" and _test is None:
        for name, value, least, most in (
            ("rate_hz", rate_hz, 1, 100),
            ("payload_bytes", payload_bytes, 0, 900),
        ):
            if not isinstance(value, int) or not least <= value <= most:
                print("mqtt_test: %s is %r, must be an int in %d..%d" % (name, value, least, most))
                return
        try:
            _test = _Test(client, rate_hz, qos, payload_bytes)
        except Exception as error:  # MemoryError, too
            print("mqtt_test: %s" % _error_text(error))
            return
        print("%d messages/s to %s" % (rate_hz, _shown(_test.topic)))
        print('mqtt_test() shows how it is, mqtt_test("stop") ends it')
    elif _test is None:
        print('no test runs: mqtt_test("start")')
    elif action == "stop":
        _test.stop()
    else:
        _test.show()
