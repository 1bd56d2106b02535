"""The workflows and forms of .github/: what can be said of them without running them.

They never ran: CONTRIBUTING.md says so. Two linters from PyPI read the workflows. actionlint knows
their language best, but its package fetches the program from GitHub, so where that can't be had
this one test is left out, and says so; zizmor knows what makes a workflow unsafe.
"""

import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import pytest
import yaml

import build_firmware
import check_types
import setup_env

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
GITHUB = ROOT / ".github"
WORKFLOWS = {
    path.stem: yaml.safe_load(path.read_text(encoding="utf-8"))
    for path in sorted((GITHUB / "workflows").glob("*.yml"))
}
FORMS = {
    path.stem: yaml.safe_load(path.read_text(encoding="utf-8"))
    for path in sorted((GITHUB / "ISSUE_TEMPLATE").glob("*.yml"))
    if path.stem != "config"
}
TIMEOUT_S = 60

# What a step may call beside the project's own commands.
OTHERS = {
    "git config": "the container's owner",
    "source tools/ci.sh": "MicroPython's own toolchain",
    "if [": "the ESP-IDF's environment, where there is one",
    "find dist": "the files of a release",
}

# Job: what it may write.
WRITES = {
    ("release", "github"): {"contents"},
    ("release", "pypi"): {"id-token"},
    ("release", "pages"): {"pages", "id-token"},
}


def jobs():
    return [
        (name, title, job)
        for name, workflow in WORKFLOWS.items()
        for title, job in workflow["jobs"].items()
    ]


def commands():
    """Each command of each step, its lines that go on joined: (workflow, text)."""
    for name, _, job in jobs():
        for step in job.get("steps", []):
            for line in step.get("run", "").replace("\\\n", " ").splitlines():
                yield name, " ".join(line.split())


def run_linter(command):
    ran = subprocess.run(
        command,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=TIMEOUT_S,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout


def test_there_are_the_three_that_are_wanted():
    assert sorted(WORKFLOWS) == ["firmware", "release", "test"]


def find_actionlint(monkeypatch):
    """Return the path of actionlint; skip the test if it can't be had."""
    program = shutil.which("actionlint")
    if program:
        return program
    not_had = check_types.CACHE / "actionlint-not-had"  # why: to try it takes a minute
    if not not_had.exists():
        monkeypatch.setattr(setup_env, "PIP_TIMEOUT_S", TIMEOUT_S)  # a network may just be silent
        try:
            folder = check_types.ensure_packages("actionlint", "requirements-actionlint.txt")
            return str(folder / "bin" / "actionlint")
        except setup_env.SetupError as error:
            not_had.parent.mkdir(parents=True, exist_ok=True)  # a checkout that is new
            not_had.write_text(str(error))
    pytest.skip("actionlint can't be had here (%s says why)" % not_had.relative_to(ROOT))


def test_actionlint_has_nothing_to_say(monkeypatch):
    # What it finds must not depend on what else is on this machine.
    run_linter([find_actionlint(monkeypatch), "-no-color", "-shellcheck=", "-pyflakes="])


def test_zizmor_finds_nothing_unsafe():
    folder = check_types.ensure_packages(
        "zizmor", "requirements-zizmor.txt", "--ignore-requires-python"
    )
    run_linter([str(folder / "bin" / "zizmor"), "--offline", "--min-severity=medium", ".github"])


def test_each_action_is_pinned_by_hash_and_says_its_version():
    uses = []
    for path in (GITHUB / "workflows").glob("*.yml"):
        uses += re.findall(r"uses: (.*)", path.read_text(encoding="utf-8"))
    pinned = [one for one in uses if not one.startswith("./")]
    assert len(pinned) >= 10
    for one in pinned:
        assert re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", one), one
    versions = {}
    for one in pinned:
        versions.setdefault(one.partition("@")[0], set()).add(one)
    assert all(len(found) == 1 for found in versions.values()), versions


def test_each_job_ends_and_may_write_only_what_it_must():
    for name, title, job in jobs():
        if "uses" not in job:
            assert 0 < job["timeout-minutes"] <= 90, (name, title)
        rights = job.get("permissions", WORKFLOWS[name]["permissions"])
        writes = {right for right, access in rights.items() if access != "read"}
        assert writes == WRITES.get((name, title), set()), (name, title)
    assert all(
        workflow["permissions"] in ({}, {"contents": "read"}) for workflow in WORKFLOWS.values()
    )


def test_nothing_that_others_may_have_written_gets_into_a_command():
    for name, command in commands():
        assert "${{" not in command, (name, command)


def test_each_step_is_a_command_of_the_project_that_has_these_options():
    own = []
    for name, command in commands():
        if command == ".ci/run":
            assert (ROOT / ".ci" / "run").stat().st_mode & 0o111
            continue
        if command.startswith("python3 "):
            own.append(command)
            continue
        assert any(command.startswith(other) for other in OTHERS), (name, command)
    assert len(own) == 3, own
    for command in own:
        _, script, *words = shlex.split(command)
        help_text = subprocess.run(
            [sys.executable, str(ROOT / script), "--help"],
            stdout=subprocess.PIPE,
            timeout=TIMEOUT_S,
            text=True,
            check=True,
        ).stdout
        for word in words:
            if word.startswith("--"):
                assert re.search(r"^ .*%s\b" % re.escape(word), help_text, re.M), (command, word)


def test_the_tests_run_on_each_python_that_the_project_promises():
    versions = WORKFLOWS["test"]["jobs"]["test"]["strategy"]["matrix"]["python"]
    minors = [int(version.partition(".")[2]) for version in versions]
    assert minors == list(range(minors[0], minors[-1] + 1)) and minors[-1] >= 14
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert 'requires-python = ">=%s"' % versions[0] in project


def test_a_release_is_made_by_a_tag_after_the_tests():
    release = WORKFLOWS["release"]
    assert release[True] == {"push": {"tags": ["v*"]}}  # YAML 1.1 takes `on` for True
    assert release["jobs"]["build"]["needs"] == "test"
    assert release["jobs"]["test"]["uses"] == "./.github/workflows/test.yml"
    for title in ("github", "pypi", "pages"):
        assert release["jobs"][title]["needs"] == "build"


def test_the_firmware_is_built_for_each_board_that_the_tool_knows():
    boards = WORKFLOWS["firmware"]["jobs"]["build"]["strategy"]["matrix"]["include"]
    assert [one["board"] for one in boards] == list(build_firmware.BOARDS)


def test_each_form_asks_for_what_a_maintainer_needs_and_names_commands_that_are_there():
    assert sorted(FORMS) == ["board", "bug", "feature"]
    for name, form in FORMS.items():
        assert form["name"] and form["description"], name
        fields = [field for field in form["body"] if field["type"] != "markdown"]
        assert any(field.get("validations", {}).get("required") for field in fields), name
        names = [field["id"] for field in fields]
        assert len(set(names)) == len(names), names
        for script in re.findall(r"python3 (\S+\.py)", str(form)):
            assert (ROOT / script).is_file(), script
    assert "tools/board_report.py" in str(FORMS["board"])
