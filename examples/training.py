"""What cifar10.py and imagenet.py share: recipes, strategies, teachers, surviving a kill.

Not an example of its own. Both hand their data and their network to `run`.
"""

import argparse
import dataclasses
import json
import math
import os
import pathlib
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import larq_filters as lqf  # before TensorFlow's Keras is touched: selects Keras 2

import larq as lq
import numpy as np
import tensorflow as tf


@dataclasses.dataclass
class Data:
    """Images, scaled for the network, and labels, in a fixed order."""

    train: Callable[[int, int], tf.data.Dataset]
    """From a step to another, over all epochs; with teacher logits if there are any."""
    test: tf.data.Dataset
    plain: tf.data.Dataset
    """Training images without augmentation, in the order of the files."""
    steps_per_epoch: int
    num_classes: int
    mean: Sequence[float]
    std: Sequence[float]
    """The scale of the images: (value − mean) / std of values in [0, 255]."""


def add_arguments(parser: argparse.ArgumentParser, epochs: int, batch_size: int) -> None:
    recipe = parser.add_argument_group("recipe").add_argument
    recipe("--epochs", type=int, default=epochs)
    recipe("--batch-size", type=int, default=batch_size, help="over all devices")
    recipe("--optimizer", choices=["filtered", "adam", "sgd", "bop"], default="filtered")
    recipe("--alpha", type=float, default=1e-2, help="of the filter; decays linearly to 0")
    recipe("--gamma", type=float, default=0.1, help="of the filter")
    recipe("--state-dtype", choices=["bfloat16"], help="of the filter's state (default float32)")
    recipe(
        "--learning-rate",
        type=float,
        help="of Adam (default 1e-2) or sgd (default 0.1); decays linearly to 0",
    )
    recipe(
        "--trial",
        type=pathlib.Path,
        metavar="FILE",
        help="trial.json of a search by tune_cifar10.py: its hyperparameters instead of the above",
    )
    recipe(
        "--two-step",
        type=int,
        default=0,
        metavar="EPOCHS",
        help="train so many epochs with binary activations but real weights first",
    )
    recipe("--label-smoothing", type=float, default=0.0)
    recipe(
        "--teacher",
        help="a network of tf.keras.applications by name, or a saved model; its outputs are what "
        "the network learns",
    )
    recipe("--teacher-weights", default="imagenet", help="of a network by name, or a file of them")
    recipe(
        "--teacher-logits",
        type=pathlib.Path,
        metavar="FILE.npy",
        help="the teacher's logits of all training images; computed if there is a --teacher",
    )
    recipe("--seed", type=int, default=1)
    recipe(
        "--recalibrate",
        type=int,
        default=0,
        metavar="BATCHES",
        help="re-estimate batch norm from so many batches before every validation",
    )
    device = parser.add_argument_group("devices").add_argument
    device("--strategy", choices=["none", "mirrored", "multi_worker"], default="none")
    device("--logical-devices", type=int, help="split the CPU into so many, to try strategies on")
    device("--mixed-precision", choices=["mixed_float16", "mixed_bfloat16"])
    files = parser.add_argument_group("files").add_argument
    files("--data-dir", help="of tensorflow-datasets (default ~/tensorflow_datasets)")
    files("--output", type=pathlib.Path, help="history, JSON (default NAME.json)")
    files("--save", type=pathlib.Path, help="the trained network, .keras or .h5")
    files(
        "--backup",
        type=pathlib.Path,
        metavar="FOLDER",
        help="save all that training needs here; run again with the same arguments, it goes on",
    )
    files("--backup-steps", type=int, default=500, metavar="STEPS", help="between two backups")
    files("--tensorboard", type=pathlib.Path, metavar="FOLDER")


