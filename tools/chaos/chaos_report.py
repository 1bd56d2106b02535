"""The tables of a chaos run, as lists of texts; the screen and docs/ show them as they like."""

BOOK_COLUMNS = (
    "session",
    "way",
    "QoS",
    "accepted",
    "delivered",
    "lost",
    "lost by the broker",
    "twice",
    "of these by the broker",
    "out of order",
)
PEER_COLUMNS = (
    "client",
    "interpreter",
    "way",
    "QoS",
    "accepted",
    "delivered",
    "lost",
    "twice",
    "longest call",
    "exceptions",
    "resets",
)


def count(number):
    return "{:,}".format(number)


def book_rows(leg):
    """Yield the rows of one leg: what became of the messages."""
    for link in leg["links"]:
        for book in link["books"]:
            yield (
                link["session"],
                book["way"],
                str(book["qos"]),
                count(book["accepted"]),
                count(book["delivered"]),
                count(book["lost"]),
                count(book["lost_by_broker"]),
                count(book["duplicated"]),
                count(book["duplicated"] - book["duplicated_by_client"]),
                count(book["late"]),
            )


def summary(leg):
    """Return lines about one leg."""
    faults = sum(leg["faults"].values())
    kinds = ", ".join("%s %d" % item for item in leg["faults"].items())
    yield "%d faults in %d s: %s" % (faults, leg["seconds"], kinds)
    for link in leg["links"]:
        text = "%s session: %d connections, toggled %d times, longest step %.1f ms (%s)" % (
            link["session"],
            link["connections"],
            link["toggles"],
            link["longest_us"] / 1000,
            link["longest_state"],
        )
        if link["longest_tls_us"]:
            text += ", of a TLS handshake %.1f ms" % (link["longest_tls_us"] / 1000)
        yield text
    if leg["samples"]:
        heaps = [heap for heap, _ in leg["samples"]]
        files = [number for _, number in leg["samples"]]
        text = "heap in use %s bytes, " % " ".join(map(str, heaps)) if any(heaps) else ""
        yield text + "open files %s" % " ".join(map(str, files))


def peer_rows(figures):
    """Yield the rows of the comparison."""
    for each in figures:
        (link,) = each["links"]
        for book in link["books"]:
            if book["qos"] > each["qos_max"]:
                continue
            lost = book["lost"] + book["lost_by_broker"]
            yield (
                each["client"],
                each["interpreter"],
                book["way"],
                str(book["qos"]),
                count(book["accepted"]),
                count(book["delivered"]),
                count(lost),
                count(book["duplicated"]),
                "%s ms" % count(round(link["longest_us"] / 1000)),
                "" if each["is_ours"] else exceptions(each["last_words"]),
                "" if each["is_ours"] else count(each["resets"]),
            )


def exceptions(last_words):
    """Return how many exceptions a program had to catch, of all classes."""
    return count(sum(last_words[0].values())) if last_words else "?"
