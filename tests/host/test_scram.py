"""micropython/examples/scram.py: the exchange of RFC 7677, alone and with a client."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
EXAMPLES = ROOT / "micropython" / "examples"

sys.path.append(str(EXAMPLES))

import scram  # noqa: E402

# RFC 7677, section 3.
NONCE = b"rOprNGfwEbeRWgbNEkqO"
PROOF = b"dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
EXCHANGE = (
    (None, b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"),
    (
        b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=" + PROOF,
    ),
    (b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=", None),
)

# A client and a scripted server that says what RFC 7677 says.
PROGRAM = """
import scram
from fakes import Bench
from mqtt5 import connack, take_apart

exchange = %r


def field(number, text):
    return bytes((number, 0, len(text))) + text


def auth(text):
    properties = field(0x15, b"SCRAM-SHA-256") + field(0x16, text)
    return bytes((0xF0, 2 + len(properties), 0x18, len(properties))) + properties


function = scram.Scram("user", "pencil", %r)
bench = Bench(protocol=5, auth=("SCRAM-SHA-256", function))
for turn in range(2):
    bench.client.connect()
    bench.steps()
    properties = take_apart(bench.server.received())[2]
    assert field(0x16, exchange[0][1]) in properties, properties
    assert bench.exchange(auth(exchange[1][0])) == auth(exchange[1][1])
    server_final = exchange[2][0] if not turn else b"v=wrong"
    bench.exchange(connack(field(0x15, b"SCRAM-SHA-256") + field(0x16, server_final)))
    print(bench.client.state_name, bench.events[-1][0])
    bench.client.disconnect()
    bench.steps()
"""


def test_the_exchange_of_rfc_7677():
    function = scram.Scram("user", "pencil", NONCE)
    for _ in range(2):
        for heard, said in EXCHANGE:
            assert function(heard) == said


def test_a_server_that_does_not_know_the_password_is_found_out():
    for last in (b"", b"v=", b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G5=", b"e=no"):
        function = scram.Scram("user", "pencil", NONCE)
        for heard, said in EXCHANGE[:2]:
            assert function(heard) == said
        with pytest.raises(ValueError, match="does not know"):
            function(last)


@pytest.mark.parametrize(
    "heard",
    [
        b"",
        b"r=rOprNGfwEbeRWgbNEkqO,s=W22Z,i=4096",  # no nonce of its own
        b"r=other,s=W22Z,i=4096",
        b"r=rOprNGfwEbeRWgbNEkqOx,s=,i=4096",
        b"r=rOprNGfwEbeRWgbNEkqOx,s=W22Z,i=0",
        b"r=rOprNGfwEbeRWgbNEkqOx,s=W22Z,i=1000000",
        b"r=rOprNGfwEbeRWgbNEkqOx,s=W22Z,i=x",
    ],
)
def test_what_is_no_scram_or_takes_too_long_is_refused(heard):
    function = scram.Scram("user", "pencil", NONCE)
    function(None)
    with pytest.raises(ValueError):
        function(heard)


def test_a_user_is_escaped_and_must_be_ascii_as_the_password():
    assert scram.Scram("a=b,c", "", NONCE)(None) == b"n,,n=a=3Db=2Cc,r=" + NONCE
    assert scram.Scram("a", "p" * 100, NONCE)(None)
    for user, password in (("\u00fc", "p"), ("u", "\u20ac"), ("u", "\x7f")):
        with pytest.raises(ValueError):
            scram.Scram(user, password)
    assert scram.Scram("u", "p")(None) != scram.Scram("u", "p")(None), "a nonce of its own"


@pytest.mark.timeout(120)  # 4,096 iterations in Python
@pytest.mark.parametrize("name", ["CPython", "MicroPython 64-bit", "MicroPython 32-bit"])
def test_with_a_scripted_server_in_each_interpreter(name, get_interpreter):
    interpreter = get_interpreter(name)
    folders = [EXAMPLES, ROOT / "micropython", ROOT / "tests" / "portable"]
    variable = "MICROPYPATH"
    if name == "CPython":
        folders.append(ROOT / "cpython_shim")
        variable = "PYTHONPATH"
    path = os.pathsep.join([str(folder) for folder in folders] + [".frozen"] * (name != "CPython"))
    ran = subprocess.run(
        [*interpreter.command, "-c", PROGRAM % (EXCHANGE, NONCE)],
        env=dict(os.environ, **{variable: path}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=100,
        text=True,
    )
    assert ran.stdout.split() == ["ONLINE", "online", "WAITING", "offline"], ran.stdout
