"""A shared subscription with two members at a real broker: each message goes to one of them."""

import pytest

COUNT = 20


@pytest.mark.parametrize("qos", (0, 1))
def test_two_members_share_the_messages_and_their_callbacks_get_them(remote, peer, topic, qos):
    topic_filter = "$share/%s/%s/+/temp" % (topic.replace("/", "-"), topic)
    members = [remote(), remote()]
    for member in members:
        member.tell("subscribe_callback", topic_filter, qos)
        (token,) = member.next("token")
        assert member.next("subscribed") == [token, [qos]]
    names = ["%s/%d/temp" % (topic, number) for number in range(COUNT)]
    for number, name in enumerate(names):
        peer.publish(name, b"%d" % number, 1)
    came = []
    for number in range(COUNT):  # in turn, as mosquitto does
        came.append(members[number % 2].next("callback"))
    assert sorted(came) == sorted(
        [name, (b"%d" % number).hex()] for number, name in enumerate(names)
    )
    for member in members:
        assert not member.count("message") and not member.count("callback")
        member.finish()
