"""What mqttpipe takes of a board's memory, found in the 32-bit MicroPython of this machine.

    vm = vm_memory.find()                       None where it is not (tools/get_micropython.py)
    vm.ram(folder, "mqtt://127.0.0.1:1883")     a Ram: .import_bytes .client_bytes ...
    vm.rom_ram(folder, "mqtt://127.0.0.1:1883") the same, where the .mpy is executed from flash
    vm.import_bytes(folder)
    vm.allocations(folder, uri)                 name -> bytes, of what calls allocate
    vm.smallest_heap_kib(folder)

`folder` has mqttpipe.mpy or mqttpipe.py. For tools/build.py and tools/measure_size.py.

The method. The words of this VM are as wide as a board's, so its heap is one. Each figure is
a difference of two gc.mem_alloc(), each behind a gc.collect(): blocks of 16 bytes that are
in use: objects, bytecode, names (qstrs) and all. What was there before does not count: the modules
that the client imports are imported first, as any program that uses a network has them. Nor do
buffers that are not in this heap: those of the sockets, and mbedTLS's own. The collector takes
whatever looks like an address for one, so that now and then something may stay that nobody needs:
the least of a few runs counts.
"""

import os
import pathlib
import subprocess

import get_micropython

BITS = 32
RUNS = 2
TIMEOUT_S = 30

# The client's own connect_timeout_ms; here it ends a run that would else never end.
ONLINE_TIMEOUT_MS = 10_000

HEAP_KIB_MAX = 2048

# Every name that lives on is made before the first figure is taken, or the dictionary of
# globals would grow in between. Names of modules: as in the client's portability block.
BEGIN = """\
import gc, sys
for name in "binascii errno io micropython os select socket time tls _thread".split():
    __import__(name)
mqttpipe = client = end = None
figures = [0, 0, 0, 0]
uri = %(uri)r
options = {}
if %(ca_file)r:
    with open(%(ca_file)r, "rb") as file:
        options["ca"] = file.read()
    file = None

def deep(depth):
    return depth and deep(depth - 1)

def take(index):
    deep(30)  # or what calls have left on the C stack would keep objects that nobody needs
    gc.collect()
    gc.collect()
    figures[index] = gc.mem_alloc()

%(prelude)s
take(0)
take(0)
import mqttpipe
take(1)
"""

ROM_PRELUDE = """\
import vfs
with open(%r, "rb") as file:
    image = file.read()
file = None
vfs.mount(vfs.VfsRom(image), "/rom")
sys.path[:] = ["/rom", ".frozen"]
"""

CLIENT = """\
client = mqttpipe.MQTTClient(uri, **options)
take(2)
"""

CONNECTION = """\
client.on_offline = lambda client, error: print("offline:", error)
take(2)
client.connect()
if not client.wait_online(%(timeout_ms)d):
    sys.exit("not online: " + client.state_name)
take(3)
"""

# What calls allocate that are not of the steady state, with the collector off; payload: 64 bytes.
ALLOCATIONS = """\
PAYLOAD = b"x" * 64
spent = [-1] * len(NAMES)
start = 0

def begin():
    global start
    gc.collect()
    gc.disable()
    start = gc.mem_alloc()

def note(index):
    spent[index] = gc.mem_alloc() - start

def on_message(client, message):
    global start
    start = gc.mem_alloc()
    message.view
    note(2)
    start = gc.mem_alloc()
    message.view
    note(3)
    start = gc.mem_alloc()
    message.payload
    note(4)
    start = gc.mem_alloc()
    message.topic_name
    note(5)

def settle(token):
    while not client.is_done(token):
        client.step(100)

client = mqttpipe.MQTTClient(uri)
client.connect()
if not client.wait_online(%(timeout_ms)d):
    sys.exit("not online: " + client.state_name)
settle(client.publish("size/vm/x", PAYLOAD))
settle(client.publish(b"size/vm/x", PAYLOAD))  # a name that is known
begin()
client.publish(b"size/vm/x", PAYLOAD)
note(0)
text = str(PAYLOAD, "utf-8")
begin()
client.publish("size/vm/x", text)
note(1)
begin()
try:
    client.publish("size/vm/x", text, 7)
except mqttpipe.LocalError:
    pass
note(6)
settle(client.subscribe("size/vm/x", on_message))
client.publish("size/vm/x", PAYLOAD)
while spent[5] < 0:
    if not client.step(%(timeout_ms)d):
        sys.exit("nothing came back")
print("spent", " ".join(str(one) for one in spent))
"""
ALLOCATION_NAMES = (
    "publish() of bytes",
    "publish() of str",
    "the first message.view of its place and length",
    "message.view again",
    "message.payload",
    "message.topic_name",
    "LocalError of publish(), with its text",
)

