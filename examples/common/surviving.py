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
from collections.abc import Callable, Mapping
from typing import Any

import larq_filters as lqf  # before TensorFlow's Keras is touched: selects Keras 2
from common.files import write

import larq as lq
import tensorflow as tf


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
            with contextlib.suppress(OSError):  # such as that the folder is a file
                trial.unlink()


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


class History(tf.keras.callbacks.Callback):
    """Writes arguments, machine and history as JSON after every epoch, never half a file."""

    def __init__(
        self,
        args: argparse.Namespace,
        name: str,
        epochs: int,
        is_chief: bool,
        earlier: Mapping[str, Any] | None = None,
        goes_on: bool = False,
    ) -> None:
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
            **(earlier or {}),
        }
        if goes_on and args.output.exists():  # what was written before it was stopped
            before = json.loads(args.output.read_text("utf-8"))
            self.record |= {k: v for k, v in before.items() if k not in self.record}
            self.record["seconds"] = before.get("seconds", 0.0)
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
