"""What a search finds in one budget: three hyperparameters of the filter, or seven latent ones.

    python benchmarks/search_budget.py

The same random search, number of trials, epochs, network, seeds and CIFAR-10 images for both; real
weights are trained by the same Adam. The best trial of each is then trained again with other seeds
and tested on images that the search never saw. Run again, it goes on after the last finished trial.
"""

import argparse
import functools
import json
import pathlib

import larq_filters as lqf

import numpy as np
import tensorflow as tf
from matplotlib import pyplot
from support import machine, results
from support.examples import cifar10, training, tune_cifar10

SPACES = {"filtered": "3 hyperparameters (FilteredFlip)", "latent": "7 (SGD on latent weights)"}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--subset", type=int, default=10000)
    parser.add_argument("--held-out", type=int, default=5000)
    parser.add_argument("--repeats", type=int, default=3, help="seeds for each best trial")
    parser.add_argument("--data-dir")
    parser.add_argument(
        "--folder",
        type=pathlib.Path,
        default=pathlib.Path("search_budget"),
        help="folder of KerasTuner's files",
    )
    return parser.parse_args()


def search(args: argparse.Namespace, space: str) -> list:
    options = {name: getattr(args, name) for name in ("trials", "epochs", "width", "subset")}
    options["held-out"] = args.held_out
    if args.data_dir:
        options["data-dir"] = args.data_dir
    arguments = [f"--{name}={value}" for name, value in options.items()]
    arguments += [f"--space={space}", f"--folder={args.folder}"]
    return tune_cifar10.finished(tune_cifar10.search(tune_cifar10.parse_arguments(arguments)))


def repeat(args: argparse.Namespace, values: dict, seed: int) -> float:
    """Test accuracy after training with these hyperparameters from another seed."""
    tf.keras.backend.clear_session()
    tf.keras.utils.set_random_seed(seed)
    arrays = cifar10.read(args.data_dir)
    hp = lqf.tuning.HyperParameters()
    hp.values = values
    per_epoch = args.subset // 128
    steps = args.epochs * per_epoch
    build = functools.partial(lqf.models.BiRealNet20, width=args.width)
    model, optimizer = training.searched(hp, build, steps)
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"])
    images = tuple(tensor[: args.subset] for tensor in arrays["train"])
    options = argparse.Namespace(batch_size=128, seed=seed)
    data = cifar10.train_batches(options, images, None, 0, steps)
    model.fit(data, epochs=args.epochs, steps_per_epoch=per_epoch, verbose=2)
    test = cifar10.as_they_are(arrays["test"]).batch(500)
    return model.evaluate(test, verbose=0, return_dict=True)["accuracy"]


def picture(spaces: dict, path: pathlib.Path) -> None:
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for space, color in zip(spaces, ("C0", "C1"), strict=True):
        scores = [100 * trial["held_out_accuracy"] for trial in spaces[space]["trials"]]
        number = np.arange(1, len(scores) + 1)
        best = np.maximum.accumulate(scores)
        left.step(number, best, ":", where="post", color=color)
        left.plot(number, results.expected_best(scores), color=color, label=SPACES[space])
        right.plot(number / len(scores), sorted(scores), "o-", color=color, label=SPACES[space])
    left.plot([], [], ":", color="gray", label="in the order they came")
    left.plot([], [], color="gray", label="averaged over all orders")
    left.set(xlabel="trials", ylabel="best held-out accuracy so far (%)")
    right.set(xlabel="share of trials at or below", ylabel="held-out accuracy (%)")
    left.set_title("Best of so many trials", fontsize="medium")
    right.set_title("All trials", fontsize="medium")
    left.legend()
    right.legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def main() -> None:
    args = parse_arguments()
    names = ("trials", "epochs", "width", "subset", "held_out")
    settings = {key: getattr(args, key) for key in names}
    path = results.RESULTS / "search_budget.json"
    record = json.loads(path.read_text("utf-8")) if path.exists() else {}
    if record.get("settings") != settings:
        record = {"settings": settings, "spaces": {space: {} for space in SPACES}}
    for space in SPACES:
        trials = [
            {"values": t.hyperparameters.values, "held_out_accuracy": float(t.score)}
            for t in search(args, space)
        ]
        record["spaces"][space] = {**record["spaces"][space], "trials": trials}
        machine.write("search_budget", record)
    for number in range(args.repeats):  # in turns
        for found in record["spaces"].values():
            best = max(found["trials"], key=lambda trial: trial["held_out_accuracy"])
            known = found.get("repeats", {})
            if known.get("values") != best["values"]:
                known = {"values": best["values"], "test_accuracies": []}
            if len(known["test_accuracies"]) <= number:
                known["test_accuracies"].append(repeat(args, best["values"], seed=2 + number))
            found["repeats"] = known
            machine.write("search_budget", record)
    picture(record["spaces"], path.with_suffix(".png"))
    for space, found in record["spaces"].items():
        scores = [100 * trial["held_out_accuracy"] for trial in found["trials"]]
        tests = [100 * value for value in found["repeats"]["test_accuracies"]]
        print(
            f"{space}: best of {len(scores)} trials {max(scores):.1f} %, median "
            f"{np.median(scores):.1f} %; test accuracy of the best with other seeds "
            f"{np.mean(tests):.1f} ± {np.std(tests, ddof=1):.1f} %"
        )


if __name__ == "__main__":
    main()
