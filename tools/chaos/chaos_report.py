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
    "of these by the broker",
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
                count(book["duplicated"] - book["duplicated_not_by_broker"]),
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
                count(book["duplicated"] - book["duplicated_not_by_broker"]),
                "%s ms" % count(round(link["longest_us"] / 1000)),
                "" if each["is_ours"] else exceptions(each["last_words"]),
                "" if each["is_ours"] else count(each["resets"]),
            )


def exceptions(last_words):
    """Return how many exceptions a program had to catch, of all classes."""
    return count(sum(last_words[0].values())) if last_words else "?"


# ---------------------------------------------------------------------------
# For docs/
# ---------------------------------------------------------------------------

PAGE_COLUMNS = (
    "",  # place
    "session",
    "way",
    "QoS 0 lost",
    "QoS 1 lost",
    "by the broker",
    "QoS 1 twice",
    "QoS 2 lost",
    "by the broker",
    "QoS 2 twice",
    "by the broker",
)
SPEED_COLUMNS = (
    "",  # place
    "faults",
    "connections",
    "longest step",
    "longest TLS handshake step",
    "heap in use after a collection, first and last",
    "wrong",
)


def of(part, whole):
    return "%s of %s" % (count(part), count(whole))


def added_books(place):
    """Return (session, way) -> QoS -> the figures of all legs together."""
    sums = {}
    for leg in place["legs"]:
        for link in leg["links"]:
            for book in link["books"]:
                of_way = sums.setdefault((link["session"], book["way"]), {})
                total = of_way.setdefault(book["qos"], dict.fromkeys(book, 0))
                for name, value in book.items():
                    if name not in ("way", "qos"):
                        total[name] += value
    return sums


def page_rows(place, title):
    for (session, way), by_qos in added_books(place).items():
        zero, one, two = (by_qos[qos] for qos in range(3))
        is_owed = session == "persistent" or way == "out"
        by_broker = two["duplicated"] - two["duplicated_not_by_broker"]
        missed = [book["lost"] + book["lost_by_broker"] for book in (zero, one, two)]
        yield (
            title,
            session,
            way,
            of(missed[0], zero["accepted"]),
            of(one["lost"] if is_owed else missed[1], one["accepted"]),
            count(one["lost_by_broker"]) if is_owed else "",
            count(one["duplicated"]),
            of(two["lost"] if is_owed else missed[2], two["accepted"]),
            count(two["lost_by_broker"]) if is_owed else "",
            count(two["duplicated"]),
            count(by_broker),
        )


def speed_row(place, title):
    links = [link for leg in place["legs"] for link in leg["links"]]
    heaps = [[heap for heap, _ in leg["samples"]] for leg in place["legs"]]
    return (
        title,
        count(sum(sum(leg["faults"].values()) for leg in place["legs"])),
        count(sum(link["connections"] for link in links)),
        "%.1f ms" % (max(link["longest_us"] for link in links) / 1000),
        "%.1f ms" % (max(link["longest_tls_us"] for link in links) / 1000),
        "; ".join("%s, %s" % (count(each[0]), count(each[-1])) for each in heaps if any(each)),
        count(sum(len(leg["wrong"]) for leg in place["legs"])),
    )


def markdown_table(columns, rows):
    lines = ["| %s |" % " | ".join(columns), "|%s|" % "|".join("---" for _ in columns)]
    return "\n".join(lines + ["| %s |" % " | ".join(row) for row in rows])


def markdown(result):
    """Return the tables of a result, for a page."""
    if "compared" in result:
        return markdown_table(PEER_COLUMNS, peer_rows(result["compared"])) + "\n"
    places = [(place, place["title"].partition(",")[0]) for place in result["places"]]
    rows = [row for place, title in places for row in page_rows(place, title)]
    speeds = [speed_row(place, title) for place, title in places]
    tables = markdown_table(PAGE_COLUMNS, rows), markdown_table(SPEED_COLUMNS, speeds)
    return "\n\n".join(tables) + "\n"
