"""`pip install .` gives plain CPython an importable client and nothing that it should not."""

import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]


def run_code(code, target, folder):
    """Return what a Python prints that has nothing but what was installed."""
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(target), "PATH": "/usr/bin:/bin"},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_pip_install_makes_import_mqttpipe_work(tmp_path):
    target = tmp_path / "site"
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "-q",
            "--no-deps",
            "--target",
            str(target),
            str(TOP),
        ],
        check=True,
        timeout=110,
    )
    modules = sorted(path.name for path in target.glob("*.py"))
    assert "mqttpipe.py" in modules and "mqttpipe_repl.py" in modules
    # These two would make other programs believe that they run on a board.
    assert "micropython.py" not in modules and "machine.py" not in modules
    code = (
        "import mqttpipe; c = mqttpipe.MQTTClient('mqtt://127.0.0.1:9'); c.connect();"
        "print(mqttpipe.__version__, c.step(), mqttpipe.__file__)"
    )
    printed = run_code(code, target, tmp_path)
    version, happened, path = printed.split(maxsplit=2)
    assert happened == "True" and path.strip().startswith(str(target))
    code = "from mqttpipe_repl import *; mqtt_status(); mqtt_start('mqtt://')"
    printed = run_code(code, target, tmp_path)
    assert printed.startswith("not started: mqtt_start(uri)\nmqtt_start: "), printed
    assert 'version = "%s"' % version not in (TOP / "pyproject.toml").read_text(), "in one place"
