"""The options of tools/mqtt.py, and the client's arguments that are made of them.

They are read as mosquitto_pub does it: an option is a word, and what belongs to it is the next
word, whatever that begins with. argparse would take `-m -x` for two options.
"""

import os
import ssl
import time

from mqtt_streams import UsageError, read_path

import mqttpipe

RECONNECT_MIN_MS = 200
RECONNECT_MAX_MS = 10_000
OPTIONS_BYTES_MAX = 1 << 20  # of a file with options
FOR_EVER = 0xFFFFFFFF  # as a session expiry interval [MQTT 5.0, section 3.1.2.11.2]


# ---------------------------------------------------------------------------
# Options
# ---------------------------------------------------------------------------
# name, other name, commands, what follows it (FLAG: nothing), text for --help. What may be given
# several times becomes a list.

FLAG, TEXT, NUMBER, LIST = "flag", "TEXT", "N", "TEXT..."
PROPERTY = "PACKET NAME VALUE"  # a user-property has a name of its own and a value
ALL, PUB, SUB = ("pub", "sub", "shell"), ("pub",), ("sub",)
TRAFFIC = PUB + SUB

OPTIONS = (
    ("-h", "--host", ALL, TEXT, "host to connect to (default: localhost)"),
    ("-p", "--port", ALL, NUMBER, "port (default: 1883, with TLS 8883)"),
    ("-L", "--url", ALL, TEXT, "mqtt[s]://[user[:password]@]host[:port]/topic"),
    ("-u", "--username", ALL, TEXT, "user name"),
    ("-P", "--pw", ALL, TEXT, "password; others can see it: better in MQTT_PASSWORD or -o FILE"),
    ("-o", "--options", ALL, TEXT, "file with options, one a line"),
    ("-i", "--id", ALL, TEXT, "client identifier"),
    (
        "-I",
        "--id-prefix",
        ALL,
        TEXT,
        "client identifier: this and our process number; not with -c",
    ),
    ("-c", "--disable-clean-session", ALL, FLAG, "keep the session at the server (needs -i)"),
    ("-k", "--keepalive", ALL, NUMBER, "keep alive in seconds (default: 60)"),
    ("-V", "--protocol-version", ALL, TEXT, "311, mqttv311 (default), 5 or mqttv5"),
    ("-x", "--session-expiry-interval", ALL, NUMBER, "-V 5: seconds to keep the session, or -1"),
    ("-D", "--property", TRAFFIC, PROPERTY, "a property, MQTT 5.0; may be repeated"),
    ("-M", "--max-inflight", PUB, NUMBER, "QoS 1 and 2 messages on the way at once (default: 20)"),
    ("-t", "--topic", PUB, TEXT, "topic name to publish to"),
    ("-t", "--topic", SUB, LIST, "topic filter to subscribe to; may be repeated"),
    ("-q", "--qos", TRAFFIC, NUMBER, "quality of service: 0, 1 or 2 (default: 0)"),
    ("-W", "--timeout", TRAFFIC, NUMBER, "end after so many seconds, with status 27"),
    ("-m", "--message", PUB, TEXT, "the message"),
    ("-f", "--file", PUB, TEXT, "the message is what is in this file"),
    ("-l", "--stdin-line", PUB, FLAG, "each line of stdin is a message"),
    ("-s", "--stdin-file", PUB, FLAG, "the message is all of stdin"),
    ("-n", "--null-message", PUB, FLAG, "the message is empty"),
    ("-r", "--retain", PUB, FLAG, "the server keeps the message for later subscribers"),
    ("", "--repeat", PUB, NUMBER, "publish it so many times (not with -l)"),
    ("", "--repeat-delay", PUB, NUMBER, "seconds between these"),
    ("-v", "--verbose", SUB, FLAG, "print the topic name before each message"),
    ("-F", "--format", SUB, TEXT, "print each message so: %t topic, %p payload, ...; see below"),
    ("-N", "--no-eol", SUB, FLAG, "no end of line after a message"),
    ("", "--raw", SUB, FLAG, "control characters as they are, to a terminal too"),
    ("", "--pretty", SUB, FLAG, "JSON of -F on several lines"),
    ("-C", "--count", SUB, NUMBER, "end after so many messages"),
    ("-E", "--exit-after-sub", SUB, FLAG, "end when the subscriptions are acknowledged"),
    ("-R", "--no-retained", SUB, FLAG, "leave out messages that the server had kept"),
    ("", "--retained-only", SUB, FLAG, "only those; ends with the first other one"),
    ("", "--retain-as-published", SUB, FLAG, "-V 5: %r of -F tells what the publisher said"),
    ("", "--remove-retained", SUB, FLAG, "have the server forget those that come"),
    ("-T", "--filter-out", SUB, LIST, "do not print what matches this filter; may be repeated"),
    ("-U", "--unsubscribe", SUB, LIST, "topic filter to unsubscribe from; may be repeated"),
    ("", "--cafile", ALL, TEXT, "certificates of the authorities to trust (PEM): turns TLS on"),
    ("", "--cert", ALL, TEXT, "our own certificate (PEM)"),
    ("", "--key", ALL, TEXT, "and its key (PEM)"),
    ("", "--tls-use-os-certs", ALL, FLAG, "trust what this system trusts: turns TLS on"),
    ("", "--insecure", ALL, FLAG, "do not compare the server's name with its certificate"),
    ("", "--will-topic", ALL, TEXT, "topic name of the will"),
    ("", "--will-payload", ALL, TEXT, "its message (default: empty)"),
    ("", "--will-qos", ALL, NUMBER, "its quality of service"),
    ("", "--will-retain", ALL, FLAG, "the server keeps it"),
    ("-d", "--debug", TRAFFIC, FLAG, "tell on stderr what happens"),
    ("", "--quiet", TRAFFIC, FLAG, "no errors on stderr, but for wrong options"),
    ("", "--nodelay", ALL, FLAG, "as it is always here"),
    ("", "--help", ALL, FLAG, "print this, and end"),
)


