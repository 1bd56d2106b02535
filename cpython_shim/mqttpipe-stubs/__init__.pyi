# The types of mqttpipe.py, for mypy, pyright and editors. They stand beside the client, not in it:
# a board would have to compile them. (PEP 561; a test holds them against the client.)

import ssl
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Literal, Protocol, type_check_only

__version__: str

__all__ = (
    "MQTTClient",
    "MQTTError",
    "LocalError",
    "QueueFull",
    "ServerError",
    "Refused",
    "TransportError",
    "TimedOut",
    "STATE_NAMES",
    "parse_uri",
)

STATE_NAMES: tuple[str, ...]

class MQTTError(Exception):
    stage: str | None
    errno: int | None
    return_code: int | None
    # Of MQTT 5.0.
    reason_code: int | None
    reason: str | None
    properties: dict[str, Any] | None
    token: int | None
    def __init__(
        self,
        text: str,
        stage: str | None = None,
        errno: int | None = None,
        return_code: int | None = None,
    ) -> None: ...

class LocalError(MQTTError): ...
class QueueFull(MQTTError): ...
class ServerError(MQTTError): ...

class Refused(MQTTError):
    return_code: int

class TransportError(MQTTError):
    stage: str

class TimedOut(MQTTError):
    stage: str

def parse_uri(uri: str) -> tuple[str, int, bytes | None, bytes | None, bool]: ...
def topic_matches(topic_filter: bytes, buf: bytes | bytearray, start: int, end: int) -> bool: ...

# Final: to be read only.
class Message:
    topic_name: Final[str]
    qos: Final[int]
    retain: Final[bool]
    dup: Final[bool]
    payload: Final[bytes]
    properties: Final[dict[str, Any]]
    view: Final[memoryview]
    def __init__(self, buf: bytes | bytearray) -> None: ...
    def copy(self) -> Message: ...

class Messages:
    def __init__(
        self, client: MQTTClient, topic_filter: str | bytes, qos: int, queue_max: int
    ) -> None: ...
    def __aiter__(self) -> Messages: ...
    async def __anext__(self) -> Message: ...
    def close(self) -> None: ...
    async def __aenter__(self) -> Messages: ...
    async def __aexit__(
        self,
        *exception: type[BaseException] | BaseException | TracebackType | None,
    ) -> None: ...

@type_check_only
class _Link(Protocol):
    def is_up(self) -> bool: ...

@type_check_only
class _Pollable(Protocol):
    def fileno(self) -> int: ...

_Payload = str | bytes | bytearray | memoryview | int | float
_Policy = Literal["refuse", "drop_oldest", "latest"]
_OnMessage = Callable[[MQTTClient, Message], object]
_OnResponse = Callable[[MQTTClient, Message | None], object]
_Properties = dict[str, Any]
_Will = (
    tuple[str | bytes, _Payload, int, bool] | tuple[str | bytes, _Payload, int, bool, _Properties]
)
_Auth = tuple[str | bytes, Callable[[bytes | None], str | bytes | None]]

class MQTTClient:
    on_connect: Callable[[MQTTClient, bool], object] | None
    on_online: Callable[[MQTTClient], object] | None
    on_offline: Callable[[MQTTClient, MQTTError | None], object] | None
    on_message: _OnMessage | None
    on_published: Callable[[MQTTClient, int], object] | None
    on_dropped: Callable[[MQTTClient, int], object] | None
    on_subscribed: Callable[[MQTTClient, int, bytes], object] | None
    on_error: Callable[[MQTTClient, Exception], object] | None
    on_authenticated: Callable[[MQTTClient], object] | None
    user_data: Any

    keep_alive_s: int
    connect_timeout_ms: int
    reconnect_min_ms: int
    reconnect_max_ms: int

    state: Final[int]
    state_name: Final[str]
    stats: Final[dict[str, int]]
    isr_dropped: Final[int]
    client_id: Final[bytes]
    server_properties: Final[_Properties]
    session_expiry_s: int
    response_topic: str | bytes | None
    def __init__(
        self,
        uri: str | list[str] | tuple[str, ...],
        client_id: str | bytes | None = None,
        user: str | bytes | None = None,
        password: str | bytes | Callable[[], str | bytes] | None = None,
        clean_session: bool = True,
        keep_alive_s: int = 60,
        will: _Will | None = None,
        ca: str | bytes | None = None,
        cert: str | bytes | None = None,
        key: str | bytes | None = None,
        tls: ssl.SSLContext | Literal["insecure"] | None = None,
        link: _Link | None = None,
        packet_bytes_max: int = 1024,
        pipe_slots: int = 32,
        in_flight_max: int = 8,
        connect_timeout_ms: int = 10_000,
        reconnect_min_ms: int = 1_000,
        reconnect_max_ms: int = 60_000,
        pipe_bytes_max: int | None = None,
        offline: _Policy = "refuse",
        tls_name: str | None = None,
        protocol: int = 4,
        session_expiry_s: int = 0,
        properties: _Properties | None = None,
        auth: _Auth | None = None,
    ) -> None: ...
    def connect(self) -> None: ...
    def disconnect(self, reason_code: int = 0, properties: _Properties | None = None) -> None: ...
    def publish(
        self,
        topic_name: str | bytes,
        payload: _Payload,
        qos: int = 0,
        retain: bool = False,
        offline: _Policy | None = None,
        expiry_s: int | None = None,
        properties: _Properties | None = None,
    ) -> int: ...
    def cancel(self, token: int) -> bool: ...
    def subscribe(
        self,
        topic_filter: str | bytes,
        callback: _OnMessage | None = None,
        qos: int = 0,
        no_local: bool = False,
        retain_as_published: bool = False,
        retain_handling: int = 0,
        properties: _Properties | None = None,
    ) -> int: ...
    def unsubscribe(
        self, topic_filter: str | bytes, properties: _Properties | None = None
    ) -> int: ...
    def reauthenticate(self) -> None: ...
    def request(
        self,
        topic_name: str | bytes,
        payload: _Payload,
        callback: _OnResponse,
        timeout_ms: int,
        qos: int = 0,
        properties: _Properties | None = None,
    ) -> int: ...
    async def request_wait(
        self,
        topic_name: str | bytes,
        payload: _Payload,
        timeout_ms: int,
        qos: int = 0,
        properties: _Properties | None = None,
    ) -> Message | None: ...
    def step(self, timeout_ms: int = 0) -> bool: ...
    def is_online(self) -> bool: ...
    def is_done(self, token: int) -> bool: ...
    def was_refused(self, token: int) -> bool: ...
    def wait_online(self, timeout_ms: int) -> bool: ...
    def wait_offline(self, timeout_ms: int) -> bool: ...
    def wait_for(self, token: int, timeout_ms: int) -> bool: ...
    def start(self) -> None: ...
    def stop(self, timeout_ms: int | None = None) -> bool: ...
    async def run(self) -> None: ...
    async def publish_wait(
        self,
        topic_name: str | bytes,
        payload: _Payload,
        qos: int = 0,
        retain: bool = False,
    ) -> bool: ...
    def messages(
        self, topic_filter: str | bytes, qos: int = 0, queue_max: int = 16
    ) -> Messages: ...
    def pollables(self) -> list[tuple[_Pollable, int]]: ...
    def next_deadline_ms(self) -> int | None: ...
    def publish_isr(self, topic_name: bytes, payload: bytes, qos: int = 0) -> bool: ...
