"""What only your board may know. Copy this file to boards/secrets.py and fill it in:

    cp boards/secrets_example.py boards/secrets.py

git ignores secrets.py, and no tool prints what is in it. tools/deploy.py puts it on the board.
"""

# Your Wi-Fi: name and password (None: an open network). With several, the strongest known is
# tried first: [("home", "..."), ("shed", "...")].
WIFI = [("name of your Wi-Fi", "its password")]

# Your MQTT server: mqtt://host, or mqtts://host over TLS; user and password, if it wants them.
SERVER = "mqtt://broker.example"
USER = None
PASSWORD = None

# What the board is called: in its topics, boards/NAME/..., and in the Wi-Fi. Letters, digits, -.
NAME = "mqttpipe-1"

# The country the board is in, two letters: for the channels that are legal there. None: worldwide.
COUNTRY = None

# (address, netmask, gateway, DNS server), if DHCP does not give one.
ADDRESS = None

# For mqtts:// only, where the date must be right: time servers, by name or address; and the
# certificate that your server's is signed with: PEM or DER, as bytes or the name of a file on the
# board. TLS = "insecure" does without both: nothing is verified then.
NTP = ()  # for example ("pool.ntp.org",)
CA = None
TLS = None