END = """\
print("figures", figures[0], figures[1], figures[2], figures[3])
"""


class MemoryProbeError(Exception):
    """The VM did not do what it was to do; the message has its last line."""


class Ram:
    """Bytes of heap; `connection_bytes` is None without a server."""

    def __init__(self, figures):
        before, imported, made, online = figures
        self.import_bytes = imported - before
        self.client_bytes = made - imported
        self.connection_bytes = online - made if online else None


def find():
    """Return the Vm of this machine, or None."""
    command = get_micropython.find(BITS)
    return command and Vm(command)


class Vm:
    def __init__(self, command):
        self._command = command
        self.version = get_micropython.version(command)

    def ram(self, folder, uri="mqtt://192.0.2.1", ca_file="", is_online=False):
        """Return the Ram of import and client and, if `is_online`, of a connection.

        Args:
            folder: with the client. uri: of the server; it must be there if `is_online`.
            ca_file: name of a file, for mqtts://.
        """
        code = BEGIN + CLIENT + (CONNECTION if is_online else "") + END
        return self._least(folder, code, uri=uri, ca_file=ca_file)

    def rom_ram(self, folder, uri="mqtt://192.0.2.1", is_online=False):
        """The same for a client in an image of a ROMFS, `mqttpipe.romfs` in the folder.

        It is mounted from memory, which is taken before: as flash is on a board, it is not copied.
        """
        code = BEGIN + CLIENT + (CONNECTION if is_online else "") + END
        prelude = ROM_PRELUDE % str(pathlib.Path(folder) / "mqttpipe.romfs")
        return self._least(folder, code, uri=uri, prelude=prelude)

    def import_bytes(self, folder, prelude=""):
        """Return the bytes that the import takes.

        Args:
            prelude: lines of Python that run before.
        """
        return self._least(folder, BEGIN + END, prelude=prelude).import_bytes

    def allocations(self, folder, uri):
        """Return name -> bytes for calls that are not of the steady state, and some that are."""
        code = BEGIN + ALLOCATIONS.replace("NAMES", repr(ALLOCATION_NAMES))
        ran = self._run(
            folder, code % dict(uri=uri, ca_file="", prelude="", timeout_ms=ONLINE_TIMEOUT_MS)
        )
        words = last_line(ran.stdout).split()
        if ran.returncode != 0 or words[:1] != ["spent"]:
            raise MemoryProbeError(last_line(ran.stdout))
        return dict(zip(ALLOCATION_NAMES, map(int, words[1:])))

    def smallest_heap_kib(self, folder):
        """Return the smallest heap in which the client can be imported, in KiB."""
        too_small, enough = 0, 32
        while not self._imports(folder, enough):
            too_small, enough = enough, enough * 2
            if enough > HEAP_KIB_MAX:
                ran = self._run(folder, "import mqttpipe")
                raise MemoryProbeError("the client can't be imported: " + last_line(ran.stdout))
        while enough - too_small > 1:
            middle = (too_small + enough) // 2
            if self._imports(folder, middle):
                enough = middle
            else:
                too_small = middle
        return enough

    def _imports(self, folder, heap_kib):
        ran = self._run(folder, "import mqttpipe", "-X", "heapsize=%dk" % heap_kib)
        return ran.returncode == 0

    def _least(self, folder, code, uri="", ca_file="", prelude=""):
        code %= dict(uri=uri, ca_file=ca_file, prelude=prelude, timeout_ms=ONLINE_TIMEOUT_MS)
        least = None
        for _ in range(RUNS):
            ran = self._run(folder, code)
            words = last_line(ran.stdout).split()
            if ran.returncode != 0 or words[:1] != ["figures"]:
                raise MemoryProbeError(last_line(ran.stdout))
            figures = Ram([int(word) for word in words[1:]])
            least = figures if least is None else smaller(least, figures)
        return least

    def _run(self, folder, code, *options):
        return subprocess.run(
            [*self._command, *options, "-c", code],
            env=dict(os.environ, MICROPYPATH="%s:.frozen" % pathlib.Path(folder)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=TIMEOUT_S,
            text=True,
        )


def smaller(one, other):
    """Put the smaller figures of both into `one`."""
    for name, value in vars(other).items():
        if value is not None:
            setattr(one, name, min(value, getattr(one, name)))
    return one


def last_line(output):
    lines = output.strip().splitlines()
    return lines[-1] if lines else "it printed nothing"
