"""What an earlier version saved is loaded, and goes on as that version did."""

import ast
import shutil

import larq_filters as lqf

import numpy as np
import pytest
import saved
import tensorflow as tf
from helpers import assert_same, slow_but

VERSIONS = sorted(path.name for path in saved.FOLDER.iterdir() if path.is_dir())
QUICK = [("cascaded_ema", s) for s in saved.FORMATS["cascaded_ema"]]
QUICK += [(name, ".keras") for name in ("decoupled_sgd", "bfloat16", "latent_sgd")]
FILES = [(name, suffix) for name, suffixes in saved.FORMATS.items() for suffix in suffixes]


def recorded(version, name):
    with np.load(saved.FOLDER / version / f"{name}.npz") as file:
        parts = [
            [file[n] for n in sorted(file.files, key=lambda n: (len(n), n)) if n.startswith(part)]
            for part in ("half", "whole")
        ]
        return *parts, ast.literal_eval(str(file["config"]))


def load(version, name, suffix):
    path = str(saved.FOLDER / version / name)
    if suffix != ".index":
        return tf.keras.models.load_model(path + suffix)
    model = saved.network(saved.OPTIMIZERS[name]())
    tf.train.Checkpoint(model=model).read(path)
    model.optimizer.build(model.trainable_variables)
    return model


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("name", "suffix"), slow_but(QUICK, FILES))
def test_files_of_earlier_versions_go_on(version, name, suffix):
    model = load(version, name, suffix)
    half, whole, config = recorded(version, name)
    assert_same(saved.state(model), half)
    saved.train(model)
    now = model.optimizer.get_config()
    if suffix == ".index":  # a checkpoint has no config: the optimizer is made as it is today
        now["jit_compile"] = config["jit_compile"]
    assert {key: now[key] for key in config} == config
    if name in saved.EXACT:
        assert_same(saved.state(model), whole)


def test_every_optimizer_with_exact_sums_trains():
    """Weights flip on the way, so going on with other state would show."""
    for name in saved.EXACT:
        half, whole, _ = recorded(VERSIONS[0], name)
        assert any((a != b).any() for a, b in zip(half[:1], whole[:1], strict=True)), name


@pytest.mark.parametrize("version", VERSIONS)
def test_trials_of_earlier_versions_are_found(version, tmp_path):
    shutil.copytree(saved.FOLDER / version / "search", tmp_path / "search")
    tuner = saved.tuner(tmp_path)
    found = tuner.get_best_hyperparameters()[0].values
    assert sorted(found) == ["alpha", "alpha_decay", "gamma"]
    (model,) = tuner.get_best_models()
    assert isinstance(model.optimizer, lqf.optimizers.FilteredFlip)
    x, y = saved.batches()
    tuner.search(x[0], y[0], epochs=1, verbose=0)  # both trials are done
    assert len(tuner.oracle.trials) == 2
