"""Install this checkout as a user would: a wheel of it, in an environment that has nothing else.

python = tools_python()                   one with hatchling and type checkers
wheel = make_wheel(folder)                with secrets of somebody's lying in the checkout
environment = Environment(folder)         virtual, without pip: .python, .command, .site
environment.install(wheel)
environment.add(tools_python())           as if mqttpipe[board] had been installed, too
checked([environment.command, "--version"], folder)
"""

import os
import pathlib
import shutil
import subprocess
import sys

import setup_env

ROOT = setup_env.ROOT
TIMEOUT_S = 100

# What the wheel is made of, and what somebody has of their own there.
PARTS = ("boards", "cpython_shim", "micropython", "tests/lwip/firmware", "tools")
FILES = (".gitignore", "LICENSE", "README.md", "pyproject.toml")
SECRETS = (
    "boards/secrets.py",
    "boards/esp32/secrets.py",
    "boards/ca.pem",
    "boards/common/key.der",
)
SECRET = "PASSWORD = 'secret of the tests'\n"

PIP = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}
KEPT = ("PATH", "HOME", "TMPDIR")  # of our own environment variables


def variables(**more):
    """Return the environment variables of a program that knows nothing of this checkout."""
    return {**{name: os.environ[name] for name in KEPT if name in os.environ}, **more}


def run(command, folder, **more):
    """Return (exit status, what it prints on stdout and stderr) of a program in a folder."""
    ran = subprocess.run(
        [str(word) for word in command],
        env=variables(**more),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT_S,
    )
    return ran.returncode, ran.stdout


def checked(command, folder, **more):
    """Return what a program prints, which must succeed."""
    status, printed = run(command, folder, **more)
    assert status == 0, printed
    return printed


def tools_python():
    """Return the Path of a python that has hatchling, type checkers, and what boards need."""
    setup_env.ensure_venv("requirements-deploy.txt")
    return setup_env.ensure_venv("requirements-package.txt")


def make_wheel(folder):
    """Return the Path of a wheel that is made of a copy of this checkout in `folder`."""
    leave = shutil.ignore_patterns("__pycache__", "secrets.py", "*.pem", "*.der", "*.mpy")
    for part in PARTS:
        shutil.copytree(ROOT / part, folder / part, ignore=leave)
    for name in FILES:
        shutil.copy(ROOT / name, folder / name)
    for name in SECRETS:
        (folder / name).write_text(SECRET)
    command = [tools_python(), "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    checked([*command, "-w", folder / "dist", folder], folder, **PIP)
    (made,) = (folder / "dist").glob("*.whl")
    return made


class Environment:
    """A virtual environment: `python`, `command` (mqttpipe), `site` (site-packages)."""

    def __init__(self, folder):
        checked([sys.executable, "-m", "venv", "--without-pip", folder], folder.parent)
        self.python = setup_env.venv_python(folder)
        self.command = self.python.with_name("mqttpipe")
        self.site = site_of(self.python)

    def add(self, python):
        """Let it find all that another python has."""
        (self.site / "other.pth").write_text("%s\n" % site_of(python))

    def install(self, *words):
        pip = [tools_python(), "-m", "pip", "--python", self.python, "install", "-q", "--no-deps"]
        checked([*pip, "--no-index", "--no-build-isolation", *words], self.site, **PIP)


def site_of(python):
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    return pathlib.Path(checked([python, "-c", code], "/").strip())
