"""`pub` and `sub` of tools/mqtt.py: a client, and the loop around it."""

import errno
import os
import signal
import sys
import time

from mqtt_format import Format, shown
from mqtt_options import as_given, client_arguments, properties_of
from mqtt_streams import (
    READ_BYTES,
    STATUS_TIMEOUT,
    Ended,
    UsageError,
    end_output_at,
    read_path,
    read_stdin,
)

import mqttpipe

STATUS_LOST = 7  # as libmosquitto numbers its errors
STATUS_TLS = 8

GIVE_UP_S = 30  # `pub`: from the loss of a connection, while no message goes through
LEAVE_MS = 250  # for answers that are still to come; after that DISCONNECT goes without them
LEAVE_S = 1  # for all of it: the socket may be stuck
STEP_MS = 1000
DENIED = "All subscription requests were denied."

# The largest packet, either way. The memory is taken at once.
PACKET_BYTES_MAX = 16 * 1024 * 1024
PIPE_SLOTS = 1000


# The client's text names what a program has: an argument, and a call. Here is neither.
def in_our_words(error):
    text = str(error).replace("raise packet_bytes_max,", "the limit here is")
    return text.replace("? cancel() takes it back", "?")


class Command:
    """A client, and the loop around it."""

    def __init__(self, options, **arguments):
        self.options = options
        uri, more = client_arguments(options)
        self.is_tls = uri.startswith("mqtts:")
        self.qos = options.get("qos", 0)
        self.is_lossless = True
        self.status = 0  # of a good end
        self.ended = None  # an Ended, from a callback, where it can not be raised
        self.was_accepted = self.has_been_online = False
        self.is_lost = False  # the connection, and that was told
        self.deadline_s = None
        if "timeout" in options:
            self.deadline_s = time.monotonic() + options["timeout"]
        try:
            self.client = mqttpipe.MQTTClient(uri, **more, **arguments)
            # It is not connected: so this only looks at what -D says of DISCONNECT.
            self.client.disconnect(**properties_of(options, "disconnect"))
        except mqttpipe.MQTTError as error:
            raise UsageError(in_our_words(error))
        self.client.on_connect = self.on_connect
        self.client.on_online = self.on_online
        self.client.on_offline = self.on_offline
        self.client.on_error = lambda client, error: self.tell(error)
        self.client.on_published = self.on_published

    def debug(self, text):
        if "debug" in self.options:
            text = "Client %s: %s" % (self.client.client_id.decode(), text)
            print(shown(text), file=sys.stderr)

    def complain(self, text):
        if "quiet" not in self.options:
            print(shown(text), file=sys.stderr, flush=True)  # it may name what the server sent

    def tell(self, error):
        self.complain("Error: %s" % in_our_words(error))

    def end(self, status, text=""):
        if self.ended is None:
            self.ended = Ended(status, text)

    # -- callbacks

    def on_connect(self, client, session_present):
        self.debug("CONNACK, accepted")
        self.was_accepted = True

    def on_online(self, client):
        self.debug("online")
        self.has_been_online = True
        self.is_lost = False

    def on_published(self, client, token):
        self.debug("message %d: done" % token)

    def on_offline(self, client, error):
        if error is None:
            return
        self.debug("offline: %s" % error)
        if isinstance(error, mqttpipe.Refused):
            self.end(error.return_code, "Connection error: %s" % error)
        elif error.stage == "TLS":
            self.end(STATUS_TLS, "Error: %s%s" % (error, self.hint(error)))
        elif not self.has_been_online:
            is_late = isinstance(error, mqttpipe.TimedOut) and error.stage == "CONNACK"
            self.end(STATUS_TIMEOUT if is_late else 1, "Error: %s%s" % (error, self.hint(error)))
        elif not self.is_lost:
            self.is_lost = True
            self.complain("The connection was lost: %s" % in_our_words(error))

    def hint(self, error):
        """Return what may mend it, or "": in the words of these options, which no client knows."""
        if "not trusted by ca=" in str(error):
            if "cafile" in self.options:
                return ": it is not signed with what --cafile names"
            return ": --cafile FILE names what an authority of your own signs with"
        # One end speaks TLS, and the other hangs up.
        is_cut = error.errno in (errno.ECONNRESET, errno.EPIPE) or "closed" in str(error)
        if is_cut and error.stage == "TLS":
            return ": does the server speak TLS at this port?"
        if is_cut and error.stage == "CONNACK" and not self.is_tls:
            return ": does the server want TLS at this port (--cafile)?"
        return ""

    # -- the loop

    def run(self):
        """Do it all; return the exit status."""
        end_output_at(self.deadline_s)
        self.client.connect()
        try:
            while not self.is_done():
                self.work(self.sleep_ms())
                self.check()
            ended = Ended(self.status)
        except Ended as reason:
            ended = reason
        except mqttpipe.LocalError as error:  # the server has said that it can't do it
            ended = Ended(1, "Error: %s" % in_our_words(error))
        try:
            self.leave()
        except Ended as reason:
            ended = ended if ended.status else reason
        if ended.args[0]:
            self.complain(ended.args[0])
        return ended.status

    def work(self, timeout_ms):
        self.client.step(timeout_ms)

    def check(self):
        if self.ended is not None:
            raise self.ended
        now_s = time.monotonic()
        if self.deadline_s is not None and now_s >= self.deadline_s:
            raise Ended(STATUS_TIMEOUT, "Timed out")

    def sleep_ms(self):
        if self.deadline_s is None:
            return STEP_MS
        left_s = self.deadline_s - time.monotonic()
        return max(0, min(STEP_MS, int(left_s * 1000) + 1))

    def leave(self):
        """DISCONNECT, so that the server does not publish the will."""
        self.client.connect_timeout_ms = LEAVE_MS
        text = ""
        try:
            self.client.disconnect(**properties_of(self.options, "disconnect"))
        except mqttpipe.MQTTError as error:  # too large for this server
            self.client.disconnect()
            text = "Error: %s" % error
        deadline_s = time.monotonic() + LEAVE_S
        while self.client.state_name != "DOWN" and time.monotonic() < deadline_s:
            self.client.step(100)
        if text:
            raise Ended(1, text)


