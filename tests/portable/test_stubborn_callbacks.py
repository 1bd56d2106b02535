"""An on_offline that calls connect(), as with other clients: stop() ends it all the same."""

from fakes import Bench, needs, use_real_parts

URI = "mqtt://127.0.0.1:1"  # nobody listens there: on_offline comes again and again


def stubborn_client():
    client = Bench(uri=URI, reconnect_min_ms=1, reconnect_max_ms=10).client
    use_real_parts()
    client.told = 0

    def on_offline(client, error):
        client.told += 1
        client.connect()

    client.on_offline = on_offline
    return client


def test_stop_ends_what_start_began():
    needs("background")
    client = stubborn_client()
    for _ in range(2):
        client.told = 0
        client.start()
        while not client.told:
            client.wait_for(1 << 29, 5)  # never a token: is done at once
        assert client.stop(5000) is True
        assert client.state_name == "DOWN"


def test_a_run_that_is_cancelled_leaves_nothing_wanted():
    needs("asyncio")
    import asyncio

    client = stubborn_client()

    async def main():
        client.told = 0
        task = asyncio.create_task(client.run())
        while not client.told:
            await asyncio.sleep(0.001)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            pass

    for _ in range(2):
        asyncio.run(main())
        told = client.told
        for _ in range(5):
            client.step(5)
        assert client.state_name == "DOWN" and client.told == told


def test_after_stop_a_program_that_steps_comes_back_by_itself():
    needs("background")
    client = stubborn_client()
    client.on_offline = None
    client.start()
    assert client.stop(5000) is True
    client.on_offline = lambda client, error: told.append(error)
    told = []
    client.connect()
    for _ in range(100):
        client.step(10)
        if len(told) > 2:
            break
    assert len(told) > 2 and client.state_name != "DOWN"
