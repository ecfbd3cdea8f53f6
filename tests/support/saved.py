"""Files of trainings that were saved by some version of larq_filters, and how each went on.

    python tests/support/saved.py

It writes tests/support/saved/VERSION. A later version loads these files and goes on as the version
did that wrote them: test_optimizers_saved_before.py. All sums of the trainings are exact, so they
go on alike on every processor.
"""

import pathlib

import larq_filters as lqf

import larq as lq
import numpy as np
import tensorflow as tf

FOLDER = pathlib.Path(__file__).parent / "saved"
STEPS, BATCH = 2, 8  # more steps would need more digits than float32 has
schedules = tf.keras.optimizers.schedules


def falling():
    return schedules.PiecewiseConstantDecay([2], [0.5, 0.25])


def real():
    return tf.keras.optimizers.SGD(0.5)


def coupled():
    arguments = {"momentum": 0.5, "weight_decay": 0.5, "decoupled": False, "clip": 4.0}
    return lqf.recipes.from_sgd(0.5, **arguments)


OPTIMIZERS = {
    "cascaded_ema": lambda: lqf.optimizers.FilteredFlip(0.5, 0.5, real_optimizer=real()),
    "bfloat16": lambda: lqf.optimizers.FilteredFlip(
        falling(), None, threshold=0.25, state_dtype="bfloat16", seed=3, real_optimizer=real()
    ),
    "iir": lambda: lqf.optimizers.FilteredFlip(
        filter=lqf.filters.IIR([0.25], [1.0, -1.0, 0.25]), real_optimizer=real()
    ),
    "decoupled_sgd": lambda: lqf.optimizers.FilteredFlip(
        filter=lqf.recipes.from_sgd(falling(), 0.5, 0.5), real_optimizer=real()
    ),
    "coupled_sgd": lambda: lqf.optimizers.FilteredFlip(filter=coupled(), real_optimizer=real()),
    "diode": lambda: lqf.recipes.diode(0.5, 0.5, real_optimizer=real()),
    "adam": lambda: lqf.optimizers.FilteredFlip(
        filter=lqf.recipes.from_adam(falling()), real_optimizer=real()
    ),
    "latent_sgd": lambda: (
        lqf.tuning.latent_sgd(
            lqf.tuning.HyperParameters(), steps=20, real_optimizer=real()
        ).optimizer
    ),
}
EXACT = [name for name in OPTIMIZERS if name not in ("adam", "latent_sgd")]
FORMATS = {name: [".keras"] for name in OPTIMIZERS}
FORMATS["cascaded_ema"] = [".keras", ".h5", ".index"]
FORMATS["decoupled_sgd"] = [".keras", ".h5"]


def network(optimizer):
    """Two binary layers, a learnable shift between them, and a bias."""
    tf.keras.utils.set_random_seed(5)
    binary = {"kernel_quantizer": "ste_sign", "kernel_constraint": "weight_clip"}
    model = tf.keras.Sequential(
        [
            lq.layers.QuantDense(4, name="one", input_shape=(6,), use_bias=False, **binary),
            lqf.models.LearnableShift(name="shift"),
            lq.layers.QuantDense(2, name="two", **binary),
        ]
    )
    model.compile(optimizer, loss)
    return model


@tf.keras.utils.register_keras_serializable("tests")
def loss(y_true, y_pred):
    return tf.reduce_sum((y_pred - y_true) ** 2, axis=-1) / 2.0


def batches():
    rng = np.random.default_rng(3)
    x = rng.integers(-2, 3, (2 * STEPS, BATCH, 6)).astype("float32")
    return x, rng.integers(-9, 10, (2 * STEPS, BATCH, 2)).astype("float32")


def train(model):
    """The next steps of a model, on the batches that are due."""
    x, y = batches()
    done = int(model.optimizer.iterations)
    for i in range(done, done + STEPS):
        model.train_on_batch(x[i], y[i])


def state(model):
    """All numbers of a model and its optimizer; those of a narrower type as float32."""
    variables = [*model.variables, *model.optimizer.variables]
    return [np.asarray(tf.cast(v, tf.float32)) for v in variables]


def tuner(folder):
    """A search of two trials."""
    return lqf.tuning.RandomSearch(
        lambda hp: network(lqf.tuning.filtered_flip(hp, steps=20)),
        lqf.tuning.Objective("loss", "min"),
        max_trials=2,
        seed=1,
        directory=folder,
        project_name="search",
    )


def main():
    folder = FOLDER / lqf.__version__
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in OPTIMIZERS.items():
        model = network(make())
        train(model)
        half = state(model)
        for suffix in FORMATS[name]:
            path = str(folder / name)
            if suffix == ".index":
                tf.train.Checkpoint(model=model).write(path)
            else:
                model.save(path + suffix)
        train(model)
        config = np.array(repr(model.optimizer.get_config()))
        arrays = {f"half{i}": a for i, a in enumerate(half)}
        arrays |= {f"whole{i}": a for i, a in enumerate(state(model))}
        np.savez_compressed(folder / f"{name}.npz", config=config, **arrays)
    x, y = batches()
    tuner(folder).search(x[0], y[0], epochs=1, verbose=0)


if __name__ == "__main__":
    main()
