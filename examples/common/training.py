"""What cifar10.py and imagenet.py share: recipes and strategies.

Both hand their data and their network to `run`.
"""

import argparse
import functools
import os
from collections.abc import Callable
from typing import Any

import larq_filters as lqf  # before TensorFlow's Keras is touched: selects Keras 2
from common import options, surviving
from common.data import Data
from common.teachers import DistributionLoss, Student, make_teacher

import larq as lq
import numpy as np
import tensorflow as tf


def run(
    args: argparse.Namespace,
    load: Callable[[], Data],
    build: Callable[..., tf.keras.Model],
) -> None:
    """Trains `build(**quantizers)` on the data by the recipe that the arguments describe."""
    strategy = make_strategy(args)  # before TensorFlow runs anything
    is_chief = strategy.extended.should_checkpoint
    options.check_replicas(args, strategy.num_replicas_in_sync)
    if is_chief:
        surviving.check_folders(args)
    if args.mixed_precision:
        tf.keras.mixed_precision.set_global_policy(args.mixed_precision)
    if args.backup:
        surviving.check_backup(args, is_chief, steps_per_epoch=None)
    data = load()
    if data.steps_per_epoch == 0:
        raise SystemExit(f"--batch-size: there are fewer training images than {args.batch_size}")
    if args.backup:
        surviving.check_backup(args, is_chief, data.steps_per_epoch)
    record = surviving.begin(args)
    tf.keras.utils.set_random_seed(args.seed)  # after a teacher may have been made for its logits
    if args.two_step:
        weights = first_step(args, data, build, strategy, record)
    with strategy.scope():
        model = compile_model(args, data, build)
    if args.two_step:
        before = record.get("first_step", {}).get("val_accuracy", [None])[-1]
        after = switch(args, model, weights, data)
        record["switch"] = {"before": before, "after": after}
        if is_chief and before is not None:
            print(f"test accuracy {before:.2%} with real weights, {after:.2%} with their signs")
    history = fit(args, model, data, args.epochs, "training", record)
    if args.save:
        plain = tf.keras.Model(model.inputs, model.outputs, name=model.name)
        surviving.save_together(args.save, plain.save, is_chief)
    if is_chief:
        print(f"network in {args.save}\n" if args.save else "", end="")
        print(f"test accuracy {history['val_accuracy'][-1]:.2%}; history in {args.output}")


def make_strategy(args: argparse.Namespace) -> tf.distribute.Strategy:
    if args.logical_devices:
        (cpu,) = tf.config.list_physical_devices("CPU")
        parts = [tf.config.LogicalDeviceConfiguration()] * args.logical_devices
        tf.config.set_logical_device_configuration(cpu, parts)
    if args.strategy == "multi_worker":
        if "TF_CONFIG" not in os.environ:
            raise SystemExit(
                "multi_worker needs the environment variable TF_CONFIG on every machine, with the "
                "addresses of all and the index of this one: see docs/guides/machines.md"
            )
        return tf.distribute.MultiWorkerMirroredStrategy()
    if args.strategy == "mirrored":
        gpus = tf.config.list_logical_devices("GPU")
        return tf.distribute.MirroredStrategy(gpus or tf.config.list_logical_devices("CPU"))
    return tf.distribute.get_strategy()


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
    rate = args.learning_rate
    if rate is None:
        rate = 0.1 if args.optimizer == "sgd" else 1e-2
    adam, schedule = tf.keras.optimizers.Adam, decay(rate, steps)
    inertia = 0.1 if args.two_step else None  # real weights do not look trained
    if args.trial:
        hp = surviving.read_trial(args.trial)
        model, optimizer = searched(hp, build, steps, inertia)
    elif args.optimizer == "filtered":
        model = build()
        optimizer = lqf.optimizers.FilteredFlip(
            alpha=decay(args.alpha, steps, args.alpha_power),
            gamma=args.gamma,
            real_optimizer=adam(schedule),
            state_dtype=args.state_dtype,
            seed=args.seed,
            inertia=inertia,
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


def searched(
    hp: "lqf.tuning.HyperParameters",
    build: Callable[..., tf.keras.Model],
    steps: int,
    inertia: float | None = None,
) -> tuple[tf.keras.Model, tf.keras.optimizers.Optimizer]:
    """The network and optimizer of a trial; of which search space, its hyperparameters tell."""
    if "learning_rate" in hp:
        recipe = lqf.tuning.latent_sgd(hp, steps=steps)
        return build(**recipe.kernel), recipe.optimizer
    return build(), lqf.tuning.filtered_flip(hp, steps=steps, inertia=inertia)


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
    record: dict[str, Any],
) -> list[np.ndarray]:
    """The weights after training with binary activations and real weights, by Adam."""
    finished = args.backup and args.backup / "first_step.h5"
    with strategy.scope():
        model = build(kernel_quantizer=lq.quantizers.NoOp(precision=32))
        if finished and finished.exists():
            model.load_weights(finished)
            return model.get_weights()
        rate = None if args.optimizer == "sgd" else args.learning_rate  # that of Adam
        schedule = decay(rate or 1e-2, args.two_step * data.steps_per_epoch)
        model = compiled(args, data, model, tf.keras.optimizers.Adam(schedule))
    fit(args, model, data, args.two_step, "first_step", record)
    if finished:
        surviving.save_together(finished, model.save_weights, strategy.extended.should_checkpoint)
    return model.get_weights()


