"""Runs on the board, for tools/board_report.py: print what its program has counted, as one dict.

The program was stopped, and its modules and names are still there: they are looked at. Nothing is
changed on the board, and nothing of secrets.py is read.
"""

import sys

try:
    from sys import version as firmware
except ImportError:
    firmware = ""


def find_client(client_class):
    """Return the client that a program has among its names, or None."""
    for value in globals().values():
        if client_class is not None and isinstance(value, client_class):
            return value


def count():
    """Return what the program's Station has counted; without one, what its client tells."""
    station = sys.modules.get("station")
    figures = getattr(station, "figures", None)
    latest = getattr(station, "latest", None)  # of a program that does without boot()
    if figures is None and latest is not None:
        figures = latest.count()
    if figures is None:
        client = find_client(getattr(mqttpipe, "MQTTClient", None))
        figures = {name: None for name in ("uptime_s", "offline_s", "connections", "memory_free")}
        figures["state"] = getattr(client, "state_name", None)
        figures["stats"] = getattr(client, "stats", {})
    return figures


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
