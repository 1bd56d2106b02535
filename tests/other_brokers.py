"""Brokers other than mosquitto, for tests/broker/test_other_brokers.py.

    with other_brokers.start("rabbitmq") as broker:     or a BrokerError that says what is missing
        ... broker.uri, broker.description ...

- rabbitmq: Debian's package rabbitmq-server with its MQTT plugin, as a node of its own: nothing of
  the system's one is used or changed. It needs about 15 s to start.
- rabbitmq4: RabbitMQ 4, which speaks MQTT 5.0, of Debian 13, with the Erlang that it needs:
  unpacked into .cache/brokers, and started with that folder as its root, which only root may.
- activemq: Debian's packages activemq and libmqtt-client-java, which the first one forgets; in its
  own folder as well.
- aedes: from npm, into .cache/brokers; needs Node.js 20.
- amqtt: from PyPI, into .venv; the demo's script starts it.

Each listens on a free port of 127.0.0.1 only, takes anybody, and ends with its process.
"""

import contextlib
import os
import pathlib
import re
import shutil
import subprocess
import sys

import get_micropython
import servers
import setup_env

ROOT = setup_env.ROOT
CACHE = ROOT / ".cache" / "brokers"

AEDES = "aedes@1.2.0"
NODE_MIN = 20
NPM_TIMEOUT_S = 300

AEDES_SCRIPT = """\
const net = require("net")
import("aedes").then(async ({ Aedes }) => {
  const broker = await Aedes.createBroker()
  net.createServer(broker.handle).listen(Number(process.argv[2]), "127.0.0.1")
})
process.stdin.on("end", () => process.exit(0))
process.stdin.resume()
"""

RABBITMQ_HOME = pathlib.Path("/usr/lib/rabbitmq")
RABBITMQ_CONFIGURATION = """\
listeners.tcp = none
mqtt.listeners.tcp.1 = 127.0.0.1:%d
mqtt.allow_anonymous = true
mqtt.default_user = guest
mqtt.default_pass = guest
log.console = true
log.file = false
"""

RABBITMQ_4 = "rabbitmq-4"
# dash: the shell of its scripts, with what they call.
RABBITMQ_4_PACKAGES = (
    "rabbitmq-server",
    "base-files",
    "dash",
    "coreutils",
    "sed",
    "grep",
    "procps",
)
RABBITMQ_4_CONFIGURATION = RABBITMQ_CONFIGURATION.replace(
    "mqtt.default_user", "anonymous_login_user"
).replace("mqtt.default_pass", "anonymous_login_pass")
DOWNLOAD_TIMEOUT_S = 600  # of 70 MB
# In namespaces of its own: what it mounts is seen by nobody else, and all it has started ends
# with it. %s: its root, and the folder of this broker.
RABBITMQ_4_START = (
    "mount --bind /dev %(root)s/dev && mount -t proc proc %(root)s/proc && "
    "mount --bind %(folder)s %(root)s/mnt && "
    "exec chroot %(root)s /usr/lib/rabbitmq/bin/rabbitmq-server"
)

ACTIVEMQ_CODEC = pathlib.Path("/usr/share/java/mqtt-client.jar")
ACTIVEMQ_CONFIGURATION = """\
<beans xmlns="http://www.springframework.org/schema/beans"
    xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
    xsi:schemaLocation="http://www.springframework.org/schema/beans
        http://www.springframework.org/schema/beans/spring-beans.xsd
        http://activemq.apache.org/schema/core
        http://activemq.apache.org/schema/core/activemq-core.xsd">
  <broker xmlns="http://activemq.apache.org/schema/core" brokerName="tests" useJmx="false"
      dataDirectory="%s/data">
    <transportConnectors>
      <transportConnector name="mqtt" uri="mqtt://127.0.0.1:%d"/>
    </transportConnectors>
  </broker>
</beans>
"""


