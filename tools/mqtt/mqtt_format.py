"""How tools/mqtt.py prints a message: -F, -v, -N and --pretty, as mosquitto_sub does.

But for control characters: whoever may publish could have them clear the screen, rename the
window, or show one text for another. To a terminal they are escaped, unless --raw is given.
"""

import json
import math
import os
import time

from mqtt_options import UsageError

FORMAT_HELP = """
-F: %t topic name, %p payload, %x %X payload as hex, %l its length, %q QoS, %r 1 if retained,
%m packet identifier, %I %U time, %j all as JSON, %J the same with the payload as JSON, %%;
MQTT 5.0: %A topic alias, %C content type, %D correlation data, %E expiry, %F payload format,
%P user properties, %R response topic, %S subscription identifier;
a width as in %-20t, %010l, %.5t; @Y and the like: strftime(); @N nanoseconds; \\n \\t \\r \\a
\\e \\v \\0 \\\\
"""

PERCENT = "%tpxXlqrmIUjJACDEFPRS"
PROPERTIES = {
    "A": "topic_alias",
    "C": "content_type",
    "D": "correlation_data",
    "E": "message_expiry_interval",
    "F": "payload_format_indicator",
    "P": "user_property",
    "R": "response_topic",
    "S": "subscription_identifier",
}
DIGITS = tuple("0123456789")  # str.isdigit() takes those of other scripts, too
DIGITS_MAX = 4  # of a width: so many bytes are made of it
ESCAPES = {
    "\\": "\\",
    "0": "\0",
    "a": "\a",
    "e": "\x1b",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
}


def shown(text):
    """Return a text in which what is no printable character is escaped, as in \\x1b.

    That is also what ends a line or turns the direction of writing, as U+202E.
    """
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


