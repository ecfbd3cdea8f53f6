"""Makes the trained weights that come with the package, and measures them.

    python benchmarks/pretrained.py digits
    python benchmarks/pretrained.py cifar10 NETWORK.keras HISTORY.json

The digits network is trained here, as `examples/quickstart.py` trains it. NETWORK.keras is what
`examples/cifar10.py --save` wrote, HISTORY.json what its `--output` wrote; or both are of a run of
`benchmarks/accuracy_cifar10.py --save FOLDER`. Its batch norm is recalibrated over an epoch of
training images, in float32. Writes the weights and the packed file into
`larq_filters/models/weights`. Accuracy is that of all test images, of the weights as they are read
back and of the packed file.
"""

import argparse
import json
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import larq_filters as lqf
from larq_filters.models import pretrained

import accuracy_cifar10
import numpy as np
import tensorflow as tf
from larq_compute_engine.tflite.python.interpreter import Interpreter
from support import machine
from support.examples import cifar10, quickstart, surviving


class Trained(NamedTuple):
    """A trained network, and images it never saw with their labels."""

    network: Callable[..., tf.keras.Model]
    model: tf.keras.Model
    images: np.ndarray
    labels: np.ndarray
    command: str


def digits() -> Trained:
    epochs, seed = 20, 1
    model, images = quickstart.train(epochs, seed)
    _, _, _, labels = quickstart.data(seed)
    command = f"examples/quickstart.py --epochs {epochs} --seed {seed}"
    return Trained(lqf.models.DigitsNet, model, images, labels, command)


def cifar(network: pathlib.Path, history: pathlib.Path) -> Trained:
    arrays = cifar10.read(None)
    images, labels = arrays["test"]
    model = lqf.models.BiRealNet20()
    model.set_weights(tf.keras.models.load_model(network, compile=False).get_weights())
    options = cifar10.parse_arguments([])
    batches = len(arrays["train"][0]) // options.batch_size
    train = cifar10.train_batches(options, arrays["train"], None, 0, batches)
    lqf.callbacks.RecalibrateBatchNorm(train.map(lambda x, y: x), batches)(model)
    command = trained_by(json.loads(history.read_text("utf-8")))
    images = lqf.models.preprocess_cifar10(images.numpy())
    return Trained(lqf.models.BiRealNet20, model, images, labels.numpy(), command)


def trained_by(record: dict[str, Any]) -> str:
    """The command whose history this is."""
    if "arguments" in record:
        program, given = "examples/cifar10.py", record["arguments"]
        if given.get("trial"):
            program += " --trial trial.json"
        defaults = vars(cifar10.parse_arguments([]))
        used = {
            name: pathlib.Path(value).name if name.startswith("teacher") else value
            for name, value in given.items()
            if name not in (*surviving.FILES, "trial") and value != defaults.get(name)
        }
    else:
        recipe = record["recipe"]
        family = recipe["family"]
        program = f"benchmarks/accuracy_cifar10.py {family}"
        settings = accuracy_cifar10.DEFAULTS | record["settings"]
        settings.pop("batch_size")
        variants = accuracy_cifar10.ALL[family][1].index(recipe["variant"]) + 1
        used = settings | {"variants": variants, "seeds": recipe["seed"]}
        used |= {"real_rate": recipe.get("real_rate"), "save": "FOLDER"}
    options = [
        f"--{name.replace('_', '-')}" + ("" if value is True else f" {value}")
        for name, value in used.items()
        if value is not None
    ]
    return " ".join([program, *options])


def accuracy(logits: Any, labels: np.ndarray) -> float:
    return float(np.mean(np.argmax(logits, axis=1) == labels))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights", choices=["digits", "cifar10"])
    parser.add_argument("network", type=pathlib.Path, nargs="?")
    parser.add_argument("history", type=pathlib.Path, nargs="?")
    args = parser.parse_args()
    if args.weights == "cifar10" and args.history is None:
        parser.error("cifar10 needs NETWORK.keras and HISTORY.json")
    trained = digits() if args.weights == "digits" else cifar(args.network, args.history)

    stem = f"{trained.network.__name__}_{args.weights}".lower()
    weights, packed = (pretrained.FOLDER / f"{stem}{suffix}" for suffix in (".npz", ".tflite"))
    weights.parent.mkdir(exist_ok=True)
    pretrained.save(trained.model, weights)
    model = trained.network(weights=args.weights)
    exported = lqf.export.convert(model, strict=True)
    exported.save(packed)
    read = Interpreter(packed.read_bytes()).predict(trained.images)
    record = {
        "network": trained.network.__name__,
        "command": trained.command,
        "accuracy": accuracy(model.predict(trained.images, verbose=0), trained.labels),
        "packed_accuracy": accuracy(read, trained.labels),
        "bytes": weights.stat().st_size,
        "packed_bytes": packed.stat().st_size,
        "latency": lqf.export.benchmark(exported, runs=50, threads=1).to_dict(),
    }
    print(json.dumps(record, indent=1))
    machine.write(f"pretrained/{args.weights}", record)


if __name__ == "__main__":
    main()
