"""Runs on the board, for tools/board_report.py: print what its program has counted, as one dict.

The program was stopped, and its modules and names are still there: they are looked at. Nothing is
changed on the board, and nothing of secrets.py is read.
"""

import sys

try:
    from sys import version as firmware
except ImportError:
    firmware = ""

COUNTED = ("uptime_s", "offline_s", "connections")


def find_client(client_class):
    """Return the client that a program has among its names, or None."""
    for value in globals().values():
        if client_class is not None and isinstance(value, client_class):
            return value


def count():
    """Return what the program's Station has counted; without one, what its client tells."""
    station = getattr(sys.modules.get("station"), "latest", None)
    counted = {name: getattr(station, name, None) for name in COUNTED}
    if station is not None:
        if station.told is None:  # the program did without boot()
            station.leave()
        state, stats, counted["memory_free"] = station.told
    else:
        client = find_client(getattr(mqttpipe, "MQTTClient", None))
        state, stats = getattr(client, "state_name", None), getattr(client, "stats", None)
        counted["memory_free"] = None
    counted["state"] = state
    counted["stats"] = stats or {}
    return counted


def signal_dbm():
    try:
        import network

        return network.WLAN(network.STA_IF).status("rssi")
    except Exception:  # no Wi-Fi, or not joined: each port raises something else
        return None


mqttpipe = sys.modules.get("mqttpipe")
told = count()
told["firmware"] = firmware
told["client"] = getattr(mqttpipe, "__version__", None)
told["signal_dbm"] = signal_dbm()
print(repr(told))
