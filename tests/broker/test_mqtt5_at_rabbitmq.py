"""MQTT 5.0 at RabbitMQ 4: what tests/broker/test_mqtt5.py asks of mosquitto, where it can do it.

With --long, as it is 70 MB and starts slowly; docs/brokers.md tells users what it does otherwise:
no QoS 2, no shared subscriptions, one copy of a message for several subscriptions; and it gives
topic aliases, which mosquitto does from 2.1 on.
"""

import pytest
from test_mqtt5 import (  # noqa: F401  fixtures, and tests to be run here as well
    add_client,
    add_paho5,
    client,
    paho5,
    test_a_good_bye_with_the_will_has_it_published,
    test_a_message_that_has_expired_at_the_server_is_not_delivered,
    test_a_request_is_answered_by_paho,
    test_a_session_outlives_the_connection_as_long_as_it_was_asked_for,
    test_a_will_waits_for_its_delay,
    test_each_interpreter_speaks_both_protocols_with_one_broker,
    test_many_messages_by_aliases_of_our_own,
    test_no_local_and_retain_as_published,
    test_retained_messages_as_the_handling_says,
    test_what_is_left_of_an_expiry_is_what_the_receiver_sees,
)

import mqttpipe
import other_brokers
import servers


# Named as in test_other_brokers.py: without --long, tests with such a fixture are left out.
@pytest.fixture(scope="module")
def other():
    try:
        started = other_brokers.start("rabbitmq4")
    except servers.BrokerError as error:
        pytest.skip("not here: %s" % error)
    with started:
        yield started


@pytest.fixture(scope="module")
def broker(other):
    return other


@pytest.mark.parametrize("qos", (0, 1))
def test_messages_that_come_by_an_alias_of_the_server(client, paho5, topic, qos):  # noqa: F811
    client.subscribe(topic + "/#", None, qos)
    names = ["%s/%d" % (topic, number % 5) for number in range(40)]
    before = client.mqtt.stats["bytes_received"]
    for number, name in enumerate(names):
        paho5.publish(name, b"%d" % number)
    came = [client.next() for _ in names]
    assert [(one.topic_name, int(one.payload)) for one in came] == [
        (name, number) for number, name in enumerate(names)
    ]
    received = client.mqtt.stats["bytes_received"] - before
    assert received < 40 * (len(topic) + 2 + 9), "most came without their topic name"
    assert client.events == []


def test_what_it_can_not_do_is_refused_at_the_call(client, topic):  # noqa: F811
    with pytest.raises(mqttpipe.LocalError, match="QoS not supported"):
        client.mqtt.publish(topic, "x", 2)
    with pytest.raises(mqttpipe.LocalError, match="shared subscriptions not supported"):
        client.mqtt.subscribe("$share/group/" + topic)


def test_one_copy_with_several_identifiers_finds_each_callback(client, paho5, topic):  # noqa: F811
    got = []
    filters = ((1, topic + "/#"), (200, topic + "/+/b"), (30000, topic + "/a/b"))
    for number, topic_filter in filters:

        def keep(c, message, number=number):
            got.append((number, message.properties["subscription_identifier"]))

        client.subscribe(topic_filter, keep, 1, properties={"subscription_identifier": number})
    paho5.publish(topic + "/a/b")
    client.until(lambda: len(got) >= 3)
    assert sorted(got) == [(number, [1, 200, 30000]) for number in (1, 200, 30000)]
