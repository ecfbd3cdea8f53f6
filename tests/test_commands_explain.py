"""`python -m larq_filters explain`, once as a person runs it, then in this process."""

import os
import subprocess
import sys

from larq_filters import recipes
from larq_filters_command import main

import pytest
from PIL import Image

ADAM = ("--optimizer", "adam", "--learning-rate", "1e-3")
PAPER = ("--learning-rate", "0.1", "--weight-decay", "1e-4", "--momentum", "0.9")


def run(*arguments, **environment):
    command = [sys.executable, "-m", "larq_filters", *map(str, arguments)]
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"} | environment
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)


@pytest.fixture
def call(capsys):
    """Runs the command in this process: its exit code and what it printed."""

    def call(*arguments):
        try:
            code = main(list(map(str, arguments)))
        except SystemExit as error:
            code = error.code
        return code, *capsys.readouterr()

    return call


def test_explain(tmp_path):
    picture = tmp_path / "out.png"
    result = run("explain", *PAPER, "--steps-per-epoch", "390", "--plot", picture)
    assert result.returncode == 0, result.stderr
    assert "CascadedEMA(alpha=1e-05, gamma=0.1)" in result.stdout
    assert "for 460,515 steps (1,181 epochs)" in " ".join(result.stdout.split())
    table = result.stdout.split("\n\nThe picture is in")[0]
    assert all(len(line) <= 80 for line in table.splitlines())
    with Image.open(picture) as image:
        assert image.size == (800, 340) and len(image.getcolors(100_000)) > 20
    assert os.listdir(tmp_path) == ["out.png"]


def test_explain_coupled_decay_and_schedule(call):
    code, out, _ = call(
        *("explain", *PAPER, "--coupled", "--nesterov", "--clip", 1),
        *("--epochs", 10, "--steps-per-epoch", 39, "--decay", "linear"),
    )
    assert code == 0
    text = " ".join(out.split())
    assert "A decay of ηλ: 1e-05 in the first step, 5.03e-06 half way" in text
    assert "Nesterov momentum adds a zero" in text and "saturates at ±1" in text


def test_explain_adam(call, tmp_path):
    picture = tmp_path / "out.png"
    options = ("--beta-1", 0.8, "--beta-2", 0.95, "--epsilon", 1e-3, "--epsilon-hat", "--clip", 1)
    code, out, _ = call("explain", *ADAM, *options, "--weight-decay", "0.1", "--plot", picture)
    assert code == 0 and picture.exists()
    recipe = recipes.Adam(1e-3, 0.8, 0.95, 1e-3, 1.0, weight_decay=0.1, epsilon_hat=True)
    assert out.startswith(str(recipe.explain(print_fn=None)))
    assert "for √v = 1" in out and all(len(line) <= 80 for line in out.splitlines()[:-3])


@pytest.mark.parametrize(
    "arguments, text",
    [
        (["--learning-rate", "-1"], "learning_rate must be positive"),
        (["--learning-rate", "1", "--epochs", "3"], "--epochs needs --steps-per-epoch"),
        (["--learning-rate", "1", "--decay", "linear"], "--decay needs --epochs"),
        (["--learning-rate", "1", "--momentum", "1"], "momentum must be"),
        (["--learning-rate", "1", "--plot", "no/such/folder.png"], "No such file or directory"),
        (["--learning-rate", "1", "--plot", "out.what"], "what"),
        (["--learning-rate", "1", "--plot", "out"], "the ending of a kind of picture"),
        (["--learning-rate", "1", "--epochs", "inf", "--steps-per-epoch", "9"], "and finite"),
        (["--learning-rate", "1", "--epochs", "0", "--steps-per-epoch", "9"], "--epochs 0 "),
        (["--learning-rate", "1", "--beta-1", "0"], "--beta-1 is not of --optimizer sgd"),
        ([*ADAM, "--nesterov"], "--nesterov is not of --optimizer adam, which has --beta-1"),
        ([*ADAM, "--beta-2", "1"], "beta_2"),
    ],
)
def test_explain_refuses(arguments, text, call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, error = call("explain", *arguments)
    assert code == 1
    assert error.startswith("error: ") and text in error and error.count("\n") == 1
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("arguments", [[], ["explian"], ["explain"]], ids=str)
def test_misspelled(arguments, call):
    code, _, error = call(*arguments)
    assert code == 2 and "usage: larq-filters" in error


@pytest.mark.slow
def test_a_terminal_without_greek_letters():
    result = run("explain", *PAPER, PYTHONIOENCODING="ascii")
    assert result.returncode == 0, result.stderr
    assert "460,515 steps" in " ".join(result.stdout.split())
