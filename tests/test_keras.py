"""Which Keras is selected, in processes of their own."""

import os
import subprocess
import sys

import pytest

CHECK = "import tensorflow as tf; assert tf.keras.Model.__module__.startswith('tf_keras.'); "
TRAIN = (
    "import larq as lq, numpy as np; "
    "m = tf.keras.Sequential([lq.layers.QuantDense(1, kernel_quantizer='ste_sign')]); "
    "m.compile(lqf.optimizers.FilteredFlip(), 'mse'); "
    "m.fit(np.ones((2, 2)), np.ones((2, 1)), verbose=0); print('trained')"
)


def run(code, **environment):
    env = {name: value for name, value in os.environ.items() if name != "TF_USE_LEGACY_KERAS"}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**env, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("import larq_filters as lqf; " + CHECK, marks=pytest.mark.slow),
        "import tensorflow as tf; import larq_filters as lqf; " + CHECK,
        pytest.param("import keras; import larq_filters as lqf; " + CHECK, marks=pytest.mark.slow),
        pytest.param(
            "import larq_filters as lqf, sys, importlib; importlib.reload(lqf); "
            "del sys.modules['larq_filters._keras']; import larq_filters._keras; " + CHECK,
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "import tensorflow as tf; import larq_filters as lqf; "
            "from tensorflow.keras.layers import Dense; "
            "assert Dense.__module__.startswith('tf_keras.'); " + CHECK,
            marks=pytest.mark.slow,
        ),
    ],
    ids=["first", "after TensorFlow", "beside Keras 3", "twice", "from tensorflow.keras"],
)
def test_keras_2_is_selected(code):
    result = run(code + TRAIN)
    assert result.returncode == 0, result.stderr
    assert result.stdout.endswith("trained\n")


@pytest.mark.slow
def test_with_the_variable_set_and_in_a_child_process():
    child = CHECK + "import larq_filters as lqf; " + TRAIN
    code = (
        "import larq_filters, subprocess, sys; "
        f"sys.exit(subprocess.run([sys.executable, '-c', {child!r}]).returncode)"
    )
    assert run(child, TF_USE_LEGACY_KERAS="1").returncode == 0
    result = run(code)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    "code",
    [
        "import tensorflow as tf; tf.keras.layers.Dense; import larq_filters",
        pytest.param("import tensorflow.keras; import larq_filters", marks=pytest.mark.slow),
        pytest.param(
            "from tensorflow.keras.layers import Dense; import larq_filters",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_keras_3_is_refused_with_the_way_out(code):
    result = run(code)
    assert result.returncode == 1
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: larq_filters needs Keras 2, but Keras 3 is already loaded")
    assert "TF_USE_LEGACY_KERAS=1" in last and "import larq_filters" in last


def test_an_explicit_wish_for_keras_3_is_not_overruled():
    result = run("import larq_filters", TF_USE_LEGACY_KERAS="0")
    assert result.returncode == 1
    assert "Received: TF_USE_LEGACY_KERAS='0'" in result.stderr.strip().splitlines()[-1]


def test_a_failed_import_leaves_everything_alone():
    result = run(
        "import os, tensorflow as tf; tf.keras.layers\n"
        "try:\n import larq_filters\nexcept ImportError: pass\n"
        "print('TF_USE_LEGACY_KERAS' in os.environ)\n"
        "from tensorflow.keras.layers import Dense\n"
        "print(Dense.__module__.split('.')[0], tf.keras.Model.__module__.split('.')[0])"
    )
    assert result.stdout == "False\nkeras keras\n", result.stderr


def test_without_tf_keras():
    """The sentence says what to install, and Keras 3 can be used."""
    result = run(
        "import os, sys; sys.modules['tf_keras'] = None\n"
        "try:\n import larq_filters\nexcept ImportError as error: print(error)\n"
        "print('TF_USE_LEGACY_KERAS' in os.environ)\n"
        "import tensorflow as tf; print(tf.keras.Model.__module__.split('.')[0])"
    )
    assert result.returncode == 0, result.stderr
    sentence, *rest = result.stdout.splitlines()
    assert sentence.startswith("larq_filters needs Keras 2, which is the package `tf_keras`")
    assert sentence.endswith("`pip install tf_keras`.") and rest == ["False", "keras"]


@pytest.mark.slow
def test_in_a_notebook_kernel():
    """Cells run one by one in an interactive shell, with the import repeated."""
    code = (
        "import code; shell = code.InteractiveConsole()\n"
        "for line in ('import tensorflow as tf', 'import larq_filters as lqf', "
        f"'import larq_filters as lqf', {TRAIN!r}): assert not shell.push(line)"
    )
    result = run(code)
    assert result.stdout.endswith("trained\n"), result.stderr
