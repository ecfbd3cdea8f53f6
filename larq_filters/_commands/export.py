"""`larq-filters export`: a saved model to a packed file, or to a C program, in build scripts."""

import argparse
import contextlib
import importlib
import json
import os
import pathlib
import sys
import zipfile
from collections.abc import Sequence
from typing import Any

from larq_filters import _files, export
from larq_filters_command import DONE, FORMATS, MISMATCH, NOT_PACKED, REFUSED

import numpy as np
import tensorflow as tf

# What Keras says of a class that it does not know; the last, where it takes its name for a layer.
_CUSTOM = ("register", "custom_object", "be imported", "must be an instance of class Layer")


def run(args: argparse.Namespace) -> int:
    """Converts, verifies and writes as the parsed arguments say; returns the exit code."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # of Larq Compute Engine's TensorFlow
    try:
        _export(args)
    except export.NotPacked as error:
        return _say(error, NOT_PACKED)
    except export.Mismatch as error:
        return _say(error, MISMATCH)
    except (ImportError, OSError, TypeError, ValueError) as error:
        return _say(error, REFUSED)
    except tf.errors.OpError as error:
        reason = f"{type(error).__name__}, {_shortened(str(error))}"
        return _say(ValueError(f"TensorFlow cannot run the model. Received: {reason}"), REFUSED)
    return DONE


def _export(args: argparse.Namespace) -> None:
    for path in filter(None, (args.out, args.report)):
        folder = os.path.dirname(path) or "."
        if os.path.isdir(path):
            raise ValueError(
                f"a folder is in the place of a file: give a file's name. Received: '{path}'"
            )
        if not (os.path.isdir(folder) and os.access(folder, os.W_OK)):
            raise ValueError(f"there is no folder to write to. Received: '{path}'")
    _import(args.imports)
    ending = pathlib.Path(args.out).suffix[1:]
    to = args.format or (ending if ending in FORMATS else "tflite")
    if to == "c" and ending != "c":
        raise ValueError(f"a C program's file ends in .c: name OUT so. Received: '{args.out}'")
    if ending in ("h", "c") and to != "c":
        raise ValueError(
            "a .c or .h file is C, and --format is of another kind: give an OUT that ends in .c, "
            f"which gets its header beside it. Received: '{args.out}' --format {to}"
        )
    if args.labels and not args.int8:
        raise ValueError(
            "--labels are those of the samples of --int8: give both. "
            f"Received: --labels {args.labels}"
        )
    if args.verify is None and (args.tolerance, args.allowed) != (None, None):
        raise ValueError(
            "--tolerance and --allowed are of --verify: give samples to verify with. Received: "
            f"--tolerance {args.tolerance}, --allowed {args.allowed}"
        )
    written = [args.out, *([f"{args.out[:-1]}h"] if to == "c" else [])]
    if args.report and os.path.realpath(args.report) in map(os.path.realpath, written):
        raise ValueError(
            "--report would take the place of the network: give it a file of its own. Received: "
            f"'{args.report}' beside {' and '.join(written)}"
        )
    _check_inputs(args, [*written, *filter(None, [args.report])])
    if to == "tflite" and args.int8:
        raise ValueError("--int8 is for --format npz or c. Received: --format tflite")
    if to != "tflite" and (args.target != "arm" or not args.pack_dense):
        raise ValueError(
            f"--target and --no-pack-dense are for --format tflite. Received: --format {to}"
        )
    samples = None if args.verify is None else _samples(args.verify)
    representative = None if args.int8 is None else _samples(args.int8)
    labels = None if args.labels is None else _samples(args.labels)
    model = _load(args.model)
    exported: export.Exported | export.Bits
    if to == "tflite":
        exported = export.convert(model, pack_dense=args.pack_dense, target=args.target)
    else:
        exported = export.bits(model, representative=representative, labels=labels)
    print(exported.report)
    if args.strict:
        exported.report.check_packed()
    result = {"report": exported.report.to_dict()}
    if samples is not None:
        verification = exported.verify(
            samples, model, tolerance=args.tolerance, allowed=args.allowed or 0.0
        )
        print(f"\n{verification}")
        result["verification"] = verification.to_dict()
    with contextlib.ExitStack() as files:
        if args.report is not None:  # written as a whole before OUT takes its place
            report = files.enter_context(_files.replaced(args.report))
            report.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
        if to == "c" and isinstance(exported, export.Bits):
            exported.to_c(args.out)
        else:
            exported.save(args.out)


def _check_inputs(args: argparse.Namespace, written: Sequence[str]) -> None:
    """Refuses files that would take the place of what the command reads, or of a part of it."""
    read = [path for path in (args.model, args.verify, args.int8, args.labels) if path]
    for one in map(pathlib.Path, written):
        for other in map(pathlib.Path, read):
            file, given = one.resolve(), other.resolve()
            if file == given or (file.exists() and given in file.parents):
                raise ValueError(
                    "a file would take the place of one that the command reads: give OUT and "
                    f"--report names of their own. Received: '{one}' and '{other}'"
                )


def _import(names: Sequence[str]) -> None:
    folder = os.getcwd()
    if names and folder not in sys.path:
        sys.path.insert(0, folder)  # where `python -m larq_filters` has it
    for name in names:
        if name.startswith(".") or name.endswith(".py") or os.sep in name:
            raise ValueError(
                "--import takes the name of a module: give it without folder and ending, and run "
                f"the command in its folder or name this in PYTHONPATH. Received: '{name}'"
            )
        try:
            importlib.import_module(name)
        except Exception as error:
            raise ValueError(
                "a module of --import cannot be imported. Received: "
                f"'{name}', {type(error).__name__}: {error}"
            ) from error


def _load(path: str) -> tf.keras.Model:
    if not os.path.exists(path):
        raise ValueError(f"there is no such model. Received: '{path}'")
    version = _keras_version(path)
    if version.startswith("3"):
        raise ValueError(
            "this model is of Keras 3, and larq's layers are of Keras 2: build it with tf.keras "
            f"after `import larq_filters`. Received: '{path}', saved by Keras {version}"
        )
    try:
        model = tf.keras.models.load_model(path, compile=False)
    except Exception as error:  # of many kinds, by file format and what is wrong
        reason = " ".join(str(error).split())
        if any(text in reason for text in _CUSTOM):
            raise ValueError(
                "the model has a custom object that is not known here: name the module that "
                f"registers it with --import. Received: '{path}', {_shortened(reason)}"
            ) from error
        raise ValueError(
            "this is not a whole model of Keras 2, as model.save writes it: .keras, .h5 or "
            f"SavedModel. Received: '{path}', {_shortened(reason)}"
        ) from error
    if not isinstance(model, tf.keras.Model):
        raise ValueError(
            "this SavedModel has no Keras layers: save it with model.save, not with "
            f"tf.saved_model.save. Received: '{path}'"
        )
    return model


def _keras_version(path: str) -> str:
    """The version of Keras that wrote a file, or nothing where that is not to be seen."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return str(json.loads(archive.read("metadata.json"))["keras_version"])
        if os.path.isfile(path):
            import h5py

            with h5py.File(path) as file:
                return str(file.attrs.get("keras_version", ""))
    except (KeyError, OSError, TypeError, ValueError, zipfile.BadZipFile):
        pass  # load_model says what is wrong
    return ""


def _samples(path: str) -> Any:
    try:
        loaded = np.load(path, allow_pickle=False)
        return loaded if isinstance(loaded, np.ndarray) else {k: loaded[k] for k in loaded.files}
    except (EOFError, KeyError, OSError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(
            "samples or labels are not a .npy or .npz file of numbers, as np.save writes them. "
            f"Received: '{path}', {_shortened(str(error))}"
        ) from error


def _shortened(reason: str) -> str:
    reason = " ".join(reason.split())
    return reason if len(reason) <= 200 else f"{reason[:200]}…"


def _say(error: Exception, code: int) -> int:
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    return code
