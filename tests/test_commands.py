"""The command `larq-filters`: what it answers without TensorFlow, and `env`."""

import subprocess
import sys

import larq_filters as lqf
import larq_filters_command as command

import pytest

# What a console script does; no TensorFlow, no NumPy.
SCRIPT = """
import sys
from larq_filters_command import main
try:
    main()
finally:
    heavy = {"tensorflow", "numpy", "larq_filters"} & sys.modules.keys()
    assert not heavy, heavy
"""


def call(*arguments):
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize("argument", ["--version", "--help"])
def test_version_and_help_import_nothing_heavy(argument):
    """Which takes 0.09 s."""
    done = call(argument)
    assert done.returncode == 0 and not done.stderr
    assert done.stdout.startswith(("larq-filters ", "usage: larq-filters"))


@pytest.mark.parametrize("name", ["explain", "export", "env"])
def test_help_of_a_command_needs_no_tensorflow(name, capsys):
    done = call(name, "--help")
    assert done.returncode == 0 and f"usage: larq-filters {name}" in done.stdout


def test_version_is_the_packages(capsys):
    with pytest.raises(SystemExit) as done:
        command.main(["--version"])
    assert done.value.code == 0
    assert capsys.readouterr().out == f"larq-filters {lqf.__version__}\n"


def test_targets_are_those_of_export():
    assert command.TARGETS == lqf.export.TARGETS


def test_env_prints_what_an_issue_report_needs(capsys, monkeypatch):
    monkeypatch.setenv("TF_USE_IN_A_TEST", "3")
    assert command.main(["env"]) == 0
    lines = dict(
        line.split(None, 1) for line in capsys.readouterr().out.splitlines() if " " in line
    )
    assert lines["larq_filters"] == lqf.__version__
    assert lines["Python"].startswith(f"{sys.version_info[0]}.{sys.version_info[1]}.")
    assert {"system", "processor", "tensorflow", "tf_keras", "larq", "numpy"} <= lines.keys()
    assert lines["TF_USE_IN_A_TEST"] == "3"
    assert "works" in lines["import"] and "device:CPU:0" in lines["device"]


def test_env_prints_why_the_package_cannot_be_imported(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "larq_filters", None)
    assert command._env(None) == 1  # the versions come first, all the same
    out = capsys.readouterr().out
    assert "tensorflow" in out and "ModuleNotFoundError: import of larq_filters halted" in out
