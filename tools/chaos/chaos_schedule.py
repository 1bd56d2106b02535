"""Which faults come, in which order, how long and how bad: drawn from a seed and nothing else."""

import random

from proxy import DOWN, FIN, RST, UP, VANISH, Shape, random_cuts, throttle

PAUSE_S = (0.2, 1.5)  # between two faults
# With TLS on the board, whose handshake takes seconds: it would never be online between two.
SLOW_PAUSE_S = (2, 6)
POSITION_MAX = 3000  # bytes until a connection is cut
SESSIONS_MAX = 2  # clients that get cuts of their own

# name -> (shortest, longest duration in seconds). The names are those of the report.
PROXY = {
    "cut": (0, 0),
    "cuts at bytes": (0.5, 3),
    "half close": (0.1, 1),
    "stall": (0.2, 4),
    "swallow": (0.1, 3),
    "delay": (0.5, 4),
    "throttle": (0.5, 4),
    "split": (0.5, 3),
    "refuse": (0.2, 2),
}
BROKER = {
    "broker restarted": (0.1, 2),
    "broker frozen": (0.2, 4),
}
FORGETFUL = {"broker killed": (0.1, 2)}  # and what it had kept is gone
NETWORK = {"DNS fails": (0.5, 3), "Wi-Fi down": (0.3, 2)}
CABLE = {"cable out": (0.2, 4)}
TLS = {"certificate renewed": (0.2, 2)}  # after a time with a bad one
SHORT_TLS = {**TLS, "cut": PROXY["cut"], "stall": PROXY["stall"]}  # the others had their turn

DNS_FAILURES = ("no such name", "failure", "silence", "junk")
BAD_CERTIFICATES = ("expired", "of a stranger", "of another name")


class Fault:
    """One fault: after `pause_s` of peace it begins, and ends after `duration_s`.

    details: what else was drawn, by name.
    """

    def __init__(self, pause_s, name, duration_s, details):
        self.pause_s = pause_s
        self.name = name
        self.duration_s = duration_s
        self.details = details

    def __repr__(self):
        details = "".join(" %s=%r" % item for item in self.details.items())
        return "+%.1f s %s for %.1f s%s" % (self.pause_s, self.name, self.duration_s, details)


# Links that were bad are often lost then, with much on its way.
def _end(chance):
    return chance.choice((None, None, RST, FIN, VANISH))


def _details(chance, name):
    if name == "cut":
        return {"how": chance.choice((RST, RST, FIN, VANISH))}
    if name == "cuts at bytes":
        seeds = [chance.getrandbits(30) for _ in range(SESSIONS_MAX)]
        count = chance.randint(3, 8)
        return {"cuts": [list(random_cuts(seed, count, POSITION_MAX)) for seed in seeds]}
    if name == "half close":
        return {"direction": chance.choice((UP, DOWN))}
    if name == "stall":
        return {"cut": _end(chance)}
    if name == "delay":
        shape = Shape(hold_s=round(chance.uniform(0.05, 0.8), 2))
        return {"shape": shape, "cut": _end(chance)}
    if name == "throttle":
        return {"shape": throttle(chance.choice((100, 300, 1000, 5000))), "cut": _end(chance)}
    if name == "split":
        shape = Shape(piece_bytes=chance.randint(1, 7), gap_s=0.001)
        return {"shape": shape, "cut": _end(chance)}
    if name == "DNS fails":
        return {"how": chance.choice(DNS_FAILURES)}
    if name == "Wi-Fi down":
        return {"how": chance.choice((RST, VANISH))}
    if name == "certificate renewed":
        return {"how": chance.choice(BAD_CERTIFICATES)}
    return {}


def draw(seed, seconds, kinds, pause_bounds_s=PAUSE_S):
    """Return the Faults that fill so many seconds.

    Each kind comes once before any comes again.

    Args:
        seed: int or str. kinds: name -> bounds of the duration, such as PROXY.
        seconds: None: each kind once, as short as it may be.
        pause_bounds_s: shortest and longest time between two faults.
    """
    chance = random.Random(seed)
    faults = []
    names = []
    while not faults or (names if seconds is None else seconds > 0):
        if not names:
            names = sorted(kinds)
            chance.shuffle(names)
        name = names.pop()
        pause_s = round(chance.uniform(*pause_bounds_s), 1)
        duration_s = round(chance.uniform(*kinds[name]), 1)
        details = _details(chance, name)
        if seconds is None:
            pause_s, duration_s = PAUSE_S[0], kinds[name][0]
        else:
            seconds -= pause_s + duration_s
        faults.append(Fault(pause_s, name, duration_s, details))
    return faults
