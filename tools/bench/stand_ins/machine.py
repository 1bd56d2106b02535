"""What mqtt_as imports and the unix port lacks."""


def unique_id():
    return b"benchboard"