# Of -D: packet -> the properties that it may have here, as mosquitto_pub names them, in any case.
ANY_MESSAGE = (
    "content-type correlation-data message-expiry-interval payload-format-indicator "
    "response-topic user-property"
)
PROPERTIES = {
    "connect": "maximum-packet-size receive-maximum request-problem-information "
    "request-response-information session-expiry-interval topic-alias-maximum user-property",
    "publish": ANY_MESSAGE,
    "will": ANY_MESSAGE + " will-delay-interval",
    "subscribe": "subscription-identifier user-property",
    "unsubscribe": "user-property",
    "disconnect": "reason-string session-expiry-interval user-property",
}
NEED_5 = {
    "property": "-D",
    "session_expiry_interval": "-x",
    "retain_as_published": "--retain-as-published",
}
TEXTS = "content-type correlation-data response-topic reason-string".split()  # others are numbers
BINARY = "correlation-data"  # one of these, and any bytes, as a message

TIMEOUT_RANGE = (0.001, 1 << 17, "timeout")


def options_of(command):
    """Return {name: (key, kind)} for a command."""
    table = {}
    for short, long, commands, kind, _ in OPTIONS:
        if command in commands:
            key = long[2:].replace("-", "_")
            table[long] = key, kind
            if short:
                table[short] = key, kind
    return table


def shown_name(word):
    """What may be shown of a word that is no option: it may be, or hold, a password."""
    if word.startswith("--"):
        return " '%s'" % word.partition("=")[0]
    if word.startswith("-"):
        return " '%s'" % word[:2]
    return ": a word without a - stands where none belongs"


