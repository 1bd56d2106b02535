"""A client whose step() is slow on purpose: for the test of the watchdog in control.py.

    slow_link.py HOW

HOW: "blocks": its link's is_up() takes 500 ms, ten times; "says": is_up() says a line, whose
reader takes 100 ms; "sleeps": nothing is slow, step() only has 100 ms to sleep in. Then ["over"].
"""

import sys
import time

import control

import mqttpipe

SLOW_S = 0.1
BLOCKED_S = 0.5  # a busy machine is charged with a part of it


class Link:
    """An interface that stays down."""

    def __init__(self, look):
        self.look = look
        self.count = 0

    def is_up(self):
        self.count += 1
        self.look()
        return False


def block():
    time.sleep(BLOCKED_S)


def say_slowly():
    control.print = print_slowly
    control.say("line")


def print_slowly(text):
    time.sleep(SLOW_S)
    print(text)


def main(how):
    link = Link({"blocks": block, "says": say_slowly, "sleeps": bool}[how])
    client = mqttpipe.MQTTClient("mqtt://127.0.0.1", link=link)
    client.connect()
    while link.count < (10 if how == "blocks" else 3):
        client.step(100 if how == "sleeps" else 10)
    control.say("over")


main(sys.argv[1])
