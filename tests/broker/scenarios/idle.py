"""A client that is online and has nothing to do, driven in one of the ways.

    idle.py step|background|asyncio|nothing '{"uri": ...}'

Events: ["online"]; then it does nothing until its standard input has a line. `nothing` has no
client at all: what the interpreter itself takes.
"""

import sys

from control import read_argument, say

from mqttpipe import MQTTClient, sleep_ms


def wait_for_a_line():
    sys.stdin.readline()


def in_a_thread(function):
    import _thread

    done = []

    def run():
        function()
        done.append(True)

    _thread.start_new_thread(run, ())
    return done


def drive_by_step(client):
    client.connect()
    while not client.is_online():
        client.step(1000)
    say("online")
    done = in_a_thread(wait_for_a_line)
    while not done:
        client.step(1000)


def drive_in_background(client):
    client.start()
    client.wait_online(10_000)
    say("online")
    wait_for_a_line()
    client.stop()


def drive_under_asyncio(client):
    import asyncio

    async def main():
        task = asyncio.create_task(client.run())
        while not client.is_online():
            await asyncio.sleep(0.01)
        say("online")
        done = in_a_thread(wait_for_a_line)
        while not done:
            await asyncio.sleep(1)
        client.disconnect()
        await task

    asyncio.run(main())


def drive_nothing(client):
    say("online")
    done = in_a_thread(wait_for_a_line)
    while not done:
        sleep_ms(1000)


WAYS = {
    "step": drive_by_step,
    "background": drive_in_background,
    "asyncio": drive_under_asyncio,
    "nothing": drive_nothing,
}


def main(way, options):
    WAYS[way](MQTTClient(**read_argument(options)))
    say("bye")


main(*sys.argv[1:])
