"""What is wrong, line by line. A line that ends in "# wrong" must be found, and no other."""

from mqttpipe import Client, Message, MQTTClient, MQTTError  # wrong


def on_text(client: MQTTClient, text: str) -> None:
    print(text)


def on_offline(client: MQTTClient, error: "MQTTError | None") -> None:
    print(error.stage)  # wrong


def on_message(client: MQTTClient, message: Message) -> None:
    message.payload.encode()  # wrong
    message.topic_name = "other"  # wrong
    print(message.topic)  # wrong


print(Client)
client = MQTTClient("mqtt://broker.example")
MQTTClient()  # wrong
MQTTClient("mqtt://broker.example", 60, keepalive=60)  # wrong
MQTTClient("mqtt://broker.example", keep_alive_s="60")  # wrong
MQTTClient("mqtts://broker.example", tls="secure")  # wrong
MQTTClient("mqtt://broker.example", offline="drop")  # wrong
MQTTClient("mqtt://broker.example", will=("topic", "payload"))  # wrong
MQTTClient("mqtt://broker.example", link=True)  # wrong
client.publish("topic")  # wrong
client.publish("topic", None)  # wrong
client.publish("topic", ["on"])  # wrong
client.publish("topic", "on", qos="1")  # wrong
client.subscribe("topic", on_text)  # wrong
client.subscribe(1)  # wrong
client.on_message = on_text  # wrong
client.on_offline = on_offline
client.state = 3  # wrong
client.wait_online()  # wrong
client.is_done("token")  # wrong
print(client.next_deadline_ms() + 1)  # wrong
client.publish_isr("topic", "on")  # wrong
client.loop_forever()  # wrong
print(client.stats.sent)  # wrong


async def main() -> None:
    for message in client.messages("topic"):  # wrong
        print(message)
    done: int = client.publish_wait("topic", "on")  # wrong
    print(done)
