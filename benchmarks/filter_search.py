"""Filters and decays on a small network: which are worth a run of accuracy_cifar10.py.

    python benchmarks/filter_search.py                    # what has no result yet
    python benchmarks/filter_search.py cusum --seeds 3 4
    python benchmarks/filter_search.py --report           # of what there is

BiRealNet-20 of width 8 on CIFAR-10 in 16×16 pixels, 10 epochs of batches of 128. Each run is a
process with one thread, some 4 minutes long, and as many go at once as there are cores. All see
the same images in the same order. A finished run is a JSON in results/ and is not done again.
"""

import argparse
import concurrent.futures
import contextlib
import dataclasses
import functools
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from typing import Any
from unittest import mock

import larq_filters as lqf
from larq_filters import filters, recipes
from larq_filters.optimizers import _rounding

import larq as lq
import tensorflow as tf
from support import machine, results
from support.candidates import LATENT_KERNEL, Adam, Decay, Schedule, flip, latent_sgd
from support.examples import cifar10, training

NAME = "filter_search"  # of a folder in results/
EPOCHS = 10


def normalized(gamma: float, sigma: float) -> filters.Filter:
    return filters.NormalizedEMA(gamma, sigma, bias_correction=True)


def cusum(rate: Schedule, first: filters.Filter | None = None) -> filters.Filter:
    """Gradients in units of their own root mean square, summed between two limits."""
    summed = filters.Integrator(rate, limit=1.0)
    return filters.Cascade(first or normalized(1.0, 1e-2), summed)


def diode(alpha: Schedule) -> filters.Filter:
    """Diode with a decay, which its recipe has not."""
    return filters.Cascade(filters.EMA(0.1), filters.Sign(), filters.EMA(alpha))


@dataclasses.dataclass(frozen=True)
class Candidate:
    """An optimizer, made when TensorFlow is set up for a run."""

    optimizer: Callable[[Decay], tf.keras.optimizers.Optimizer]
    latent: bool = False  # clipped
    nearest: bool = False  # narrow state is rounded to the nearest instead of by chance


def cascaded(
    alpha: float = 1e-2, gamma: float = 0.1, power: float = 2.0, real: float = 1e-2, **kwargs: Any
) -> Candidate:
    return Candidate(
        lambda decay: flip(
            filters.CascadedEMA(decay(alpha, power=power), gamma), decay(real), **kwargs
        )
    )


def bfloat16(alpha: float, nearest: bool = False) -> Candidate:
    return dataclasses.replace(cascaded(alpha, state_dtype="bfloat16"), nearest=nearest)


def ema(alpha: float) -> Candidate:
    """With 5e-4, noise flips as many weights as with CascadedEMA's 1e-2 and 0.1."""
    return Candidate(lambda decay: flip(filters.EMA(decay(alpha, power=2.0)), decay(1e-2)))


def page(
    rate: float = 0.15,
    power: float = 1.0,
    threshold: float = 0.9,
    first: filters.Filter | None = None,
    real: float = 1e-2,
) -> Candidate:
    """Page's test: a bit flips when the cumulative sum (CUSUM) of its gradients is too large."""
    return Candidate(
        lambda decay: flip(cusum(decay(rate, power=power), first), decay(real), threshold=threshold)
    )


def saturating(rate: float = 300.0, power: float = 1.0, threshold: float = 0.0) -> Candidate:
    """As a filter, clipped SGD with momentum 0.9 and a tenth of the rate; no weight decay."""

    def make(decay: Decay) -> tf.keras.optimizers.Optimizer:
        summed = filters.Integrator(decay(rate, power=power), limit=1.0)
        both = filters.Cascade(filters.EMA(0.1), summed)
        return flip(both, decay(1e-2), threshold=threshold)

    return Candidate(make)


