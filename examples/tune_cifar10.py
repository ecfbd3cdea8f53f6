"""Searches the hyperparameters of BiRealNet-20 on CIFAR-10 with KerasTuner.

    python examples/tune_cifar10.py --space filtered --trials 20 --epochs 6

The space "filtered" has three hyperparameters, "latent" the seven of SGD on latent weights; real
weights are trained by the same Adam in both. Accuracy is that on training images held out.
Every finished trial is kept: run again with the same arguments, a search that was stopped goes on.
Several processes share a search by KerasTuner's environment variables: docs/guides/searching.md.
"""

import argparse
import functools
import os
import pathlib
import sys
from typing import Any

import larq_filters as lqf  # before TensorFlow's Keras is touched: selects Keras 2

import cifar10
import tensorflow as tf
from common import training

SPACES = {"filtered": lqf.tuning.filtered_flip, "latent": lqf.tuning.latent_sgd}


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--space", choices=list(SPACES), default="filtered")
    parser.add_argument(
        "--tuner", choices=["random", "bayesian", "hyperband", "grid"], default="random"
    )
    parser.add_argument(
        "--trials", type=int, default=20, help="Hyperband makes as many as its brackets have"
    )
    parser.add_argument("--epochs", type=int, default=6, help="epochs of each trial")
    parser.add_argument("--width", type=int, default=16, help="channels of the first stage")
    parser.add_argument("--subset", type=int, default=45000, help="train on so many images")
    parser.add_argument("--held-out", type=int, default=5000, help="and validate on so many others")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--data-dir", help="folder of tensorflow-datasets (default ~/tensorflow_datasets)"
    )
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("search"))
    args = parser.parse_args(arguments)
    for name in ("trials", "epochs", "width", "batch_size", "held_out"):
        if getattr(args, name) < 1:
            parser.error(f"--{name.replace('_', '-')} is a whole number from 1 on")
    if args.epochs * (args.subset // args.batch_size) < 20:
        parser.error("give more --epochs or a larger --subset: 20 steps are the least")
    return args


class Network(lqf.tuning.HyperModel):
    """Every trial starts from the same seed and sees the same images in the same order."""

    def __init__(self, args: argparse.Namespace) -> None:
        super().__init__()
        self.args = args
        arrays = cifar10.read(args.data_dir)["train"]
        if args.subset + args.held_out > len(arrays[0]):
            raise SystemExit(
                f"--subset {args.subset} and --held-out {args.held_out} are more than the "
                f"{len(arrays[0])} training images: give less"
            )
        self.images = tuple(tensor[: args.subset] for tensor in arrays)
        self.held_out = cifar10.as_they_are(tuple(t[-args.held_out :] for t in arrays))
        self.steps_per_epoch = args.subset // args.batch_size

    def build(self, hp: lqf.tuning.HyperParameters) -> tf.keras.Model:
        tf.keras.utils.set_random_seed(self.args.seed)
        network = functools.partial(lqf.models.BiRealNet20, width=self.args.width)
        steps = self.args.epochs * self.steps_per_epoch
        SPACES[self.args.space](hp, steps=steps)  # declares them
        model, optimizer = training.searched(hp, network, steps)
        loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer, loss, metrics=["accuracy"])
        return model

    def fit(
        self,
        hp: lqf.tuning.HyperParameters,
        model: tf.keras.Model,
        epochs: int,
        initial_epoch: int = 0,
        **kwargs: Any,
    ) -> dict[str, float]:
        steps = (epoch * self.steps_per_epoch for epoch in (initial_epoch, epochs))
        history = model.fit(
            cifar10.train_batches(self.args, self.images, None, *steps),
            steps_per_epoch=self.steps_per_epoch,
            validation_data=self.held_out.batch(500).prefetch(tf.data.AUTOTUNE),
            initial_epoch=initial_epoch,
            epochs=epochs,
            **kwargs,
        )
        # KerasTuner itself takes the best epoch, which favours accuracies that jump.
        return {name: float(values[-1]) for name, values in history.history.items()}