def run(
    args: argparse.Namespace,
    load: Callable[[], Data],
    build: Callable[..., tf.keras.Model],
) -> None:
    """Trains `build(**quantizers)` on the data by the recipe that the arguments describe."""
    strategy = make_strategy(args)  # before TensorFlow runs anything
    is_chief = strategy.extended.should_checkpoint
    if args.epochs < 1 or args.batch_size < 1:
        raise SystemExit("--epochs and --batch-size are whole numbers from 1 on")
    if is_chief:
        check_folders(args)
    if args.mixed_precision:
        tf.keras.mixed_precision.set_global_policy(args.mixed_precision)
    data = load()
    if data.steps_per_epoch == 0:
        raise SystemExit(f"--batch-size: there are fewer training images than {args.batch_size}")
    tf.keras.utils.set_random_seed(args.seed)  # after a teacher may have been made for its logits
    weights = None
    if args.two_step:
        weights = first_step(args, data, build, strategy)
    with strategy.scope():
        model = compile_model(args, data, build)
        if weights is not None:
            model.set_weights(weights)
    history = fit(args, model, data, args.epochs, "training")
    if args.save:
        plain = tf.keras.Model(model.inputs, model.outputs, name=model.name)
        save_together(args.save, plain.save, is_chief)
    if is_chief:
        print(f"network in {args.save}\n" if args.save else "", end="")
        print(f"test accuracy {history['val_accuracy'][-1]:.2%}; history in {args.output}")


def make_strategy(args: argparse.Namespace) -> tf.distribute.Strategy:
    if args.logical_devices:
        (cpu,) = tf.config.list_physical_devices("CPU")
        parts = [tf.config.LogicalDeviceConfiguration()] * args.logical_devices
        tf.config.set_logical_device_configuration(cpu, parts)
    if args.optimizer == "bop" and (args.backup or args.strategy != "none"):
        raise SystemExit(
            "larq's Bop cannot be saved in mid-training, nor used under a strategy; "
            "lqf.recipes.bop can"
        )
    if args.strategy == "multi_worker":
        if "TF_CONFIG" not in os.environ:
            raise SystemExit(
                "multi_worker needs the environment variable TF_CONFIG on every machine, with the "
                "addresses of all and the index of this one: see the README, Scaling"
            )
        return tf.distribute.MultiWorkerMirroredStrategy()
    if args.strategy == "mirrored":
        gpus = tf.config.list_logical_devices("GPU")
        return tf.distribute.MirroredStrategy(gpus or tf.config.list_logical_devices("CPU"))
    return tf.distribute.get_strategy()


def check_folders(args: argparse.Namespace) -> None:
    """Makes the folders that will be written to, or says now that it will not work."""
    folders = {
        "--output": args.output.parent,
        "--save": args.save and args.save.parent,
        "--backup": args.backup,
        "--tensorboard": args.tensorboard,
    }
    for option, folder in folders.items():
        if folder is None:
            continue
        trial = folder / f".{os.getpid()}.part"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            trial.write_bytes(bytes(65536))
        except OSError as error:
            raise SystemExit(
                f"{option}: cannot write to {folder} ({error.strerror}); give another folder, or "
                "make room"
            ) from error
        finally:
            trial.unlink(missing_ok=True)


def check_room(folder: pathlib.Path, model: tf.keras.Model) -> None:
    """Refuses to start what a backup would end: two of them are on the disk for a moment."""
    need = 2 * sum(
        math.prod(v.shape) * v.dtype.size for v in [*model.weights, *model.optimizer.variables]
    )
    free = shutil.disk_usage(folder).free
    if free < need:
        raise SystemExit(
            f"--backup: {folder} has {free / 1e6:,.0f} MB free, and backups of this training need "
            f"{need / 1e6:,.0f} MB: make room, or give another folder"
        )


def decay(
    value: float, steps: int, power: float = 1.0
) -> tf.keras.optimizers.schedules.PolynomialDecay:
    """value·(1 − t/steps)^power at step t, and 0 from then on."""
    return tf.keras.optimizers.schedules.PolynomialDecay(value, steps, 0.0, power)


def compile_model(
    args: argparse.Namespace, data: Data, build: Callable[..., tf.keras.Model]
) -> tf.keras.Model:
    """The network and optimizer of a recipe; latent-free for 'filtered' and 'bop'."""
    steps = args.epochs * data.steps_per_epoch
    latent = {"kernel_quantizer": "ste_sign", "kernel_constraint": "weight_clip"}
    rate = args.learning_rate or (0.1 if args.optimizer == "sgd" else 1e-2)
    adam, schedule = tf.keras.optimizers.Adam, decay(rate, steps)
    if args.trial:
        model, optimizer = searched(read_trial(args.trial), build, steps)
    elif args.optimizer == "filtered":
        model = build()
        optimizer = lqf.optimizers.FilteredFlip(
            alpha=decay(args.alpha, steps),
            gamma=args.gamma,
            real_optimizer=adam(schedule),
            state_dtype=args.state_dtype,
            seed=args.seed,
        )
    elif args.optimizer == "bop":
        model = build()
        optimizer = lq.optimizers.CaseOptimizer(
            (lq.optimizers.Bop.is_binary_variable, lq.optimizers.Bop()),
            default_optimizer=tf.keras.optimizers.legacy.Adam(schedule),
        )
    else:
        model = build(**latent)
        sgd = tf.keras.optimizers.SGD(schedule, momentum=0.9, weight_decay=1e-4)
        optimizer = adam(schedule) if args.optimizer == "adam" else sgd
    return compiled(args, data, model, optimizer)


