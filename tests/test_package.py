"""What a package index gets: the source distribution runs its own tests; metadata are complete."""

import os
import pathlib
import re
import subprocess
import sys
import tarfile
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parent.parent


def read(path):
    return (ROOT / path).read_text("utf-8")


def test_the_version_is_the_same_everywhere():
    version = re.search(r'^__version__ = "(.+)"$', read("larq_filters/__init__.py"), re.M)[1]
    assert re.search(rf"^## \[{version}\] - \d{{4}}-\d\d-\d\d$", read("CHANGELOG.md"), re.M)
    assert f"\nversion: {version}\n" in read("CITATION.cff")


def python(*arguments, **options):
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        **options,
    )
    return done.returncode, done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder of the sdist and the wheel that is made of it."""
    folder = tmp_path_factory.mktemp("dist")
    for module in ("build", "twine", "pyroma"):
        if python("-c", f"import {module}")[0]:
            strict = os.environ.get("LQF_CI") == "1"
            (pytest.fail if strict else pytest.skip)(f"{module} is not installed: it is in [dev].")
    code, printed = python("-m", "build", "--no-isolation", "-o", folder, ROOT)
    assert code == 0, printed
    return folder


@pytest.mark.slow
def test_twine_and_pyroma_find_nothing_missing(built):
    code, printed = python("-m", "twine", "check", "--strict", *built.iterdir())
    assert code == 0 and printed.count("PASSED") == 2, printed
    code, printed = python("-m", "pyroma", "-n", "8", next(built.glob("*.tar.gz")))
    assert code == 0 and "Final rating: " in printed, printed
    # What is missing is the address, which setup.py has a place for.
    complaints = [line for line in printed.splitlines() if line.startswith(("Your", "You "))]
    assert all("author-email" in line for line in complaints), printed


@pytest.mark.slow
def test_the_sdist_runs_its_own_tests(built, tmp_path):
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        archive.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    tracked = subprocess.run(
        ["git", "-C", ROOT, "ls-files"], check=True, capture_output=True, text=True
    ).stdout.split()
    assert len(tracked) > 100
    missing = [path for path in tracked if not (folder / path).exists()]
    assert set(missing) <= {".gitignore"}, missing
    tests = ("tests/test_filters.py", "tests/test_commands.py")
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    code, printed = python("-m", "pytest", "-q", "-n0", *tests, cwd=folder, env=environment)
    assert code == 0 and "passed" in printed, printed
    code, _ = python("-m", "pytest", "-q", "-n0", "--co", cwd=folder, env=environment)
    assert code == 0  # all others are there and can be imported


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_its_command(built):
    with zipfile.ZipFile(next(built.glob("*.whl"))) as archive:
        names = archive.namelist()
        points = next(name for name in names if name.endswith("entry_points.txt"))
        assert "larq-filters = larq_filters_command:main" in archive.read(points).decode()
    top = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert top == {"larq_filters", "larq_filters_command.py"}
    assert "larq_filters/py.typed" in names and "larq_filters/filters/_base.py" in names
