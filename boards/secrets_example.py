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

# What the board is called in its topics, boards/NAME/..., and its Wi-Fi: 1..32 letters, digits, -.
NAME = "mqttpipe-1"

# The country the board is in, two letters: for the channels that are legal there. None: worldwide.
COUNTRY = None

# (address, netmask, gateway, DNS server), if DHCP does not give one.
ADDRESS = None

# For mqtts:// only, where the date must be right: time servers, by name or address.
NTP = ()  # for example ("pool.ntp.org",)

# For mqtts:// only: what is the server's certificate signed with? The name of a file, PEM or DER,
# that is beside this one, or on the board already.
#     python3 tools/deploy.py --ca FILE       puts FILE on the board, and its name here
#     python3 tools/deploy.py --public-ca     the same, if a well-known authority has signed it
# TLS = "insecure" does without, and without NTP: nothing is verified then.
CA = None
TLS = None

# A certificate of the board's own and its key, if the server asks for one: --cert FILE --key FILE.
CERT = None
KEY = None

# The client identifier: each client of a server needs another one. None: made from the number of
# the board's chip.
CLIENT_ID = None