class OtherBroker(servers.ProcessBroker):
    """A broker that is one process, started by `_command(port)` with `_environment()`."""

    stop_timeout_s = 10

    def _command(self, port):
        raise NotImplementedError

    def _environment(self, port):
        return {}

    def _launch(self, port):
        self._make_folder()
        command = self._command(port)
        with open(self._folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                [str(word) for word in command],
                env=dict(os.environ, **self._environment(port)),
                cwd=str(self._folder),
                stdin=subprocess.PIPE,  # node and amqtt end with it
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def _check_alive(self):
        if self._process.poll() is not None:
            raise servers.BrokerError("%s ended by itself\n%s" % (self.description, self.log()))


class Aedes(OtherBroker):
    def __init__(self):
        super().__init__()
        self._node = setup_env.ensure_debian_package("node", "nodejs")
        version = setup_env.run([self._node, "--version"], setup_env.SHORT_TIMEOUT_S).strip()
        if int(re.match(r"v(\d+)", version).group(1)) < NODE_MIN:
            raise servers.BrokerError(
                "%s needs Node.js %d, here is %s" % (AEDES, NODE_MIN, version)
            )
        self.description = "%s on Node.js %s" % (AEDES, version)
        self._home = CACHE / AEDES
        if not (self._home / "node_modules" / "aedes").is_dir():
            npm = setup_env.ensure_debian_package("npm", "npm")
            made = CACHE / (AEDES + ".part")
            shutil.rmtree(made, ignore_errors=True)
            made.mkdir(parents=True)
            command = [npm, "install", "--no-audit", "--no-fund", "--prefix", made, AEDES]
            setup_env.run(command, NPM_TIMEOUT_S)
            shutil.rmtree(self._home, ignore_errors=True)
            made.rename(self._home)

    def _command(self, port):
        script = self._home / "broker.cjs"  # beside what it imports
        script.write_text(AEDES_SCRIPT)
        return [self._node, script, port]


class Amqtt(OtherBroker):
    def __init__(self):
        super().__init__()
        setup_env.ensure_venv("requirements-demo.txt")
        python = setup_env.venv_python(setup_env.VENV)
        code = "import importlib.metadata; print(importlib.metadata.version('amqtt'))"
        version = setup_env.run([python, "-c", code], setup_env.SHORT_TIMEOUT_S).strip()
        self.description = "amqtt %s on Python %d.%d" % (version, *sys.version_info[:2])
        self._python = python

    def _command(self, port):
        return [self._python, ROOT / "tools" / "demo" / "amqtt_broker.py", port]


class RabbitMq(OtherBroker):
    start_timeout_s = 60

    def __init__(self):
        super().__init__()
        setup_env.ensure_debian_package("rabbitmq-server", "rabbitmq-server")
        self._epmd = None
        (home,) = RABBITMQ_HOME.glob("lib/rabbitmq_server-*")
        self.description = "RabbitMQ %s" % home.name.partition("-")[2]

    # Its nodes find each other through a process that would outlive them: this one has its own.
    def _launch(self, port):
        self._make_folder()
        self._epmd_port = servers.free_port()
        self._epmd = subprocess.Popen(
            ["epmd", "-port", str(self._epmd_port), "-address", "127.0.0.1"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._write_file("rabbitmq.conf", RABBITMQ_CONFIGURATION % port)
        self._write_file("enabled_plugins", "[rabbitmq_mqtt].\n")
        super()._launch(port)

    def _command(self, port):
        # The one in /usr/sbin changes to the user rabbitmq and to the system's own settings.
        return [RABBITMQ_HOME / "bin" / "rabbitmq-server"]

    def _environment(self, port):
        folder = str(self._folder)
        return {
            "HOME": folder,  # where the cookie lies
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": "mqttpipe%d@localhost" % port,
            "RABBITMQ_DIST_PORT": str(servers.free_port()),
            "RABBITMQ_MNESIA_BASE": folder + "/data",
            "RABBITMQ_LOG_BASE": folder + "/logs",
            "RABBITMQ_CONFIG_FILE": folder + "/rabbitmq.conf",
            "RABBITMQ_ENABLED_PLUGINS_FILE": folder + "/enabled_plugins",
            "RABBITMQ_CONF_ENV_FILE": os.devnull,
        }

    def _kill(self):
        super()._kill()
        if self._epmd:
            self._epmd.kill()
            self._epmd.wait()
            self._epmd = None


class RabbitMq4(OtherBroker):
    start_timeout_s = 90

    def __init__(self):
        super().__init__()
        if os.geteuid():
            raise servers.BrokerError("RabbitMQ 4 needs to be root here, for chroot")
        self._root = unpack_debian_13(RABBITMQ_4, RABBITMQ_4_PACKAGES)
        (home,) = self._root.glob("usr/lib/rabbitmq/lib/rabbitmq_server-*")
        self.description = "RabbitMQ %s" % home.name.partition("-")[2]

    def _launch(self, port):
        self._make_folder()
        self._write_file("rabbitmq.conf", RABBITMQ_4_CONFIGURATION % port)
        self._write_file("enabled_plugins", "[rabbitmq_mqtt].\n")
        super()._launch(port)

    def _command(self, port):
        start = RABBITMQ_4_START % {"root": self._root, "folder": self._folder}
        return ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", start]

    def _environment(self, port):
        return {
            "HOME": "/mnt",  # where the cookie lies
            "LC_ALL": "C.UTF-8",
            "ERL_EPMD_PORT": str(servers.free_port()),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": "mqttpipe%d@localhost" % port,
            "RABBITMQ_DIST_PORT": str(servers.free_port()),
            "RABBITMQ_MNESIA_BASE": "/mnt/data",
            "RABBITMQ_LOG_BASE": "/mnt/logs",
            "RABBITMQ_CONFIG_FILE": "/mnt/rabbitmq.conf",
            "RABBITMQ_ENABLED_PLUGINS_FILE": "/mnt/enabled_plugins",
            "RABBITMQ_CONF_ENV_FILE": os.devnull,
        }


def unpack_debian_13(name, packages):
    """Return a folder with these packages and all that they depend on, getting it if it lacks."""
    place = CACHE / name
    with setup_env.one_at_a_time(CACHE / ".lock"):
        if place.is_dir():
            return place
        keyring = next((k for k in get_micropython.KEYRINGS if os.path.isfile(k)), None)
        mirrors = get_micropython.find_mirrors()
        if keyring is None or not mirrors:
            raise servers.BrokerError("%s: needs Debian's keyring and a mirror of it" % name)
        work = CACHE / (name + ".part")
        shutil.rmtree(work, ignore_errors=True)
        apt = work / "apt"
        configuration = get_micropython.write_apt_state(
            apt, "amd64", mirrors[0], get_micropython.RELEASE, keyring
        )
        apt_get = ["apt-get", "-c", configuration, "-q"]
        setup_env.run([*apt_get, "update", "--error-on=any"], DOWNLOAD_TIMEOUT_S)
        how = ["install", "-y", "--no-install-recommends", "--download-only"]
        setup_env.run([*apt_get, *how, *packages], DOWNLOAD_TIMEOUT_S)
        root = work / "root"
        root.mkdir()
        for package in sorted(apt.glob("cache/archives/*.deb")):
            setup_env.run(["dpkg", "-x", package, root], setup_env.SHORT_TIMEOUT_S)
        (root / "usr" / "bin" / "sh").unlink(missing_ok=True)
        (root / "usr" / "bin" / "sh").symlink_to("dash")
        (root / "mnt").mkdir()
        (root / "etc" / "passwd").write_text("root:x:0:0:root:/mnt:/bin/sh\n")
        (root / "etc" / "group").write_text("root:x:0:\n")
        (root / "etc" / "hosts").write_text("127.0.0.1 localhost\n")
        root.rename(place)
        shutil.rmtree(work, ignore_errors=True)
    return place


class ActiveMq(OtherBroker):
    start_timeout_s = 60

    def __init__(self):
        super().__init__()
        setup_env.ensure_debian_package("activemq", "activemq")
        if not ACTIVEMQ_CODEC.exists():
            setup_env.install_debian_package("libmqtt-client-java")
        self._java = setup_env.ensure_debian_package("java", "default-jre-headless")
        (versioned,) = ACTIVEMQ_CODEC.parent.glob("activemq-mqtt-*.jar")
        self.description = "ActiveMQ %s" % versioned.stem.rpartition("-")[2]

    def _launch(self, port):
        self._make_folder()
        self._write_file("activemq.xml", ACTIVEMQ_CONFIGURATION % (self._folder, port))
        (self._folder / "lib").mkdir(exist_ok=True)
        with contextlib.suppress(FileExistsError):
            (self._folder / "lib" / ACTIVEMQ_CODEC.name).symlink_to(ACTIVEMQ_CODEC)
        super()._launch(port)

    def _command(self, port):
        return [
            self._java,
            "-Xmx256m",
            "-Dactivemq.home=/usr/share/activemq",
            "-Dactivemq.base=%s" % self._folder,
            "-jar",
            "/usr/share/activemq/bin/activemq.jar",
            "start",
            "xbean:file:%s/activemq.xml" % self._folder,
        ]


KINDS = {
    "rabbitmq": RabbitMq,
    "rabbitmq4": RabbitMq4,
    "activemq": ActiveMq,
    "aedes": Aedes,
    "amqtt": Amqtt,
}


def start(name):
    """Return a running broker of this kind; raise BrokerError if it can't be had here."""
    try:
        broker = KINDS[name]()
    except setup_env.SetupError as error:
        raise servers.BrokerError("%s: %s" % (name, error)) from error
    try:
        broker.start()
    except BaseException:
        broker.close()
        raise
    return broker