def read_trial(path: pathlib.Path) -> "lqf.tuning.HyperParameters":
    """The hyperparameters in a trial.json of KerasTuner."""
    try:
        trial = json.loads(path.read_text("utf-8"))
        return lqf.tuning.HyperParameters.from_config(trial["hyperparameters"])
    except (OSError, ValueError, KeyError) as error:
        raise SystemExit(
            f"--trial: {path} is not the trial.json of a search; tune_cifar10.py prints the one of "
            f"its best trial ({error})"
        ) from error


def searched(
    hp: "lqf.tuning.HyperParameters", build: Callable[..., tf.keras.Model], steps: int
) -> tuple[tf.keras.Model, tf.keras.optimizers.Optimizer]:
    """The network and optimizer of a trial; of which search space, its hyperparameters tell."""
    real = tf.keras.optimizers.Adam(decay(1e-2, steps))
    if "learning_rate" in hp:
        recipe = lqf.tuning.latent_sgd(hp, steps=steps, real_optimizer=real)
        return build(**recipe.kernel), recipe.optimizer
    return build(), lqf.tuning.filtered_flip(hp, steps=steps, real_optimizer=real)


def compiled(
    args: argparse.Namespace,
    data: Data,
    model: tf.keras.Model,
    optimizer: tf.keras.optimizers.Optimizer,
) -> tf.keras.Model:
    model = Student(model.inputs, model.outputs, name=model.name)
    model.teach(make_teacher(args, data) if args.teacher and not args.teacher_logits else None)
    model.compile(
        optimizer=optimizer,
        loss=DistributionLoss(args.label_smoothing),
        metrics=["accuracy"],
        # The whole step: fast on GPUs, slow on CPUs, and not for several devices.
        jit_compile=args.strategy == "none" and bool(tf.config.list_physical_devices("GPU")),
    )
    return model


def first_step(
    args: argparse.Namespace,
    data: Data,
    build: Callable[..., tf.keras.Model],
    strategy: tf.distribute.Strategy,
) -> list[np.ndarray]:
    """The weights after training with binary activations and real weights, by Adam."""
    finished = args.backup and args.backup / "first_step.h5"
    with strategy.scope():
        model = build(kernel_quantizer=lq.quantizers.NoOp(precision=32))
        if finished and finished.exists():
            model.load_weights(finished)
            return model.get_weights()
        schedule = decay(args.learning_rate or 1e-2, args.two_step * data.steps_per_epoch)
        model = compiled(args, data, model, tf.keras.optimizers.Adam(schedule))
    fit(args, model, data, args.two_step, "first_step")
    if finished:
        save_together(finished, model.save_weights, strategy.extended.should_checkpoint)
    return model.get_weights()