# ---------------------------------------------------------------------------
# pub
# ---------------------------------------------------------------------------


class Publish(Command):
    MODES = ("message", "file", "stdin_line", "stdin_file", "null_message")

    def __init__(self, options):
        modes = [mode for mode in self.MODES if mode in options]
        if len(modes) > 1:
            raise UsageError("Only one type of message can be sent at once.")
        self.mode = modes[0] if modes else None
        if "stdin_line" in options and "repeat" in options:
            raise UsageError("--repeat can't be used with -l.")
        super().__init__(
            options,
            packet_bytes_max=PACKET_BYTES_MAX,
            pipe_slots=PIPE_SLOTS,
            in_flight_max=options.get("max_inflight", 20),
        )
        self.topic = options.get("topic")
        if self.topic is None or self.mode is None:
            raise UsageError("Both topic and message must be supplied.")
        if any(wildcard in self.topic for wildcard in "+#"):
            text = "Invalid publish topic '%s', does it contain '+' or '#'?"
            raise UsageError(text % self.topic)
        try:
            mqttpipe._to_topic(self.topic)
        except mqttpipe.LocalError as error:
            raise UsageError(in_our_words(error))
        self.left = options.get("repeat", 1)
        self.next_s = 0.0  # when the next repetition is due
        self.last_token = 0
        self.lost_s = None  # when the connection was lost, if nothing has gone through since
        self.client.on_dropped = self.on_dropped
        self.is_read = True  # there is no more to read
        self.lines = []  # read, not yet published
        self.rest = bytearray()  # read, without its end of line yet
        self.is_too_long = False  # what is left out up to its end
        if self.mode == "stdin_line":
            self.is_read = False
            self.left = 0
            self.stdin = sys.stdin.fileno()
        else:
            self.payload = self.read_payload()
            try:  # what is wrong with the message is told before anything is sent
                self.publish(self.payload)
                self.left -= 1
            except mqttpipe.MQTTError as error:
                raise UsageError(in_our_words(error))

    def read_payload(self):
        if self.mode == "null_message":
            return b""
        if self.mode == "message":
            return as_given(self.options["message"])
        if self.mode == "file":
            payload = read_path(self.options["file"], PACKET_BYTES_MAX, self.deadline_s)
        else:
            payload = read_stdin(PACKET_BYTES_MAX, self.deadline_s)
        if len(payload) > PACKET_BYTES_MAX:
            raise UsageError("The message is longer than %d bytes." % PACKET_BYTES_MAX)
        if self.mode == "stdin_file" and not payload:
            raise UsageError("Zero length input.")  # as mosquitto_pub: -n is for that
        return payload

    def publish(self, payload):
        retain = "retain" in self.options
        more = properties_of(self.options, "publish")
        self.last_token = self.client.publish(self.topic, payload, self.qos, retain, **more)

    def is_done(self):
        if not self.is_read or self.lines or self.left:
            return False
        return self.is_idle()

    # QoS 1 and 2 are acknowledged in any order.
    def is_idle(self):
        if not self.last_token:
            return True
        stats = self.client.stats
        is_all = self.qos == 0 or stats["acknowledged"] + stats["dropped"] >= stats["queued"]
        return is_all and self.client.is_done(self.last_token)

    # A connection alone is no progress: a server that closes at a message does so each time.
    def on_online(self, client):
        super().on_online(client)
        if self.is_idle():
            self.lost_s = None

    def on_published(self, client, token):
        super().on_published(client, token)
        self.lost_s = None

    def on_dropped(self, client, token):  # refused, or too large for this server
        self.lost_s = None
        self.status = 1

    def on_offline(self, client, error):
        super().on_offline(client, error)
        if error is not None and self.lost_s is None:
            self.lost_s = time.monotonic()

    def check(self):
        super().check()
        if self.lost_s is not None and time.monotonic() - self.lost_s > GIVE_UP_S:
            text = "Error: The connection was lost, and nothing went through for %d s."
            raise Ended(STATUS_LOST, text % GIVE_UP_S)

    def work(self, timeout_ms):
        if self.mode == "stdin_line":
            self.publish_lines()
            self.wait(timeout_ms)
            return
        now_s = time.monotonic()
        if self.left and self.client.is_done(self.last_token):
            if not self.next_s:  # the one before has just been delivered
                self.next_s = now_s + self.options.get("repeat_delay", 0)
            if now_s >= self.next_s:
                self.publish(self.payload)
                self.left -= 1
                self.next_s = 0.0
            else:
                timeout_ms = min(timeout_ms, int((self.next_s - now_s) * 1000) + 1)
        self.client.step(timeout_ms)

    def publish_lines(self):
        while self.lines:
            try:
                self.publish(self.lines[0])
            except mqttpipe.QueueFull:
                return  # step() makes room
            except mqttpipe.LocalError as error:
                self.tell(error)
                self.status = 1
            self.lines.pop(0)

    # Our own poll: for the client and for stdin. While lines wait nothing more is read, so that
    # whoever writes to us has to wait as well. (A plain file is always ready, and an end, too.)
    def wait(self, timeout_ms):
        poll = mqttpipe.select.poll()
        is_reading = self.has_been_online and not self.is_read and not self.lines
        if is_reading:
            poll.register(self.stdin, mqttpipe.select.POLLIN)
        while self.client.step():
            self.publish_lines()
        for pollable, events in self.client.pollables():
            poll.register(pollable, events)
        deadline_ms = self.client.next_deadline_ms()
        if deadline_ms is not None:
            timeout_ms = min(timeout_ms, deadline_ms)
        for pollable, _ in poll.poll(timeout_ms):
            if is_reading and pollable == self.stdin:
                self.read_lines()

    def read_lines(self):
        try:
            data = os.read(self.stdin, READ_BYTES)
        except BlockingIOError:  # another process was faster
            return
        except OSError as error:
            raise Ended(1, "Error: unable to read stdin: %s" % error.strerror)
        if not data:
            self.is_read = True
            if self.rest:
                self.end_line()
            return
        *ends, rest = data.split(b"\n")
        for end in ends:
            self.add_to_line(end)
            self.end_line()
        self.add_to_line(rest)

    def add_to_line(self, part):
        if self.is_too_long:
            return
        self.rest += part
        if len(self.rest) > PACKET_BYTES_MAX:  # it may never end
            self.is_too_long = True
            self.rest.clear()
            self.status = 1
            text = "Error: a line is longer than %d bytes: it is not sent"
            self.complain(text % PACKET_BYTES_MAX)

    def end_line(self):
        if not self.is_too_long:
            self.lines.append(bytes(self.rest))
        self.is_too_long = False
        self.rest.clear()


