"""Files that a training writes: never half of one, and all that it needs to go on when killed."""

import argparse
import contextlib
import json
import math
import os
import pathlib
import platform
import shutil
import tempfile
import time
from collections.abc import Callable
from typing import Any

import larq_filters as lqf  # before TensorFlow's Keras is touched: selects Keras 2
from common import options
from common.files import write

import larq as lq
import tensorflow as tf

_HISTORY = "history.json"  # in the folder of backups
# Arguments that say where a training reads and writes, and not what is trained.
FILES = ("data_dir", "output", "save", "backup", "backup_steps", "tensorboard")
_WHERE = (*FILES, "strategy", "logical_devices")


def check_folders(args: argparse.Namespace) -> None:
    """Makes the folders that will be written to, or says now that it will not work."""
    folders = {
        "--output": args.output.parent,
        "--save": args.save and args.save.parent,
        "--backup": args.backup,
        "--tensorboard": args.tensorboard,
    }
    if args.teacher_logits and not args.teacher_logits.exists():
        folders["--teacher-logits"] = args.teacher_logits.parent
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
            with contextlib.suppress(OSError):  # such as that the folder is a file
                trial.unlink()


def arguments(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments as JSON has them, without those that had no effect; of a trial, its values."""
    values = {k: str(v) if isinstance(v, pathlib.Path) else v for k, v in vars(args).items()}
    if args.trial:
        values["trial"] = read_trial(args.trial).values
    idle = {"data_dir"}
    if args.trial:
        idle.update(options.of_recipe(args))
    elif args.optimizer != "filtered":
        idle |= options.OF_FILTER.keys()
    if not args.teacher:
        idle |= options.OF_NAMED_TEACHER.keys()
    return {name: value for name, value in values.items() if name not in idle}


def read_trial(path: pathlib.Path) -> "lqf.tuning.HyperParameters":
    """The hyperparameters in a trial.json of KerasTuner."""
    try:
        trial = json.loads(path.read_text("utf-8"))
        return lqf.tuning.HyperParameters.from_config(trial["hyperparameters"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SystemExit(
            f"--trial: {path} is not the trial.json of a search; tune_cifar10.py prints the one of "
            f"its best trial ({error})"
        ) from error


def check_backup(args: argparse.Namespace, is_chief: bool, steps_per_epoch: int | None) -> None:
    """Refuses the backup of a training by other arguments; notes those of a new one.

    Without `steps_per_epoch`, before the data are read, it notes nothing.
    """
    path = args.backup / "arguments.json"
    now = {name: value for name, value in arguments(args).items() if name not in _WHERE}
    if steps_per_epoch is not None:
        now["steps_per_epoch"] = steps_per_epoch
    if not (_is_begun(args.backup) and path.exists()):  # or it is of an earlier version
        if is_chief and steps_per_epoch is not None:
            _write_json(path, now)
        return
    before = json.loads(path.read_text("utf-8"))
    other = [name for name in now if name in before and before[name] != now[name]]
    if other:
        raise SystemExit(
            f"--backup: {args.backup} has a training with {_listed(before, other)}. Give the same "
            "arguments to go on, or another folder to begin anew. Received: "
            f"{_listed(now, other)}"
        )


def _is_begun(folder: pathlib.Path) -> bool:
    """Whether there is something to go on from."""
    parts = (folder / name / "chief" for name in ("first_step", "training"))
    return (folder / "first_step.h5").exists() or any(map(tf.train.latest_checkpoint, parts))


def _listed(values: dict[str, Any], names: list[str]) -> str:
    return ", ".join(f"{name} = {values.get(name)}" for name in names)


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


def begin(args: argparse.Namespace) -> dict[str, Any]:
    """The record of a training: anew, or with what it had when it was stopped."""
    before = args.backup and args.backup / _HISTORY
    if args.backup and not before.exists() and _is_begun(args.backup):
        before = args.output  # which had it in earlier versions
    return {
        **(json.loads(before.read_text("utf-8")) if before and before.exists() else {}),
        "arguments": arguments(args),
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
    }


class History(tf.keras.callbacks.Callback):
    """Adds each epoch to a record, and writes it as JSON: to --output, and into the backup.

    Of an epoch that was stopped, only the last steps are done when it goes on, or none. Its figures
    of training are then those that were recorded, or None; those of validation are right.
    """

    def __init__(
        self,
        args: argparse.Namespace,
        record: dict[str, Any],
        name: str,
        steps_done: int,
        steps_per_epoch: int,
        is_chief: bool,
    ) -> None:
        super().__init__()
        self.args, self.record, self.is_chief = args, record, is_chief
        key = "history" if name == "training" else name
        self.in_part, rest = divmod(steps_done, steps_per_epoch)
        known = self.in_part + bool(rest)
        if not rest:
            self.in_part = -1  # no epoch is
        rows = record.get(key, {})
        self.rows = record[key] = {key: row[:known] for key, row in rows.items() if row[:known]}
        self.before, self.start = record.get("seconds", 0.0), time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        logs = logs or {}
        for key in {**self.rows, **logs}:
            row = self.rows.setdefault(key, [])
            row += [None] * (epoch + 1 - len(row))
            if key in logs and (epoch != self.in_part or key.startswith("val_")):
                row[epoch] = float(logs[key])
        self.write()

    def write(self) -> None:
        self.record["seconds"] = round(self.before + time.perf_counter() - self.start, 1)
        if self.is_chief:
            if self.args.backup:
                _write_json(self.args.backup / _HISTORY, self.record)
            _write_json(self.args.output, self.record)


def _write_json(path: pathlib.Path, value: Any) -> None:
    text = json.dumps(value, indent=1) + "\n"
    write(path, lambda beside: beside.write_text(text, "utf-8"))


def save_together(path: pathlib.Path, save: Callable[[pathlib.Path], Any], is_chief: bool) -> None:
    """Saves a network, which all workers must read at once: its averages are spread over them."""
    if is_chief:
        write(path, save)
    else:
        with tempfile.TemporaryDirectory() as folder:
            save(pathlib.Path(folder) / path.name)