def hysteresis(threshold: float) -> Candidate:
    """CascadedEMA of normalized gradients: the threshold is in units of their root mean square."""

    def make(decay: Decay) -> tf.keras.optimizers.Optimizer:
        smoothed = filters.CascadedEMA(decay(1e-2, power=2.0), 0.1)
        both = filters.Cascade(normalized(1.0, 1e-2), smoothed)
        return flip(both, decay(1e-2), threshold=threshold)

    return Candidate(make)


def bop(rate: float, threshold: float) -> Candidate:
    return Candidate(
        lambda decay: recipes.bop(threshold, decay(rate), real_optimizer=Adam(decay(1e-2)))
    )


def latent_adam(rate: float) -> Candidate:
    return Candidate(lambda decay: Adam(decay(rate)), latent=True)


def latent_adam_and(rate: float, real: float) -> Candidate:
    """One Adam for the latent weights, another for the real ones: larq's way, of old optimizers."""
    old = tf.keras.optimizers.legacy.Adam
    return Candidate(
        lambda decay: lq.optimizers.CaseOptimizer(
            (lambda variable: getattr(variable, "precision", 32) == 1, old(decay(rate))),
            default_optimizer=old(decay(real)),
        ),
        latent=True,
    )


CANDIDATES = {
    "cascaded_ema": cascaded(power=1.0),
    "cascaded_ema_squared": cascaded(),
    "cascaded_ema_squared_real_3e-2": cascaded(real=3e-2),
    "cascaded_ema_squared_real_1e-1": cascaded(real=1e-1),
    "cascaded_ema_squared_alpha_3e-2": cascaded(3e-2),
    "cascaded_ema_squared_alpha_3e-3": cascaded(3e-3),
    "cascaded_ema_squared_alpha_1e-3": cascaded(1e-3),
    "cascaded_ema_squared_gamma_0.3": cascaded(gamma=0.3),
    "cascaded_ema_squared_gamma_0.03": cascaded(gamma=0.03),
    "cascaded_ema_squared_alpha_gamma_0.03": cascaded(0.03, gamma=0.03),
    "cascaded_ema_power_4": cascaded(power=4.0),
    "cascaded_ema_squared_inertia_0.1": cascaded(inertia=0.1),
    "cascaded_ema_squared_inertia_1": cascaded(inertia=1.0),
    "bfloat16": bfloat16(1e-2),
    "bfloat16_nearest": bfloat16(1e-2, nearest=True),
    "bfloat16_alpha_1e-3": bfloat16(1e-3),
    "bfloat16_nearest_alpha_1e-3": bfloat16(1e-3, nearest=True),
    "cascaded_ema_squared_alpha_1e-4": cascaded(1e-4),
    "bfloat16_alpha_1e-4": bfloat16(1e-4),
    "bfloat16_nearest_alpha_1e-4": bfloat16(1e-4, nearest=True),
    "ema": ema(5e-4),
    "hysteresis_0.02": hysteresis(0.02),
    "hysteresis_0.05": hysteresis(0.05),
    "bop": bop(1e-3, 1e-8),
    "decayed_diode": Candidate(lambda decay: flip(diode(decay(1e-2, power=2.0)), decay(1e-2))),
    "cusum": page(),
    "cusum_rate_0.1": page(rate=0.1),
    "cusum_rate_0.3": page(rate=0.3),
    "cusum_power_0.5": page(power=0.5),
    "cusum_threshold_0.5": page(threshold=0.5),
    "cusum_threshold_0": page(threshold=0.0),
    "cusum_momentum": page(first=normalized(0.1, 1e-2)),
    "cusum_sigma_1e-3": page(first=normalized(1.0, 1e-3)),
    "cusum_sign": page(first=filters.Sign()),
    "cusum_real_3e-2": page(real=3e-2),
    "saturating": saturating(),
    "saturating_squared": saturating(power=2.0),
    "saturating_threshold_0.5": saturating(threshold=0.5),
    "latent_sgd_30": Candidate(lambda decay: latent_sgd(decay(30.0), decay(1e-2)), latent=True),
    "latent_adam": latent_adam(1e-2),
    "latent_adam_3e-2": latent_adam(3e-2),
    "latent_adam_real_3e-2": latent_adam_and(1e-2, real=3e-2),
}


