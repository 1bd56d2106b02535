"""Make the project's virtual environment `.venv`, and install what a task needs into it.

    python3 tools/setup_env.py                          for the tests
    python3 tools/setup_env.py requirements-demo.txt    for the demo (a file of tools/)

Where pip has installed the tools there is no checkout to hold it. What they need is then taken
from the python that runs, if it has that (`pip install mqttpipe[board]`), else from an environment
in the user's folder for caches.

Other tools call `reexec_in_venv("requirements-test.txt")` first thing: from then on they run under
the environment's python, whatever python they were started with. A stamp in `.venv` for each
requirement file says that it is installed, so the second time takes no time and prints nothing.
`ensure_debian_package("mosquitto", "mosquitto")` does the like for a program of the system.

Only the standard library is used here: this is what runs on a machine that has nothing yet.
"""

import contextlib
import functools
import hashlib
import os
import pathlib
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
import time

try:
    import fcntl
except ImportError:
    fcntl = None  # Windows: nothing keeps two set-ups apart there

if sys.version_info < (3, 9):
    sys.exit("setup: Python 3.9 or later is needed; this is %d.%d" % sys.version_info[:2])

ROOT = pathlib.Path(__file__).resolve().parent.parent
TOOLS = ROOT / "tools"
IS_CHECKOUT = (ROOT / "pyproject.toml").exists()  # else pip has installed it: mqttpipe_host/


def private_folder():
    """Return a folder among the temporary ones that nobody else writes to: programs will be in it.

    It is the same one each time, unless somebody has put something else there.
    """
    user = getattr(os, "getuid", int)()
    folder = pathlib.Path(tempfile.gettempdir(), "mqttpipe-%d" % user)
    with contextlib.suppress(OSError):
        folder.mkdir(0o700, exist_ok=True)
        found = folder.lstat()
        if stat.S_ISDIR(found.st_mode) and found.st_uid == user and not found.st_mode & 0o022:
            return folder
    return pathlib.Path(tempfile.mkdtemp(prefix="mqttpipe-"))


def user_folder():
    """Return the folder in which a user is, who has no checkout."""
    try:
        return pathlib.Path.cwd()
    except OSError:  # it was removed meanwhile; most of what there is to do needs none
        return pathlib.Path()


def user_cache():
    """Return the folder for what a user's programs can make again, by the system's convention."""
    home = pathlib.Path(os.path.expanduser("~"))
    if not home.is_absolute():  # a user without a home, as containers have them
        home = private_folder()
    if os.name == "nt":
        return pathlib.Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    if sys.platform == "darwin":
        return home / "Library" / "Caches"
    folder = pathlib.Path(os.environ.get("XDG_CACHE_HOME", ""))
    return folder if folder.is_absolute() else home / ".cache"  # else it counts for nothing


# What the tools make and download. A checkout keeps it in itself; what pip has installed is not to
# be written to.
CACHE = ROOT / ".cache" if IS_CHECKOUT else user_cache() / "mqttpipe"
VENV = ROOT / ".venv" if IS_CHECKOUT else CACHE / "venv"

# Where the user's own secrets.py, main.py and certificates stand.
USER_FOLDER = ROOT / "boards" if IS_CHECKOUT else user_folder()

# In `.venv` while it is being changed. Who finds it at the start finds what an interrupted run
# left, where pip may take a half-copied package for an installed one: all is made again.
HALF_MADE = "half-made"

# Seconds; these bound a dead network or a hung package manager, not a slow one.
SHORT_TIMEOUT_S = 30
VENV_TIMEOUT_S = 180
PIP_TIMEOUT_S = 900
APT_TIMEOUT_S = 900
LOCK_TIMEOUT_S = 2 * APT_TIMEOUT_S + 60  # of who waits: the other runs apt-get twice at most
LOCK_LOOK_S = 0.1
HEARTBEAT_S = 10

# One for the machine: "apt-get update" fails while another reads the lists. In root's own folder.
APT_LOCK = pathlib.Path("/run/mqttpipe-apt.lock")

# Debian starts a service as soon as its package is installed. With this file in place it does not:
# 101 is "forbidden by policy" (invoke-rc.d(8)).
POLICY = pathlib.Path("/usr/sbin/policy-rc.d")
POLICY_TEXT = """\
#!/bin/sh
# From mqttpipe's tools/setup_env.py, which deletes it again. Delete it if you find it.
exit 101
"""


class SetupError(Exception):
    """Something that a person must do first; the message is one line that says what."""