def make_tuner(args: argparse.Namespace) -> Any:
    kinds = {
        "random": (lqf.tuning.RandomSearch, {"max_trials": args.trials}),
        "bayesian": (lqf.tuning.BayesianOptimization, {"max_trials": args.trials}),
        "grid": (lqf.tuning.GridSearch, {"max_trials": args.trials}),
        "hyperband": (lqf.tuning.Hyperband, {"max_epochs": args.epochs}),
    }
    tuner, arguments = kinds[args.tuner]
    return tuner(
        Network(args),
        objective="val_accuracy",
        seed=args.seed,
        directory=args.folder,
        project_name=project(args),
        **arguments,
    )


def project(args: argparse.Namespace) -> str:
    """The folder of a search: another one for other settings, whose trials are not comparable."""
    settings = ("epochs", "width", "subset", "held_out", "batch_size", "seed")
    numbers = (f"{name.replace('_', '-')}{getattr(args, name)}" for name in settings)
    return "_".join([args.space, args.tuner, *numbers])


def search(args: argparse.Namespace) -> Any:
    """The tuner after its search, which goes on where an earlier one was stopped."""
    tuner = make_tuner(args)
    tuner.search(epochs=args.epochs, verbose=1 if sys.stdout.isatty() else 2)
    return tuner


def finished(tuner: Any) -> list[Any]:
    """The completed trials, in the order in which they were started."""
    trials = [tuner.oracle.trials[key] for key in tuner.oracle.start_order]
    return [trial for trial in trials if trial.status == "COMPLETED"]


def table(trials: list[Any]) -> str:
    """The trials, the best first; a hyperparameter's name is set over several lines."""
    trials = sorted(trials, key=lambda trial: -trial.score)
    names = [n for n in trials[0].hyperparameters.values if not n.startswith("tuner/")]
    heads = [["trial"], ["held-out", "accuracy"], *(name.split("_") for name in names)]
    depth = max(map(len, heads))
    rows = [
        [head[i - depth] if i >= depth - len(head) else "" for head in heads] for i in range(depth)
    ]
    for trial in trials:
        values = (trial.hyperparameters.values[name] for name in names)
        cells = [f"{v:.3g}" if isinstance(v, float) else str(v) for v in values]
        rows.append([trial.trial_id, f"{trial.score:.2%}", *cells])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        " ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows
    )


def as_filter(values: dict[str, Any]) -> tuple[float, float]:
    """α and γ of a trial; if it is of latent weights, those of the filter that its SGD is."""
    if "alpha" in values:
        return values["alpha"], values["gamma"]
    return values["learning_rate"] * values["weight_decay"], 1.0 - values["momentum"]


def picture(trials: list[Any], path: pathlib.Path) -> None:
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    alphas, gammas = zip(*(as_filter(t.hyperparameters.values) for t in trials), strict=True)
    scores = [100 * trial.score for trial in trials]
    dots = left.scatter(alphas, gammas, c=scores, s=60, edgecolors="black", linewidths=0.5)
    figure.colorbar(dots, label="held-out accuracy (%)")
    left.set(xscale="log", yscale="log", xlabel="α (per step)", ylabel="γ (per step)")
    left.set(xlim=(min(alphas) / 2, max(alphas) * 2), ylim=(0.007, 1.4))
    if "alpha" not in trials[0].hyperparameters:
        left.set(xlabel="α = learning rate · weight decay", ylabel="γ = 1 − momentum")
    number = range(1, len(trials) + 1)
    best = [max(scores[:n]) for n in number]
    right.plot(number, scores, "o", color="gray", label="trial")
    right.step(number, best, where="post", label="best so far")
    right.set(xlabel="trials", ylabel="held-out accuracy (%)")
    right.xaxis.get_major_locator().set_params(integer=True)
    right.legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def main() -> None:
    args = parse_arguments()
    tuner = search(args)
    if "chief" not in os.environ.get("KERASTUNER_TUNER_ID", "chief"):
        return  # a worker: the chief has all trials
    trials = finished(tuner)
    if not trials:
        raise SystemExit(f"no trial was finished; their errors are in {tuner.project_dir}")
    best = max(trials, key=lambda trial: trial.score)
    path = pathlib.Path(tuner.project_dir) / "search.png"
    picture(trials, path)
    batch = "" if args.batch_size == 128 else f"--batch-size {args.batch_size} "
    print(
        f"\n{table(trials)}\n\npicture in {path}; to train the best network in full:\n\n"
        f"python examples/cifar10.py --epochs 100 --width {args.width} {batch}"
        f"--trial {tuner.get_trial_dir(best.trial_id)}/trial.json"
    )


if __name__ == "__main__":
    main()