def switch(
    args: argparse.Namespace, model: tf.keras.Model, weights: list[np.ndarray], data: Data
) -> float:
    """Begins the second step: the signs of the weights, batch norm that fits; the accuracy then."""
    model.set_weights(weights)
    flip = lqf.optimizers.FilteredFlip.of(model)
    if flip is not None:  # makes bits of the weights now
        with model.distribute_strategy.scope():
            flip.build(model.trainable_variables)
    recalibration(args, model, data, batches=20)(model)
    return float(model.evaluate(data.test, verbose=0, return_dict=True)["accuracy"])


def recalibration(
    args: argparse.Namespace, model: tf.keras.Model, data: Data, batches: int
) -> "lqf.callbacks.RecalibrateBatchNorm":
    """By so many batches, in the parts that a device gets of one: each device reads them all."""
    replicas = model.distribute_strategy.num_replicas_in_sync
    parts = data.plain.batch(args.batch_size // replicas)
    return lqf.callbacks.RecalibrateBatchNorm(parts, batches * replicas)


def fit(
    args: argparse.Namespace,
    model: tf.keras.Model,
    data: Data,
    epochs: int,
    name: str,
    record: dict[str, Any],
) -> dict[str, list[float | None]]:
    """Trains, from the last backup on if there is one; returns the history, written in `record`."""
    start, total = 0, epochs * data.steps_per_epoch
    is_chief = model.distribute_strategy.extended.should_checkpoint
    callbacks = []
    if lqf.optimizers.FilteredFlip.of(model):
        log_dir = args.tensorboard and args.tensorboard / name / "filter"
        callbacks.append(lqf.callbacks.FlipRatio(log_dir=log_dir))
    if args.backup:
        folder = args.backup / name
        start = surviving.saved_steps(folder, data.steps_per_epoch)
        with model.distribute_strategy.scope():
            model.optimizer.build(model.trainable_variables)
        if is_chief:
            surviving.check_room(args.backup, model)
        callbacks.append(
            lqf.callbacks.Backup(folder, save_freq=args.backup_steps, delete_checkpoint=False)
        )
        if start and is_chief:
            print(f"going on after step {start:,} of {total:,}", flush=True)
    if args.recalibrate:
        recalibrate = recalibration(args, model, data, args.recalibrate)
        callbacks.append(recalibrate)
    if args.tensorboard and is_chief:
        callbacks.append(tf.keras.callbacks.TensorBoard(args.tensorboard / name))
    history = surviving.History(args, record, name, start, data.steps_per_epoch, is_chief)
    if start >= total:  # there is nothing left to do
        tf.train.Checkpoint(model=model).restore(
            tf.train.latest_checkpoint(folder / "chief")
        ).expect_partial()
        if args.recalibrate:  # which comes after the last backup
            recalibrate(model)
        if len(history.rows.get("val_accuracy", [])) < epochs:  # stopped before it validated
            logs = model.evaluate(data.test, verbose=0, return_dict=True)
            history.on_epoch_end(epochs - 1, {f"val_{key}": value for key, value in logs.items()})
        history.write()
    else:
        strategy = model.distribute_strategy
        model.fit(
            strategy.distribute_datasets_from_function(functools.partial(data.train, start, total)),
            epochs=epochs,
            steps_per_epoch=data.steps_per_epoch,
            validation_data=data.test,
            callbacks=[*callbacks, history],
            verbose=1 if is_chief else 0,
        )
    return history.rows