class TooSlow(SetupError):
    """A program did not end in time, and was ended: what it was to do is half done."""


def say(text):
    # Not to stdout: that is the output of the tool that has something set up.
    print("setup: " + text, file=sys.stderr, flush=True)


# ---------------------------------------------------------------------------
# Running other programs
# ---------------------------------------------------------------------------


def run(command, timeout_s, cwd=None, env=None):
    """Run a command and return its output; raise SetupError with its last words if it fails.

    Says that it is still at work every 10 s, so that a slow network does not look like a hang.
    """
    command = [str(word) for word in command]
    name = " ".join([pathlib.Path(command[0]).name] + [w for w in command[1:] if "/" not in w][:3])
    with tempfile.TemporaryFile() as output:
        try:
            process = subprocess.Popen(
                command,
                cwd=cwd,
                env=dict(os.environ, **(env or {})),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                close_fds=False,  # it keeps the lock of one_at_a_time() with us
            )
        except OSError as error:
            raise SetupError("%s does not start: %s" % (name, error)) from error
        began = time.monotonic()
        try:
            while process.poll() is None:
                elapsed_s = time.monotonic() - began
                if elapsed_s >= timeout_s:
                    raise TooSlow("%s did not end within %d s" % (name, timeout_s))
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(min(HEARTBEAT_S, timeout_s - elapsed_s))
                    continue
                say("... %s: %d s" % (name, time.monotonic() - began))
        finally:
            if process.poll() is None:  # also when Ctrl-C ends the wait
                process.kill()
                process.wait()
        output.seek(0)
        text = output.read().decode(errors="replace")
    if process.returncode != 0:
        raise SetupError("%s failed (%d): %s" % (name, process.returncode, last_words(text)))
    return text


@contextlib.contextmanager
def one_at_a_time(lock_file):
    """Hold a lock while the body runs: two tools started at once must not disturb each other.

    The system drops the lock of a process that was killed. Programs started by run() hold it too:
    a pip that outlives its parent goes on writing, and nobody may remove its folder meanwhile.

    Raises SetupError: the file can't be written, or another holds it for LOCK_TIMEOUT_S.
    """
    try:
        lock_file.parent.mkdir(parents=True, exist_ok=True)
        lock = open(lock_file, "w")
    except OSError as error:
        raise SetupError("can't write %s: %s" % (lock_file, error.strerror)) from error
    with lock:
        if fcntl:
            wait_for_lock(lock)
            os.set_inheritable(lock.fileno(), True)
        yield


def wait_for_lock(lock):
    deadline_s = None
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            if deadline_s is None:
                say("waiting for another set-up to end")
                deadline_s = time.monotonic() + LOCK_TIMEOUT_S
            elif time.monotonic() >= deadline_s:
                text = "another set-up holds %s for more than %d s"
                raise SetupError(text % (lock.name, LOCK_TIMEOUT_S)) from error
        except OSError as error:
            raise SetupError("can't lock %s: %s" % (lock.name, error.strerror)) from error
        time.sleep(LOCK_LOOK_S)


