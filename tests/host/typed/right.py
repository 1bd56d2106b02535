"""Each public name, as a program uses it: type checkers find nothing in here. It is not run."""

import asyncio
import select
import ssl

import mqttpipe
from mqttpipe import (
    STATE_NAMES,
    LocalError,
    Message,
    MQTTClient,
    MQTTError,
    QueueFull,
    Refused,
    ServerError,
    TimedOut,
    TransportError,
    parse_uri,
)


class Wifi:
    def is_up(self) -> bool:
        return True

    def dns_servers(self) -> list[str]:
        return ["192.0.2.1"]


kept: list[Message] = []


def on_lamp(client: MQTTClient, message: Message) -> None:
    text: str = message.topic_name
    data: bytes = message.payload
    view: memoryview = message.view
    qos: int = message.qos
    flags: tuple[bool, bool] = message.retain, message.dup
    kept.append(message.copy())
    print(text, data, view[0], qos, flags)


def on_offline(client: MQTTClient, error: "MQTTError | None") -> None:
    if isinstance(error, Refused):
        code: int = error.return_code
        print(code, error.reason_code, error.reason, error.properties, error.token)
    elif isinstance(error, (TransportError, TimedOut)):
        stage: str = error.stage
        print(stage, error.errno)
    elif isinstance(error, ServerError):
        print(error)


client = MQTTClient(
    ["mqtts://broker.example", "mqtts://other.example:8883"],
    client_id=b"lamp",
    user="user",
    password=lambda: "secret",
    clean_session=False,
    keep_alive_s=30,
    will=("lamp/state", b"gone", 1, True),
    ca="ca.pem",
    cert=b"...",
    key="key.pem",
    tls="insecure",
    link=Wifi(),
    packet_bytes_max=2048,
    pipe_slots=16,
    in_flight_max=4,
    connect_timeout_ms=5_000,
    reconnect_min_ms=500,
    reconnect_max_ms=30_000,
    pipe_bytes_max=4096,
    offline="latest",
    tls_name="broker.example",
)
other = MQTTClient("mqtts://broker.example", tls=ssl.create_default_context(), password=b"")
client.on_connect = lambda client, session_present: print(session_present)
client.on_online = lambda client: print("online")
client.on_offline = on_offline
client.on_message = on_lamp
client.on_published = lambda client, token: print(token + 1)
client.on_dropped = lambda client, token: print(token + 1)
client.on_subscribed = lambda client, token, granted: print(token, granted[0])
client.on_error = lambda client, error: print(str(error))
client.user_data = {"anything": 1}
client.keep_alive_s = client.connect_timeout_ms = 1
client.reconnect_min_ms = client.reconnect_max_ms = 1
client.on_message = None

token: int = client.subscribe("lamp/+", on_lamp, qos=1)
token = client.subscribe(b"lamp/+")
token = client.unsubscribe("lamp/+")
client.connect()
try:
    for payload in ("on", b"on", bytearray(b"on"), memoryview(b"on"), 1, 1.5):
        token = client.publish("lamp", payload, 1, True, offline="refuse", expiry_s=60)
except QueueFull as full:
    print(full)
except LocalError:
    raise
done: bool = client.is_done(token) or client.was_refused(token) or client.cancel(token)
happened: bool = client.step() or client.step(100)
waited: bool = client.wait_online(1) and client.wait_offline(1) and client.wait_for(token, 1)
state: str = STATE_NAMES[client.state]
print(client.state_name == state, client.is_online(), client.client_id.hex())
count: int = client.stats["sent"] + client.isr_dropped
client.start()
with_5 = MQTTClient(
    "mqtt://broker.example",
    will=("lamp/state", b"gone", 1, True, {"will_delay_interval": 5}),
    protocol=5,
    session_expiry_s=60,
    properties={"receive_maximum": 8, "user_property": [("a", "b")]},
    auth=("SCRAM-SHA-256", lambda data: data),
)
with_5.on_authenticated = lambda client: print(client.server_properties.get("maximum_qos"))
with_5.response_topic = "answers"
with_5.session_expiry_s = 120
token = with_5.subscribe(
    "lamp/+",
    on_lamp,
    no_local=True,
    retain_as_published=True,
    retain_handling=2,
    properties={"subscription_identifier": 1},
)
token = with_5.publish("lamp", "on", properties={"content_type": "text/plain"})
token = with_5.request(
    "lamp/ask",
    "?",
    lambda client, message: print(message and message.properties.get("content_type")),
    timeout_ms=1000,
)
token = with_5.unsubscribe("lamp/+", properties={"user_property": [("a", "b")]})
with_5.reauthenticate()
with_5.disconnect(reason_code=4, properties={"reason_string": "bye"})
ended: bool = client.stop() and client.stop(timeout_ms=1000)
client.disconnect()
queued: bool = client.publish_isr(b"lamp", b"on", 1)

poll = select.poll()
for pollable, events in client.pollables():
    poll.register(pollable, events)
deadline_ms = client.next_deadline_ms()
poll.poll(1000 if deadline_ms is None else deadline_ms)

host, port, user, password, is_tls = parse_uri("mqtt://broker.example")
print(host.upper(), port + 1, user and user.decode(), password, not is_tls)
print(mqttpipe.__version__.split("."), mqttpipe.topic_matches(b"#", b"a", 0, 1))
print(MQTTError("text", stage="TCP", errno=1, return_code=None).stage)


client5 = MQTTClient(
    "mqtt://broker.example",
    protocol=5,
    session_expiry_s=60,
    properties={"receive_maximum": 8},
    will=("lamp", "gone", 1, False, {"will_delay_interval": 5}),
    auth=("SCRAM-SHA-256", lambda data: b"" if data is None else None),
)
client5.on_authenticated = lambda client: print(client.server_properties, client.session_expiry_s)
client5.response_topic = "answers"
token = client5.publish("lamp", "on", properties={"content_type": "text/plain"})
token = client5.subscribe(
    "lamp", None, 1, no_local=True, retain_as_published=True, retain_handling=1, properties={}
)
token = client5.unsubscribe("lamp", properties={"user_property": [("a", "b")]})


def on_response(client: MQTTClient, message: "mqttpipe.Message | None") -> None:
    print(message and message.properties)


token = client5.request("ask", "?", on_response, timeout_ms=1000, qos=1, properties=None)
client5.reauthenticate()
client5.disconnect(reason_code=4, properties={"session_expiry_interval": 0})
error5 = MQTTError("text")
print(error5.reason_code, error5.reason, error5.properties, error5.token)


async def ask() -> None:
    response = await client5.request_wait("ask", "?", timeout_ms=1000, qos=1, properties=None)
    print(response and response.payload)


async def main() -> None:
    task = asyncio.create_task(client.run())
    acknowledged: bool = await client.publish_wait("lamp", "on", qos=1, retain=True)
    messages = client.messages("lamp/#", qos=1, queue_max=4)
    async for message in messages:
        print(message.topic_name, acknowledged)
        messages.close()
    async with client.messages(b"lamp") as more:
        async for message in more:
            print(message.payload)
    answer: Message | None = await with_5.request_wait("lamp/ask", "?", timeout_ms=1000)
    print(answer and answer.payload)
    await task