def take_option(table, options, name, words, where):
    """Put one option into `options`; its value, if it has one, is taken from the list `words`."""
    if name not in table:
        raise UsageError("Unknown option%s%s." % (shown_name(name), where))
    key, kind = table[name]
    if kind == FLAG:
        options[key] = True
        return
    if not words:
        raise UsageError("%s argument given but nothing specified%s." % (name, where))
    if kind == PROPERTY:
        take_property(options.setdefault(key, {}), words, where)
        return
    value = words.pop(0)
    if kind == NUMBER:
        if key == "session_expiry_interval" and value in ("-1", "\u221e"):
            value = FOR_EVER
        try:
            value = float(value) if key in ("timeout", "repeat_delay") else int(value)
        except ValueError:
            # What was given is not shown: who mistakes -p for -P has given the password.
            raise UsageError("What is given for %s%s must be a number." % (name, where))
    if kind == LIST:
        options.setdefault(key, []).append(value)
    else:
        options[key] = value


def take_property(properties, words, where):
    """Put what follows -D into `properties`: packet -> {name: value}, as the client takes it."""
    packet = words.pop(0).lower()
    if packet not in PROPERTIES:
        raise UsageError("-D is for %s%s." % (", ".join(PROPERTIES), where))
    name = words.pop(0).lower() if words else ""
    if name not in PROPERTIES[packet].split():
        text = "A property of %s is one of %s%s."
        raise UsageError(text % (packet, PROPERTIES[packet].replace(" ", ", "), where))
    if len(words) < 1 + (name == "user-property"):
        raise UsageError("-D %s %s given but no value%s." % (packet, name, where))
    value = words.pop(0)
    found = properties.setdefault(packet, {})
    key = name.replace("-", "_")
    if name == "user-property":
        found.setdefault(key, []).append((value, words.pop(0)))
    elif key in found:
        raise UsageError("-D %s %s given twice%s." % (packet, name, where))
    elif name in TEXTS:
        found[key] = as_given(value) if name == BINARY else value
    else:
        try:
            found[key] = int(value)
        except ValueError:
            raise UsageError("-D %s %s must be a number%s." % (packet, name, where))


def read_file(table, path, deadline_s):
    """Return the options in a file: one a line, its value behind a blank; # begins a comment.

    Blanks around a value do not count.
    """
    options = {}
    data = read_path(path, OPTIONS_BYTES_MAX, deadline_s)
    if len(data) > OPTIONS_BYTES_MAX:
        text = '"%s" is longer than %d bytes: is it the file with options?'
        raise UsageError(text % (path, OPTIONS_BYTES_MAX))
    try:
        lines = data.decode("utf-8-sig").split("\n")
    except UnicodeError as error:
        raise UsageError('Unable to open file "%s": %s' % (path, error))
    for number, line in enumerate(lines, 1):
        line = line.strip(" \t\r")  # and no more: a value may hold what else looks like a blank
        if line and not line.startswith("#"):
            name, _, value = line.partition(" ")
            # The line itself is not shown: it may hold the password.
            where = " in %s, line %d" % (path, number)
            if table.get(name, ("",))[0] in ("options", "help"):
                raise UsageError("%s is for the command line only%s." % (name, where))
            if "\0" in line:  # which no word of a command line can hold, and no name of a file
                raise UsageError("A value can't hold a NUL character%s." % where)
            words = [value.strip(" \t")] if value else []
            if words and table.get(name, ("", ""))[1] == PROPERTY:
                words = words[0].split(" ", 2)
                if len(words) == 3 and words[1].lower() == "user-property":
                    words[2:] = words[2].split(" ", 1)
            take_option(table, options, name, words, where)
    return options


def read_environment():
    names = {"url": "MQTT_URL", "username": "MQTT_USERNAME", "pw": "MQTT_PASSWORD"}
    return {key: os.environ[name] for key, name in names.items() if os.environ.get(name)}


