"""What mqtt_as imports and the unix port lacks: a Wi-Fi that is always there."""

STA_IF = 0


class WLAN:
    def __init__(self, interface):
        pass

    def active(self, is_active=True):
        return True

    def connect(self, *arguments):
        pass

    def isconnected(self):
        return True

    def disconnect(self):
        pass