def last_words(text):
    """Return the lines of a program's output that tell why it failed, joined to one line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    beginnings = ("e:", "err:", "error", "dpkg: error", "could not fetch")  # apt, dpkg, pip
    errors = [line for line in lines if line.lower().startswith(beginnings)]
    return " / ".join(errors[-3:] or lines[-3:]) or "it printed nothing"


# ---------------------------------------------------------------------------
# The virtual environment
# ---------------------------------------------------------------------------


def named(venv):
    """Return how a virtual environment is called: whole, where it is not in a checkout."""
    return venv.name if IS_CHECKOUT else venv


def venv_python(venv):
    """Return where the python of a virtual environment is."""
    return venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def ask_version(python):
    """Return what the interpreter says of itself, "3.11"; None when it does not run."""
    # The system's python may have been upgraded under the environment, whose packages then lie in
    # a folder where the new one does not look. So it is asked, not read from pyvenv.cfg.
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        return run([python, "-c", code], SHORT_TIMEOUT_S).strip()
    except SetupError:
        return None


def requirements_stamp(requirement_file, version):
    """Return the text that says what is installed: it differs whenever pip must run again."""
    digest = hashlib.sha256(requirement_file.read_bytes()).hexdigest()
    return "%s on Python %s\n" % (digest, version)


def stamp_path(requirement_file, venv):
    """Return where the stamp of a requirement file is: one each, so that sets can be added."""
    return venv / ("stamp-" + requirement_file.name)


def is_usable(venv):
    """Tell whether `venv` is a whole virtual environment whose python runs."""
    python = venv_python(venv)
    # os.path's: it may lie where we have no right to look, as in another user's home.
    return os.path.exists(python) and not (venv / HALF_MADE).exists() and bool(ask_version(python))


def is_installed(requirement_file, venv):
    """Tell whether `venv` is usable and has everything in the requirement file."""
    stamp_file = stamp_path(requirement_file, venv)
    if not os.path.exists(stamp_file) or not is_usable(venv):
        return False
    version = ask_version(venv_python(venv))
    return stamp_file.read_text() == requirements_stamp(requirement_file, version)


def make_venv(venv):
    """Make a new virtual environment, in place of whatever is there."""
    try:
        import ensurepip  # noqa: F401  Debian has it in a package of its own
    except ImportError:
        say("this python has no ensurepip")
        install_debian_package("python3-venv")
    say("making %s with Python %d.%d" % (named(venv), *sys.version_info[:2]))
    venv = venv.resolve()  # behind a link, where somebody wants it to be
    shutil.rmtree(venv, ignore_errors=True)
    venv.mkdir()
    (venv / HALF_MADE).touch()
    # Not sys.executable: when that is the python of the environment being replaced, it is gone.
    python = getattr(sys, "_base_executable", None) or sys.executable
    run([python, "-m", "venv", venv], VENV_TIMEOUT_S, cwd=venv)  # cwd: see install()
    (venv / HALF_MADE).unlink()


def install(requirement_file, venv):
    """Install everything in the requirement file into a usable `venv`, and stamp it."""
    say("installing %s into %s" % (requirement_file.name, named(venv)))
    began = time.monotonic()
    python = venv_python(venv)
    half_made = venv / HALF_MADE
    half_made.touch()
    try:
        run(
            [python, "-m", "pip", "install", "-r", requirement_file],
            PIP_TIMEOUT_S,
            cwd=venv,  # a module that lies where the user is would stand before Python's own
            env={"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"},
        )
    except TooSlow:
        raise
    except SetupError:
        # pip gave up by itself and left things in order (no network, no such version, ...).
        half_made.unlink()
        raise
    stamp = requirements_stamp(requirement_file, ask_version(python))
    stamp_path(requirement_file, venv).write_text(stamp)
    half_made.unlink()
    say("installed in %.1f s" % (time.monotonic() - began))


def ensure_venv(requirement_file, venv=VENV):
    """Make sure that `venv` exists with everything in a requirement file; return its python.

    Args:
        requirement_file: a path, or the name of a file in tools/.

    Raises:
        SetupError: it can't be made; the message says why.
    """
    requirement_file = TOOLS / requirement_file
    if not is_installed(requirement_file, venv):
        with one_at_a_time(CACHE / "setup.lock"):
            try:
                if not is_usable(venv):
                    make_venv(venv)
                if not is_installed(requirement_file, venv):  # nobody else did, while we waited
                    install(requirement_file, venv)
            except OSError as error:  # read-only, full, or something else of that name
                raise SetupError("can't write %s: %s" % (venv, error.strerror)) from error
    return venv_python(venv)


def release_numbers(version):
    """Return the numbers that a version begins with, as a list: "1.29.0.post2" is [1, 29, 0]."""
    return [int(number) for number in re.match(r"[0-9.]*", version)[0].split(".") if number]


def has_requirements(requirement_file):
    """Tell whether this python has everything in a requirement file, or newer versions of it."""
    import importlib.metadata  # it takes longer than all other modules together

    for line in (TOOLS / requirement_file).read_text().splitlines():
        name, _, version = line.partition("#")[0].strip().partition("==")
        if name:
            try:
                found = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                return False
            if release_numbers(found) < release_numbers(version):
                return False
    return True


def find_python(requirement_file):
    """Return the Path of a python that has everything in a requirement file.

    It is this one where pip has brought tools and requirements, else that of `.venv`, which is
    made. Raises SetupError if it can't be.
    """
    if not IS_CHECKOUT and has_requirements(requirement_file):
        return pathlib.Path(sys.executable)
    return ensure_venv(requirement_file)


def reexec_in_venv(requirement_file):
    """Continue this program under a python that has the requirements; see find_python().

    To be called before anything else is done: the program starts again from its beginning.
    """
    try:
        python = find_python(requirement_file)
    except SetupError as error:
        sys.exit("setup: %s" % error)
    except KeyboardInterrupt:
        say("stopped")
        sys.exit(130)
    is_this_one = python == pathlib.Path(sys.executable)
    if not is_this_one and pathlib.Path(sys.prefix).resolve() != VENV.resolve():
        if sys.stdout is not None:  # else it was closed by who has started us
            sys.stdout.flush()
        os.execv(python, [str(python), os.path.abspath(sys.argv[0]), *sys.argv[1:]])


# ---------------------------------------------------------------------------
# Programs of the system
# ---------------------------------------------------------------------------


def find_program(binary):
    """Return the path of a program, also when only root has its folder on the PATH; else None."""
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    return shutil.which(binary, path=os.pathsep.join(folders + ["/usr/local/sbin", "/usr/sbin"]))


@functools.cache
def _setpriv():
    """Return util-linux's setpriv, or None: busybox has one that can do less."""
    program = find_program("setpriv")
    if program:
        helped = subprocess.run([program, "--help"], capture_output=True, text=True, timeout=10)
        if "--pdeathsig" in helped.stdout:
            return program
    return None