def read_options(command, words):
    """Return the options of a command line, of its -o file and of the environment, as a dict."""
    table = options_of(command)
    words = list(words)
    given = {}
    while words:
        name = words.pop(0)
        take_option(table, given, name, words, "")
        if "help" in given:
            return given
    check_range(given, "timeout", *TIMEOUT_RANGE)
    levels = [given, read_environment()]
    if "options" in given:
        deadline_s = time.monotonic() + given["timeout"] if "timeout" in given else None
        levels.insert(1, read_file(table, given["options"], deadline_s))
    options = {}
    for level in levels:  # the first to give an option counts
        # Not used at all below another server: user and password are not for that one.
        url = level.pop("url", None)
        if url is not None and "host" not in options:
            take_url_apart(table, level, url)
        options = dict(level, **options)
    check_range(options, "qos", 0, 2, "QoS")
    check_range(options, "will_qos", 0, 2, "will QoS")
    check_range(options, "port", 1, 65535, "port")
    check_range(options, "keepalive", 0, 65535, "keepalive")
    check_range(options, "count", 1, 1 << 30, "message count")
    check_range(options, "repeat", 1, 1 << 30, "--repeat")
    check_range(options, "repeat_delay", 0, 1 << 30, "--repeat-delay")
    check_range(options, "max_inflight", 1, 200, "maximum inflight")
    check_range(options, "timeout", *TIMEOUT_RANGE)
    check_range(options, "session_expiry_interval", 0, 0xFFFFFFFF, "session expiry interval")
    if "property" in options:  # as with mosquitto_pub; its -x alone does nothing
        options.setdefault("protocol_version", "5")
    version = options.get("protocol_version", "311")
    if version not in ("311", "mqttv311", "5", "mqttv5"):
        raise UsageError("Invalid protocol version given: only 311 and 5 are known here.")
    if version not in ("5", "mqttv5"):
        for key, name in NEED_5.items():
            if key in options:
                raise UsageError("%s needs -V 5." % name)
    return options


def take_url_apart(table, level, url):
    """Put the options that a URL stands for into its level; one that is there goes before."""
    parts = split_url(url)
    topic = parts.pop("topic", None)
    kind = table.get("--topic", ("", ""))[1]  # `shell` has none
    if topic and kind == LIST:
        level.setdefault("topic", []).append(topic)
    elif topic and kind == TEXT:
        level.setdefault("topic", topic)
    for key, value in parts.items():
        level.setdefault(key, value)


def check_range(options, key, lowest, highest, name):
    if key in options and not lowest <= options[key] <= highest:
        raise UsageError("Invalid %s given: %s" % (name, options[key]))


# ---------------------------------------------------------------------------
# From options to a client
# ---------------------------------------------------------------------------


def split_url(url):
    """Return the options that a URL stands for: {key: value}.

    What stands before the last @ is user and password, with every "/" in it: the "/" that ends
    the host is behind that. A topic with an @ in it has to be given with -t.
    """
    scheme, slashes, rest = url.partition("://")
    if not slashes or scheme not in ("mqtt", "mqtts"):
        raise UsageError("unsupported URL scheme.")
    secret, at, rest = rest.rpartition("@")
    host, _, topic = rest.partition("/")
    try:
        parsed = mqttpipe.parse_uri("%s://%s%s%s" % (scheme, secret, at, host))
    except mqttpipe.LocalError as error:
        raise UsageError(str(error))
    keys = ("host", "port", "username", "pw", "tls_use_os_certs", "topic")
    return {key: value for key, value in zip(keys, parsed + (topic,)) if value or value == b""}


def as_given(word):
    """Return the bytes of a word of the command line, which need not be UTF-8.

    None stays None, and what comes from a URL are bytes.
    """
    return word if word is None or isinstance(word, bytes) else os.fsencode(word)


