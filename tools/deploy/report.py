"""Runs on the board, for tools/board_report.py: print what its program has counted, as one dict.

The program was stopped, and nothing of it is gone: its modules and names are looked at. Nothing is
changed on the board, and nothing of secrets.py is read.
"""

import sys

try:
    from sys import version as firmware
except ImportError:
    firmware = ""


def find_client(client_class):
    """Return the client of the latest Station, or of a program that has one among its names."""
    if station is not None:
        return station._client
    for value in globals().values():
        if client_class is not None and isinstance(value, client_class):
            return value


def signal_dbm():
    try:
        import network

        return network.WLAN(network.STA_IF).status("rssi")
    except Exception:  # no Wi-Fi, or not joined: each port raises something else
        return None


mqttpipe = sys.modules.get("mqttpipe")
station = getattr(sys.modules.get("station"), "latest", None)
client = find_client(getattr(mqttpipe, "MQTTClient", None))
print(
    repr(
        {
            "firmware": firmware,
            "client": getattr(mqttpipe, "__version__", None),
            "state": getattr(client, "state_name", None),
            "stats": getattr(client, "stats", {}),
            "uptime_s": getattr(station, "uptime_s", None),
            "offline_s": getattr(station, "offline_s", None),
            "connections": getattr(station, "connections", None),
            "signal_dbm": signal_dbm(),
        }
    )
)
