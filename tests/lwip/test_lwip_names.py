"""Host names on the emulated board, against a DNS server that does what a test says."""

from emulated_board import HOST

# 60 s of the address that this machine has for the board.
A_RECORD = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04" + bytes(map(int, HOST.split(".")))

# A DNS server on the board itself: lwIP's own resolver, which `tiny` has to take, asks port 53. It
# answers from a timer's callback, as a look-up by getaddrinfo() blocks the program.
OWN_SERVER = """
import socket, machine
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.setblocking(False)
server.bind(("0.0.0.0", 53))
asked = []
def serve(timer):
    try:
        query, who = server.recvfrom(512)
    except OSError:
        return
    asked.append(query)
    server.sendto(query[:2] + b"\\x81\\x80\\0\\1\\0\\1\\0\\0\\0\\0" + query[12:] + %r, who)
timer = machine.Timer(period=20, callback=serve)
lan.ifconfig(lan.ifconfig()[:3] + ("127.0.0.1",))
"""


def test_the_smallest_profile_finds_the_broker_with_lwip_s_own_resolver(start_client, broker):
    board = start_client("mqtt://broker.test:%d" % broker.port, profile="tiny")
    board.run(OWN_SERVER % A_RECORD)
    board.run("client.connect()")
    assert board.evaluate("watch.run(20_000, client.is_online)") is True
    assert board.evaluate("len(asked)") == 1
    assert board.evaluate("watch.events") == [("online",)]