def client_arguments(options):
    """Return (uri, the other arguments of MQTTClient)."""
    # As mosquitto_pub: TLS is what is asked for by an option, a URL, or by the port.
    is_tls = options.get("port") == 8883
    is_tls = is_tls or any(key in options for key in ("cafile", "cert", "tls_use_os_certs"))
    if ("cert" in options) != ("key" in options):
        raise UsageError("Both --cert and --key must be provided if one of them is provided.")
    if "insecure" in options and not is_tls:  # who gives it expects TLS
        text = "--insecure needs TLS: --cafile, --tls-use-os-certs, mqtts:// or -p 8883."
        raise UsageError(text)
    host = options.get("host", "localhost")
    if host.count(":") == 1:  # an IPv6 address has more
        raise UsageError("-h takes a host without a port: use -p for that.")
    host = "[%s]" % host if ":" in host else host
    uri = "%s://%s:%d" % (
        "mqtts" if is_tls else "mqtt",
        host,
        options.get("port", 8883 if is_tls else 1883),
    )
    arguments = {
        "user": options.get("username"),
        "password": as_given(options.get("pw")),
        "clean_session": "disable_clean_session" not in options,
        "keep_alive_s": options.get("keepalive", 60),
        "reconnect_min_ms": RECONNECT_MIN_MS,
        "reconnect_max_ms": RECONNECT_MAX_MS,
    }
    if "id" in options and "id_prefix" in options:
        raise UsageError("-i and -I argument cannot be used together.")
    # With the number of a process nobody comes back to a session.
    if "id" not in options and not arguments["clean_session"]:
        raise UsageError("You must provide a client id if you are using the -c option.")
    if "id" not in options and options.get("session_expiry_interval") == FOR_EVER:
        raise UsageError("You must provide a client id if the session is to be kept for ever.")
    if "id" in options:
        arguments["client_id"] = options["id"]
    elif "id_prefix" in options:
        arguments["client_id"] = "%s%d" % (options["id_prefix"], os.getpid())
    if "will_topic" in options:
        arguments["will"] = (
            options["will_topic"],
            as_given(options.get("will_payload", "")),
            options.get("will_qos", 0),
            "will_retain" in options,
        )
    else:
        for key in ("will_payload", "will_qos", "will_retain"):
            if key in options:
                raise UsageError("Will %s given, but no will topic given." % key[5:])
    if is_tls:
        arguments["tls"] = make_context(options)
    if options.get("protocol_version") in ("5", "mqttv5"):
        add_mqtt5(arguments, options)
    return uri, arguments


def add_mqtt5(arguments, options):
    properties = {name: dict(value) for name, value in options.get("property", {}).items()}
    of_connect = properties.get("connect", {})
    # As with mosquitto_pub: a session that is kept is kept for ever, unless one says how long.
    expiry_s = 0 if arguments["clean_session"] else FOR_EVER
    expiry_s = of_connect.pop("session_expiry_interval", expiry_s)
    arguments["protocol"] = 5
    arguments["session_expiry_s"] = options.get("session_expiry_interval", expiry_s)
    if of_connect:
        arguments["properties"] = of_connect
    if "will" in arguments:
        arguments["will"] += (properties.get("will", {}),)
    elif "will" in properties:
        raise UsageError("Will properties given, but no will topic given.")


def properties_of(options, packet):
    """Return the arguments of a call that is for this packet: its properties, if -D gave any."""
    found = options.get("property", {}).get(packet)
    return {"properties": found} if found else {}


# --insecure leaves out the name only, as in mosquitto_pub: the certificate is verified.
def make_context(options):
    given = "--cafile %s" % options.get("cafile")
    try:
        context = ssl.create_default_context(cafile=options.get("cafile"))
        # Python 3.13 on is strict: an authority made by one openssl command is none there.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if "cert" in options:
            given = "--cert %s, --key %s" % (options["cert"], options["key"])
            context.load_cert_chain(options["cert"], options["key"])
    except OSError as error:  # ssl.SSLError is one, and names no file
        raise UsageError("Unable to use the certificates given: %s: %s" % (given, error))
    if "insecure" in options:
        context.check_hostname = False
    return context