def fit(
    args: argparse.Namespace,
    model: tf.keras.Model,
    data: Data,
    epochs: int,
    name: str,
) -> dict[str, list[float]]:
    """Trains, from the last backup on if there is one; returns the whole history."""
    start, total = 0, epochs * data.steps_per_epoch
    is_chief = model.distribute_strategy.extended.should_checkpoint
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    filtered = isinstance(optimizer, lqf.optimizers.FilteredFlip)
    callbacks = [lqf.callbacks.FlipRatio()] if filtered else []
    if args.backup:
        folder = args.backup / name
        start = saved_steps(folder, data.steps_per_epoch)
        with model.distribute_strategy.scope():
            model.optimizer.build(model.trainable_variables)
        if is_chief:
            check_room(args.backup, model)
        callbacks.append(Backup(str(folder), save_freq=args.backup_steps, delete_checkpoint=False))
        if start and is_chief:
            print(f"going on after step {start:,} of {total:,}", flush=True)
    if args.recalibrate:
        plain = data.plain.batch(args.batch_size)
        recalibrate = lqf.callbacks.RecalibrateBatchNorm(plain, args.recalibrate)
        callbacks.append(recalibrate)
    if args.tensorboard and is_chief:
        callbacks.append(tf.keras.callbacks.TensorBoard(args.tensorboard / name))
    history = History(args, name, start // data.steps_per_epoch, is_chief)
    if start >= total:  # there is nothing left to do
        tf.train.Checkpoint(model=model).restore(
            tf.train.latest_checkpoint(folder / "chief")
        ).expect_partial()
        if args.recalibrate:  # which comes after the last backup
            recalibrate(model)
        if len(history.rows.get("val_accuracy", [])) < epochs:  # stopped before it validated
            logs = model.evaluate(data.test, verbose=0, return_dict=True)
            history.on_epoch_end(epochs - 1, {f"val_{key}": value for key, value in logs.items()})
    else:
        model.fit(
            data.train(start, total),
            epochs=epochs,
            steps_per_epoch=data.steps_per_epoch,
            validation_data=data.test,
            callbacks=[*callbacks, history],
            verbose=1 if is_chief else 0,
        )
    return history.rows


class Backup(tf.keras.callbacks.BackupAndRestore):
    """Keras' own, after which all go on as they would from the backup.

    Each replica has its own averages of batch norm. Their mean is what is saved, and what every
    replica is given when it is restored; so every replica is given it here.
    """

    def _backup(self, epoch: int, batch: int = 0) -> None:
        super()._backup(epoch, batch)
        for variable in self.model.non_trainable_weights:
            if variable.synchronization is tf.VariableSynchronization.ON_READ:
                variable.assign(variable.read_value())


def saved_steps(folder: pathlib.Path, steps_per_epoch: int) -> int:
    """How many steps the last complete backup has behind it, as Keras will count them."""
    path = tf.train.latest_checkpoint(folder / "chief")
    if path is None:
        return 0
    reader = tf.train.load_checkpoint(path)
    epoch, batch = (
        int(reader.get_tensor(f"ckpt_saved_{name}/.ATTRIBUTES/VARIABLE_VALUE"))
        for name in ("epoch", "batch")
    )
    return epoch * steps_per_epoch + batch + 1


class DistributionLoss(tf.keras.losses.Loss):
    """Cross-entropy to labels, smoothed if asked, or the KL divergence to a teacher's logits."""

    def __init__(self, label_smoothing: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.label_smoothing = label_smoothing

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        y_true, y_pred = tf.convert_to_tensor(y_true), tf.cast(y_pred, tf.float32)
        classes = y_pred.shape[-1]
        if y_true.shape.rank == 2 and y_true.shape[-1] == classes:  # a teacher's logits
            teacher = tf.nn.log_softmax(tf.cast(y_true, tf.float32))
            p = tf.exp(teacher)
            return tf.reduce_sum(p * (teacher - tf.nn.log_softmax(y_pred)), axis=-1)
        labels = tf.one_hot(tf.reshape(tf.cast(y_true, tf.int32), [-1]), classes)
        labels = labels * (1.0 - self.label_smoothing) + self.label_smoothing / classes
        return tf.nn.softmax_cross_entropy_with_logits(labels, y_pred)


class Student(tf.keras.Model):
    """A network that learns a teacher's distributions where there is a teacher, else labels."""

    def teach(self, teacher: Callable[[tf.Tensor], tf.Tensor] | None) -> None:
        self._teacher = teacher

    def train_step(self, data: tuple[tf.Tensor, ...]) -> dict[str, tf.Tensor]:
        x, y, *logits = data
        target = logits[0] if logits else y if self._teacher is None else self._teacher(x)
        with tf.GradientTape() as tape:
            y_pred = self(x, training=True)
            loss = self.compute_loss(x, target, y_pred)
        self.optimizer.minimize(loss, self.trainable_variables, tape=tape)
        return self.compute_metrics(x, y, y_pred, None)


def make_teacher(args: argparse.Namespace, data: Data) -> Callable[[tf.Tensor], tf.Tensor]:
    """A function from the network's images to a teacher's logits."""
    preprocess, size = None, None
    if pathlib.Path(args.teacher).exists():
        teacher = tf.keras.models.load_model(args.teacher, compile=False)
    else:
        teacher, preprocess = pretrained(args.teacher, args.teacher_weights)
        size = teacher.input_shape[1:3]
    if teacher.output_shape[-1] != data.num_classes:
        raise SystemExit(
            f"--teacher: {args.teacher} knows {teacher.output_shape[-1]} classes, and the data "
            f"have {data.num_classes}"
        )
    is_softmax = getattr(teacher.layers[-1], "activation", None) is tf.keras.activations.softmax
    call = tf.function(lambda x: teacher(x, training=False))  # hides its weights from Keras

    def logits(x: tf.Tensor) -> tf.Tensor:
        if preprocess is not None:
            x = tf.cast(x, tf.float32) * data.std + data.mean
            x = preprocess(tf.image.resize(x, size))
        y = tf.stop_gradient(tf.cast(call(x), tf.float32))
        return tf.math.log(y + 1e-9) if is_softmax else y

    return logits


def pretrained(name: str, weights: str) -> tuple[tf.keras.Model, Callable[[Any], Any]]:
    """A network of tf.keras.applications that gives logits, and its preprocessing."""
    applications = tf.keras.applications
    modules = [
        module
        for module in map(applications.__dict__.get, dir(applications))
        if hasattr(module, "preprocess_input") and hasattr(module, name)
    ]
    if not modules:
        raise SystemExit(
            f"--teacher: {name} is neither a saved model nor a network of tf.keras.applications"
        )
    try:
        network = getattr(modules[0], name)(weights=weights, classifier_activation=None)
    except Exception as error:
        raise SystemExit(
            f"--teacher: {name} cannot be made with the weights '{weights}': give a file of them "
            f"with --teacher-weights ({' '.join(str(error).split())[:200]})"
        ) from error
    return network, modules[0].preprocess_input


def teacher_logits(args: argparse.Namespace, data: Data) -> np.ndarray:
    """The teacher's logits of all training images as they are in the files, from disk if there."""
    if not args.teacher_logits.exists():
        if not args.teacher:
            raise SystemExit(
                f"--teacher-logits: there is no {args.teacher_logits}; give a --teacher, too, and "
                "it is made"
            )
        teacher = make_teacher(args, data)
        images = data.plain.map(lambda x, y: x).batch(args.batch_size)
        logits = np.concatenate([teacher(x).numpy() for x in images])
        write(args.teacher_logits, lambda path: np.save(path, logits))
    return np.load(args.teacher_logits, mmap_mode="r")


class History(tf.keras.callbacks.Callback):
    """Writes arguments, machine and history as JSON after every epoch, never half a file."""

    def __init__(self, args: argparse.Namespace, name: str, epochs: int, is_chief: bool) -> None:
        super().__init__()
        self.args, self.is_chief = args, is_chief
        self.key = "history" if name == "training" else name
        self.record = {
            "arguments": {
                key: value
                for key, value in vars(args).items()
                if isinstance(value, str | int | float | None) and key != "data_dir"
            },
            "versions": {
                "larq_filters": lqf.__version__,
                "tensorflow": tf.__version__,
                "larq": lq.__version__,
            },
            "machine": {
                "processor": platform.machine(),
                "cores": os.cpu_count(),
                "gpus": len(tf.config.list_physical_devices("GPU")),
            },
            "seconds": 0.0,
        }
        if args.backup and args.output.exists():  # what was written before it was stopped
            before = json.loads(args.output.read_text("utf-8"))
            self.record |= {k: v for k, v in before.items() if k not in self.record}
            self.record["seconds"] = before["seconds"]
        rows = self.record.get(self.key, {}) if epochs else {}
        self.rows = self.record[self.key] = {key: row[:epochs] for key, row in rows.items()}
        self.before, self.start = self.record["seconds"], time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        for key, value in (logs or {}).items():
            row = self.rows.setdefault(key, [])
            # An epoch that was stopped between its last step and its end has no value.
            row += [None] * (epoch - len(row))
            row.append(float(value))
        self.record["seconds"] = round(self.before + time.perf_counter() - self.start, 1)
        if self.is_chief:
            text = json.dumps(self.record, indent=1) + "\n"
            write(self.args.output, lambda path: path.write_text(text, "utf-8"))


def save_together(path: pathlib.Path, save: Callable[[pathlib.Path], Any], is_chief: bool) -> None:
    """Saves a network, which all workers must read at once: its averages are spread over them."""
    if is_chief:
        write(path, save)
    else:
        with tempfile.TemporaryDirectory() as folder:
            save(pathlib.Path(folder) / path.name)


def write(path: pathlib.Path, save: Callable[[pathlib.Path], Any]) -> None:
    """Saves beside the path, and renames: there is never half a file."""
    beside = path.with_name(f".{os.getpid()}.{path.name}")
    save(beside)
    beside.replace(path)
