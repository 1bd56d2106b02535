"""Copies of the project that share its virtual environment."""

import setup_env


def share_environment(folder):
    """Give the copy of the project in `folder` this one's environment.

    And its lock: another test may just be installing something into it.
    """
    (folder / ".venv").symlink_to(setup_env.VENV)
    (folder / ".cache").mkdir()
    (folder / ".cache" / "setup.lock").symlink_to(setup_env.CACHE / "setup.lock")
