"""Nothing here is for pytest: ../test_board_files.py runs it, on CPython and in MicroPython."""

collect_ignore_glob = ["*.py"]
