"""The command `mqttpipe`, also as `python -m mqttpipe_host`: tools/commands.py."""

import pathlib
import sys

FOLDER = pathlib.Path(__file__).resolve().parent
IS_INSTALLED = (FOLDER / "tools").is_dir()  # else this is a checkout


def main():
    tools = (FOLDER if IS_INSTALLED else FOLDER.parents[1]) / "tools"
    sys.path.insert(0, str(tools))
    import commands

    return commands.main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