def train(name: str, seed: int, data_dir: str | None) -> None:
    """One run, in a process of its own."""
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    arrays = cifar10.read(data_dir)
    per_epoch = len(arrays["train"][0]) // 128
    steps = EPOCHS * per_epoch
    tf.keras.utils.set_random_seed(seed)
    candidate = CANDIDATES[name]
    kernel = LATENT_KERNEL if candidate.latent else {}
    model = lqf.models.BiRealNet20(width=8, input_shape=(16, 16, 3), **kernel)
    optimizer = candidate.optimizer(functools.partial(training.decay, steps=steps))
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"])
    options = argparse.Namespace(batch_size=128, seed=seed)
    nearest = mock.patch.object(
        _rounding,
        "stochastic",
        lambda value, drawn: tf.cast(tf.cast(value, tf.bfloat16), tf.float32),
    )
    with nearest if candidate.nearest else contextlib.nullcontext():
        history = model.fit(
            halved(cifar10.train_batches(options, arrays["train"], None, 0, steps)),
            epochs=EPOCHS,
            steps_per_epoch=per_epoch,
            callbacks=[] if candidate.latent else [lqf.callbacks.FlipRatio()],
            verbose=0,
        ).history
    test = halved(cifar10.as_they_are(arrays["test"]).batch(500))
    result = model.evaluate(test, verbose=0, return_dict=True)
    record = {
        "candidate": name,
        "seed": seed,
        "test_accuracy": round(result["accuracy"], 4),
        "test_loss": round(result["loss"], 4),
        "accuracy": [round(value, 4) for value in history["accuracy"]],
        "loss": [round(value, 4) for value in history["loss"]],
        "flip_ratio": [round(float(value), 5) for value in history.get("flip_ratio", [])],
    }
    machine.write(f"{NAME}/{name}_seed{seed}", record)


def halved(batches: tf.data.Dataset) -> tf.data.Dataset:
    return batches.map(lambda x, y: (tf.nn.avg_pool2d(x, 2, 2, "VALID"), y))


def show() -> None:
    found = results.searched(results.RESULTS / NAME)
    rows = {
        name: [
            statistics.mean(record["test_accuracy"] for record in records),
            statistics.mean(record["test_loss"] for record in records),
            statistics.mean(record["loss"][-1] for record in records),
        ]
        for name, records in found.items()
    }
    print(f"{'candidate':<38} {'seeds':<7} {'accuracy':>10} {'test loss':>10} {'training':>9}")
    for name, (accuracy, test, loss) in sorted(rows.items(), key=lambda row: -row[1][0]):
        seeds = ",".join(str(record["seed"]) for record in found[name])
        print(f"{name:<38} {seeds:<7} {accuracy:>10.2%} {test:>10.3f} {loss:>9.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("candidates", nargs="*", metavar="NAME", help=f"of {', '.join(CANDIDATES)}")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--data-dir")
    parser.add_argument("--report", action="store_true", help="train nothing")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    for name in args.candidates:
        if name not in CANDIDATES:
            parser.error(f"there is no {name}: choose from {', '.join(CANDIDATES)}")
    if args.one:
        train(args.candidates[0], args.seeds[0], args.data_dir)
        return

    def run(name: str, seed: int) -> None:
        print(f"{name}, seed {seed}", flush=True)
        command = [sys.executable, __file__, name, "--one", f"--seeds={seed}"]
        command += [f"--data-dir={args.data_dir}"] if args.data_dir else []
        subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})

    with concurrent.futures.ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        runs = [
            pool.submit(run, name, seed)
            for seed in args.seeds
            for name in args.candidates or CANDIDATES
            if not args.report and not (results.RESULTS / NAME / f"{name}_seed{seed}.json").exists()
        ]
        for one in runs:
            one.result()
    show()


if __name__ == "__main__":
    main()
