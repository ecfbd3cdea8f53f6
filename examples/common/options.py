"""The arguments that cifar10.py and imagenet.py share, and which of them go together."""

import argparse
import math
import pathlib
from collections.abc import Iterable

import larq_filters as lqf  # before TensorFlow's Keras is touched: selects Keras 2

# Options that have an effect only beside others, with their defaults.
OF_FILTER = {"alpha": 1e-2, "alpha_power": 2.0, "gamma": 0.1, "state_dtype": None}
OF_NAMED_TEACHER = {"teacher_weights": "imagenet"}
_BACKUP_STEPS = {"backup_steps": 500}
_OPTIMIZER = {"optimizer": "filtered"}
_LEAST = {
    **{"epochs": 1, "batch_size": 1, "two_step": 0, "recalibrate": 0, "backup_steps": 1},
    **{"width": 1, "size": 1, "shuffle_buffer": 1},  # of one of the programs
}
_SEEDS = 2**32


def add_arguments(parser: argparse.ArgumentParser, epochs: int, batch_size: int) -> None:
    recipe = parser.add_argument_group("recipe").add_argument
    recipe("--epochs", type=int, default=epochs)
    recipe("--batch-size", type=int, default=batch_size, help="over all devices")
    recipe("--optimizer", choices=["filtered", "adam", "sgd", "bop"], help="(default filtered)")
    recipe("--alpha", type=float, help="of the filter; decays to 0 (default 1e-2)")
    recipe(
        "--alpha-power",
        type=float,
        metavar="P",
        help="alpha decays as (1 - t/steps)**P, such as 1: linearly (default 2)",
    )
    recipe("--gamma", type=float, help="of the filter (default 0.1)")
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
    recipe("--teacher-weights", help="of a network by name, or a file of them")
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
    files("--backup-steps", type=int, metavar="STEPS", help="between two backups (default 500)")
    files("--tensorboard", type=pathlib.Path, metavar="FOLDER")


def parse(parser: argparse.ArgumentParser, arguments: list[str] | None) -> argparse.Namespace:
    """The arguments, with defaults; refuses what cannot be and what would have no effect."""
    args = parser.parse_args(arguments)
    _check_effects(args)
    for name, default in {**OF_FILTER, **OF_NAMED_TEACHER, **_BACKUP_STEPS, **_OPTIMIZER}.items():
        if getattr(args, name) is None:
            setattr(args, name, default)
    _check_values(args)
    return args


def _check_effects(args: argparse.Namespace) -> None:
    """Before there are defaults: what is None was not given."""
    if args.trial:
        _refuse_given(args, of_recipe(args), "has no effect: --trial has the hyperparameters")
    if args.optimizer not in (None, "filtered"):
        _refuse_given(args, OF_FILTER, f"has no effect with --optimizer {args.optimizer}")
    if not args.teacher or pathlib.Path(args.teacher).exists():
        _refuse_given(args, OF_NAMED_TEACHER, "has no effect without a --teacher by name")
    if not args.backup:
        _refuse_given(args, _BACKUP_STEPS, "has no effect without --backup")
    if args.label_smoothing and (args.teacher or args.teacher_logits):
        _refuse(args, "label_smoothing", "has no effect on what a teacher says: leave it out")
    if args.logical_devices and args.strategy == "none":
        _refuse(args, "logical_devices", "has no effect without --strategy")


def _check_values(args: argparse.Namespace) -> None:
    for name, least in _LEAST.items():
        value = getattr(args, name, None)
        if value is not None and value < least:
            _refuse(args, name, f"is a whole number from {least} on")
    if not 0 <= args.seed < _SEEDS:
        _refuse(args, "seed", f"is a whole number from 0 to {_SEEDS - 1}")
    if args.learning_rate is not None and not 0.0 < args.learning_rate < math.inf:
        _refuse(args, "learning_rate", "is above 0 and finite")
    try:
        lqf.filters.CascadedEMA(args.alpha, args.gamma)
    except ValueError as error:
        raise SystemExit(f"--{error}") from error
    if not 0.0 <= args.label_smoothing < 1.0:
        _refuse(args, "label_smoothing", "is from 0 to below 1")
    if args.save and args.save.suffix not in (".keras", ".h5"):
        _refuse(args, "save", "ends in .keras or .h5")
    if args.save and args.save.is_dir():
        _refuse(args, "save", "is a folder: give the name of a file")
    if args.optimizer == "bop" and (args.backup or args.two_step or args.strategy != "none"):
        raise SystemExit(
            "larq's Bop cannot be saved in mid-training, nor make bits of real weights, nor be "
            "used under a strategy; lqf.recipes.bop can"
        )


def of_recipe(args: argparse.Namespace) -> list[str]:
    """What a trial replaces; the first of two steps has a rate of its own."""
    return [*OF_FILTER, *_OPTIMIZER, *([] if args.two_step else ["learning_rate"])]


def check_replicas(args: argparse.Namespace, replicas: int) -> None:
    """Refuses batches of which some images would count more than others."""
    if args.batch_size % replicas:
        _refuse(args, "batch_size", f"is a multiple of the number of devices, {replicas}")


def _refuse_given(args: argparse.Namespace, names: Iterable[str], why: str) -> None:
    for name in names:
        if getattr(args, name) is not None:
            _refuse(args, name, why)


def _refuse(args: argparse.Namespace, name: str, why: str) -> None:
    option = "--" + name.replace("_", "-")
    raise SystemExit(f"{option} {why}. Received: {option} {getattr(args, name)}")