def dying_with_us(command):
    """Return a command that Linux kills when we end, even if we are killed and can't do it.

    Linux looks at the thread that starts it. Only the main one surely lasts as long as we do.
    """
    if threading.current_thread() is threading.main_thread() and _setpriv():
        return [_setpriv(), "--pdeathsig", "KILL", "--", *command]
    return command


def is_root():
    return hasattr(os, "geteuid") and os.geteuid() == 0


def run_apt(*packages):
    """Install packages, with a policy in place that starts no service."""
    if POLICY.exists() and POLICY.read_text(errors="replace") == POLICY_TEXT:
        POLICY.unlink()
    had_policy = POLICY.exists()
    env = {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
    lock = ["-o", "DPkg::Lock::Timeout=120"]
    run(["apt-get", "-q", *lock, "update"], APT_TIMEOUT_S, env=env)
    try:
        if not had_policy:
            POLICY.write_text(POLICY_TEXT)
            POLICY.chmod(0o755)
        command = ["apt-get", "install", "-q", "-y", "--no-install-recommends", *lock]
        run([*command, *packages], APT_TIMEOUT_S, env=env)
    finally:
        if not had_policy:
            POLICY.unlink()


def install_debian_package(*packages):
    """Install packages with apt-get, without starting their services; root's business.

    Raises SetupError, which names them all: none is installed if one can't be.
    """
    names = " ".join(packages)
    if not shutil.which("apt-get"):
        raise SetupError("please install %s (not a Debian system: no apt-get)" % names)
    if not is_root():
        raise SetupError("please run: sudo apt-get install %s" % names)
    say("installing Debian's %s" % names)
    with one_at_a_time(APT_LOCK):
        run_apt(*packages)
    # Nor shall it start with the machine: a service that nobody asked for would take the port.
    for package in packages:
        unit = pathlib.Path("/lib/systemd/system") / (package + ".service")
        if unit.exists() and shutil.which("systemctl"):
            run(["systemctl", "disable", package], SHORT_TIMEOUT_S)
            say("%s is installed; its service is neither started nor enabled" % package)


def ensure_debian_package(binary, package):
    """Return the path of a program, after installing its Debian package if it lacks.

    Raises SetupError, whose message says what to install, when that can't be done here.
    """
    found = find_program(binary)
    if not found:
        install_debian_package(package)
        found = find_program(binary)
    if not found:
        raise SetupError("Debian's package %s brought no program %s" % (package, binary))
    return found


def check_for_make(*paths):
    """Raise SetupError for a path that no makefile can have in it."""
    for path in paths:
        if re.search(r"\s", str(path)):
            raise SetupError("'%s': make takes a path with a blank for two: move it" % path)


def main():
    if len(sys.argv) > 2 or any(word.startswith("-") for word in sys.argv[1:]):
        print(__doc__)
        return 0 if set(sys.argv[1:]) & {"-h", "--help"} else 2
    requirement_file = sys.argv[1] if len(sys.argv) == 2 else "requirements-test.txt"
    if not (TOOLS / requirement_file).is_file():
        sys.exit("setup: there is no %s" % (TOOLS / requirement_file))
    try:
        ensure_venv(requirement_file)
    except SetupError as error:
        sys.exit("setup: %s" % error)
    except KeyboardInterrupt:
        say("stopped")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
