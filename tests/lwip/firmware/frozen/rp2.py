"""Of the Pico W's own module: what boards/rp2_pico_w/main.py asks for."""


def bootsel_button():
    return 0