class Format:
    """How a message is printed: -F, -v or neither, and -N.

    Args:
        options: of mqtt_options. is_terminal: what is printed goes to one.
    """

    def __init__(self, options, is_terminal=False):
        self._is_escaped = is_terminal and "raw" not in options
        self._format = options.get("format")
        self._is_verbose = "verbose" in options
        self._is_pretty = "pretty" in options
        self._end = b"" if "no_eol" in options else b"\n"
        self._errors = []
        if self._format is not None:
            self._check()

    def take_errors(self):
        errors, self._errors = self._errors, []
        return errors

    def _check(self):
        for kind, _, _, _, letter in self._parts():
            if kind in "%@\\" and not letter:
                what = "escape" if kind == "\\" else "format"
                raise UsageError("Incomplete %s specifier." % what)
            if kind == "%" and letter not in PERCENT:
                raise UsageError("Invalid format specifier '%s'." % letter)
            if kind == "\\" and letter not in ESCAPES:
                raise UsageError("Invalid escape specifier '%s'." % letter)

    # (kind, flags, width, precision, letter): kind is %, @, \ or " " for a plain character.
    def _parts(self):
        text = self._format
        at = 0
        while at < len(text):
            kind = text[at]
            at += 1
            flags = ""
            width = precision = None
            if kind not in "%@\\":
                yield " ", "", None, None, kind
                continue
            if kind == "%":
                while text[at : at + 1] in ("-", "0") and text[at : at + 1] not in flags:
                    flags += text[at]
                    at += 1
                width, at = self._number(at)
                if text[at : at + 1] == ".":
                    precision, at = self._number(at + 1)
                    precision = precision or 0
            yield kind, flags, width or 0, precision, text[at : at + 1]
            at += 1

    def _number(self, at):
        end = at
        while self._format[end : end + 1] in DIGITS:
            end += 1
        if end - at > DIGITS_MAX:
            raise UsageError("Invalid format: a width has at most %d digits." % DIGITS_MAX)
        return (int(self._format[at:end]) if end > at else None), end

    def render(self, name, message):
        """Return what is printed, bytes, for a message whose topic name is `name`."""
        payload = message.payload
        if self._format is not None:
            return self._formatted(name, message, payload) + self._end
        name, payload = self._escaped(name), self._escaped(payload)
        if self._is_verbose:
            if not payload:
                return name + b" (null)\n" if self._end else b""
            return name + b" " + payload + self._end
        return payload + self._end if payload else b""

    def _escaped(self, data):
        if not self._is_escaped:
            return data
        return shown(data.decode(errors="backslashreplace")).encode()

    def _formatted(self, name, message, payload):
        now_s = time.time()
        out = bytearray()
        for kind, flags, width, precision, letter in self._parts():
            if kind == " ":
                out += os.fsencode(letter)  # one that is not UTF-8: as it was given
            elif kind == "\\":
                out += ESCAPES[letter].encode()
            elif kind == "@":
                out += self._time(letter, now_s).encode(errors="surrogateescape")
            else:
                out += self._percent(
                    name, message, payload, now_s, flags, width, precision, letter
                )
        return bytes(out)

    def _time(self, letter, now_s):
        if letter == "@":
            return "@"
        if letter == "N":
            return "%09d" % (now_s % 1 * 1e9)
        return time.strftime("%" + letter, time.localtime(now_s))

    def _percent(self, name, message, payload, now_s, flags, width, precision, letter):
        is_left = "-" in flags
        fill = b"0" if "0" in flags and not is_left else b" "
        if letter == "%":
            return b"%"
        if letter == "q":
            return b"%d" % message.qos
        if letter == "r":
            return b"%d" % message.retain
        if letter in "jJ":
            return self._json(name, message, payload, now_s, letter == "j")
        if letter == "U":
            return b"%.9f" % now_s
        if letter in "pxX":
            # A width is the most that is printed, too; and as hex only half of that: so
            # mosquitto_sub counts.
            payload = self._escaped(payload) if letter == "p" else payload
            payload = payload[:width] if width else payload
            if letter != "p":
                payload = payload[: len(payload) // 2] if width else payload
                payload = payload.hex().encode()
                payload = payload.upper() if letter == "X" else payload
            return payload.ljust(width) if is_left else payload.rjust(width, fill)
        if letter == "P":
            pairs = received_with(message).get(PROPERTIES[letter], ())
            return self._escaped(" ".join("%s:%s" % pair for pair in pairs).encode())
        if letter == "D":
            return self._escaped(received_with(message).get(PROPERTIES[letter], b""))
        if letter in "lmAEFS":
            if letter == "l":
                number = len(payload)
            elif letter == "m":
                number = packet_id(message)
            else:
                number = received_with(message).get(PROPERTIES[letter])
            if number is None:
                return width * (b"0" if "0" in flags else b" ")
            text = b"%d" % (number[0] if letter == "S" else number)
            return text.ljust(width) if is_left else text.rjust(width, fill)
        if letter == "t":
            text = self._escaped(name)
        elif letter == "I":
            text = self._stamp(now_s, "%Y-%m-%dT%H:%M:%S%z")
        else:
            text = received_with(message).get(PROPERTIES[letter])
            if text is None:  # (mosquitto_sub has no blanks for %R.)
                return b" " * width if letter == "C" else b""
            text = self._escaped(text.encode())
        text = text if precision is None else text[:precision]
        return text.ljust(width) if is_left else text.rjust(width)

    def _stamp(self, now_s, form):
        return time.strftime(form, time.localtime(now_s)).encode()

    def _json(self, name, message, payload, now_s, is_text):
        microseconds = ".%06d" % (now_s % 1 * 1e6)
        fields = {
            "tst": self._stamp(now_s, "%Y-%m-%dT%H:%M:%S" + microseconds + "%z").decode(),
            "topic": name.decode(),
            "qos": message.qos,
            "retain": int(message.retain),
            "payloadlen": len(payload),
        }
        if message.qos:
            fields["mid"] = packet_id(message)
        if received_with(message):
            fields["properties"] = Pairs(json_pairs(received_with(message)))
        # What is not UTF-8 goes through as it is.
        fields["payload"] = payload.decode(errors="surrogateescape") if payload else None
        if not is_text and payload:
            try:
                fields["payload"] = value_of(payload)
            except (ValueError, RecursionError):  # the latter: of brackets in brackets
                text = "Error: Message payload is not valid JSON on topic %s."
                self._errors.append(text % shown(name.decode()))
                return b""
        how = {"separators": (",", ":")}
        if self._is_pretty:
            how = {"separators": (",", ":\t"), "indent": "\t"}
        text = json.dumps(fields, ensure_ascii=False, **how)
        if self._is_escaped:  # as JSON does it; the lines of --pretty are our own
            text = "".join(
                one if one.isprintable() or one in "\n\t" else json.dumps(one)[1:-1]
                for one in text
            )
        return text.encode(errors="surrogateescape")


# Python takes more for JSON than JSON is: NaN and Infinity, UTF-16, half of a surrogate pair. And
# a number may be larger than any float: null, as mosquitto_sub has it.
def value_of(payload):
    text = payload.decode("utf-8-sig")
    value = json.loads(
        text, parse_constant=refuse, parse_float=finite_or_none, object_pairs_hook=Pairs
    )
    json.dumps(value, ensure_ascii=False).encode()  # UnicodeEncodeError is a ValueError
    return value


def refuse(word):
    raise ValueError(word)


def finite_or_none(text):
    number = float(text)
    return number if math.isfinite(number) else None


class Pairs(dict):
    """A JSON object that may have a name twice. json.dumps() asks for nothing but items()."""

    def __init__(self, pairs):
        super().__init__(pairs)
        self._pairs = pairs

    def items(self):
        return self._pairs


# The properties of a message; with MQTT 3.1.1 it has none.
def received_with(message):
    return getattr(message, "properties", None) or {}


def json_pairs(properties):
    """Return [(name, value)] of a message's properties, as mosquitto_sub names and prints them."""
    pairs = []
    for key, value in properties.items():
        name = key.replace("_", "-")
        if key == "user_property":
            pairs.append(("user-properties", Pairs(value)))
        elif key == "subscription_identifier":
            pairs += [(name, number) for number in value]
        else:  # correlation data that is not UTF-8 goes through as it is, like the payload
            text = isinstance(value, bytes)
            pairs.append((name, value.decode(errors="surrogateescape") if text else value))
    return pairs


# Valid in the callback only: the packet is in the client's buffer, and the identifier stands
# behind the topic name (section 3.3.2). The client tells it to nobody, as it is of no use to
# anybody.
def packet_id(message):
    if not message.qos:
        return 0
    at = 2 + (message._buf[0] << 8 | message._buf[1])
    return message._buf[at] << 8 | message._buf[at + 1]
