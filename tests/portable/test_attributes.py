"""The table of a client's attributes does not grow while it is used.

Where threads have no lock of the interpreter's, a thread that looks into a table while another
makes it larger may miss what is there.
"""

from fakes import Bench, needs, use_real_parts
from model_server import Play


def names_of(client):
    return sorted(client.__dict__)


def test_a_session_makes_no_attribute():
    needs("qos2", "resolver")
    play = Play(False)
    before = names_of(play.client)
    play.run()
    play.check("a session")
    assert names_of(play.client) == before


def test_with_mqtt_5_neither():
    needs("mqtt5")
    bench = Bench(protocol=5, auth=("m", lambda data: b"x"))
    before = names_of(bench.client)
    bench.client.subscribe("t")
    bench.client.connect()
    bench.steps()
    bench.server.received()
    # CONNACK: topic alias maximum 2, and the method of authentication.
    bench.server.send(b"\x20\x0a\x00\x00\x07\x22\x00\x02\x15\x00\x01m")
    bench.steps()
    bench.exchange(b"\x90\x04\xff\x01\x00\x00")
    assert bench.client.is_online()
    bench.client.publish("a topic name", "x", 1)
    bench.client.reauthenticate()
    bench.steps()
    bench.exchange(b"\xf0\x06\x00\x04\x15\x00\x01m", b"\x30\x04\x00\x01t\x00", b"\xe0\x01\x8b")
    assert bench.events[-1][0] == "offline" and names_of(bench.client) == before


def test_nor_does_whatever_drives_it():
    needs("background", "asyncio")
    import asyncio

    client = Bench(uri="mqtt://127.0.0.1:1").client  # nobody listens there
    use_real_parts()
    before = names_of(client)
    client.start()
    client.wait_for(1 << 29, 5)
    assert client.stop(5000) is True and names_of(client) == before

    async def main():
        task = asyncio.create_task(client.run())
        await asyncio.sleep(0.01)
        task.cancel()

    asyncio.run(main())
    assert names_of(client) == before