# ---------------------------------------------------------------------------
# sub
# ---------------------------------------------------------------------------


class Subscribe(Command):
    def __init__(self, options):
        if "no_retained" in options and "retained_only" in options:
            raise UsageError("Combining '-R' and '--retained-only' makes no sense.")
        super().__init__(options, packet_bytes_max=PACKET_BYTES_MAX)
        self.format = Format(options, sys.stdout.isatty())
        self.out = bytearray()  # to be printed
        self.left = options.get("count")
        self.is_finished = False  # nothing more is read, and none of it printed
        filters = options.get("topic", [])
        unwanted = options.get("unsubscribe", [])
        if not filters:
            raise UsageError("You must specify a topic to subscribe to.")
        self.client.on_message = self.on_message
        self.client.on_subscribed = self.on_subscribed
        self.granted = []
        self.asked = []  # tokens of the subscriptions
        self.to_publish = []  # retained messages to be removed
        self.tokens = []  # of those that are being removed
        try:
            # (One that is in both: unsubscribe() would take subscribe() back.)
            self.filters = {each: None for each in filters if each not in unwanted}
            for topic_filter in self.filters:
                more = properties_of(options, "subscribe")
                if "retain_as_published" in options:
                    more["retain_as_published"] = True
                self.asked.append(self.client.subscribe(topic_filter, None, self.qos, **more))
            for topic_filter in unwanted:
                self.client.unsubscribe(topic_filter, **properties_of(options, "unsubscribe"))
            self.filtered_out = [
                mqttpipe._to_topic(topic_filter, True)
                for topic_filter in options.get("filter_out", [])
            ]
        except mqttpipe.MQTTError as error:
            raise UsageError(in_our_words(error))
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.on_signal)

    # disconnect() wakes step(), wherever it is.
    def on_signal(self, number, frame):
        self.end(0 if self.was_accepted else 128 + number)
        end_output_at(time.monotonic())
        self.client.connect_timeout_ms = LEAVE_MS
        self.client.disconnect()  # what -D says of it comes with leave()

    # What follows stays with the server: the client reads it no more, and so does not acknowledge
    # what nobody prints. There is no call for this: it is what the client does while a messages()
    # is full. But the answers to --remove-retained come behind messages: for these it reads on.
    def finish(self):
        self.is_finished = True
        if not self.to_publish and not self.tokens:
            self._is_told = True  # the client need not say that it reads nothing
            self.client._full.append(self)
            self.client._is_enough = True  # for this step

    def on_subscribed(self, client, token, granted):
        self.granted.append(granted[0])
        if len(self.granted) == len(self.filters):
            if min(self.granted) > 2:
                self.end(1, DENIED)
            elif "exit_after_sub" in self.options and "unsubscribe" not in self.options:
                self.finish()  # now: what the server had retained comes right behind

    def on_online(self, client):
        super().on_online(client)
        # Also those that the client has not asked for: the server has said that it can't do it.
        if self.asked and all(client.was_refused(token) for token in self.asked):
            self.end(1, DENIED)
        if "exit_after_sub" in self.options:
            self.finish()  # all is acknowledged, -U too

    def on_message(self, client, message):
        options = self.options
        if self.is_finished:
            return
        if "retained_only" in options and not message.retain:
            self.finish()
            return
        if message.retain and "no_retained" in options:
            return
        name = message.topic_name.encode()
        for topic_filter in self.filtered_out:
            if mqttpipe.topic_matches(topic_filter, name, 0, len(name)):
                return
        if message.retain and "remove_retained" in options:
            self.to_publish.append(name)
        if self.left is not None:
            self.left -= 1
            if not self.left:
                self.finish()
        self.out += self.format.render(name, message)

    def work(self, timeout_ms):
        super().work(timeout_ms)
        self.remove_retained()
        self.print_out()

    # What comes before the connection is closed is acknowledged: it is printed, too.
    def leave(self):
        try:
            super().leave()
        finally:
            self.print_out()

    def print_out(self):
        if self.out:
            out, self.out = self.out, bytearray()
            try:
                sys.stdout.buffer.write(out)
                sys.stdout.buffer.flush()
            except Ended:
                self.finish()
                raise
        for text in self.format.take_errors():
            self.complain(text)

    def remove_retained(self):
        client = self.client
        self.tokens = [token for token in self.tokens if not client.is_done(token)]
        while self.to_publish:
            try:
                self.tokens.append(client.publish(self.to_publish[0], b"", 1, True))
            except mqttpipe.QueueFull:
                return
            self.to_publish.pop(0)

    # The server sends us, too, what we publish: once we have closed, it drops the connection, with
    # what it has not read of it. So all of it has to be acknowledged.
    def is_done(self):
        return self.is_finished and not self.to_publish and not self.tokens
