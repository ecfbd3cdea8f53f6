"""The command line `larq-filters`, the same as `python -m larq_filters`.

This file is beside the package, because importing the package imports TensorFlow, which takes
seconds. `--help` and `--version` need no TensorFlow. Each command imports what it runs.
"""

import argparse
import contextlib
import importlib
import importlib.metadata
import os
import pathlib
import platform
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

DONE, REFUSED, USAGE, NOT_PACKED, MISMATCH = range(5)
TARGETS = ("arm", "xcore")  # of `larq_filters.export.convert`
FORMATS = ("tflite", "npz", "c")
_PACKAGES = (
    "tensorflow tf_keras keras larq larq-compute-engine ai-edge-litert keras-tuner numpy scipy "
    "matplotlib"
)
_SETTINGS = re.compile("CUDA_|KERAS_|OMP_|XLA_|TF_(CPP|CUDNN|DET|ENABLE|FORCE|GPU|NUM|USE|XLA)")

_HARMLESS = re.compile(
    rb"All log messages before absl::InitializeLog|Could not find cuda drivers|cpu_feature_guard|"
    rb"oneDNN custom operations|To enable the following instructions|Unable to register cu|"
    rb"failed call to cuInit.*UNKNOWN ERROR \(303\)"  # no driver
)

_EXIT_CODES = f"""exit codes:
  {DONE}  OUT is written
  {REFUSED}  the model, the samples or a folder cannot be used
  {USAGE}  wrong arguments
  {NOT_PACKED}  --strict: a layer that asks for 1-bit weights was not packed
  {MISMATCH}  --verify: the file computes something else than the model
With every other code than {DONE}, OUT stays as it was, and stderr gives the reason.
--format c writes a header beside OUT, with its name and the ending .h.
"""


def main(arguments: Sequence[str] | None = None, prog: str = "larq-filters") -> int:
    """Runs one of the commands; returns its exit code: 0 done, 1 refused, 2 wrong arguments."""
    parser = argparse.ArgumentParser(
        prog=prog, description="Binary neural networks without latent weights."
    )
    parser.add_argument("--version", action="version", version=f"larq-filters {version()}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_explain(commands)
    _add_export(commands)
    _add_env(commands)
    parsed = parser.parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):  # Greek letters on a terminal that has none
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    return parsed.run(parsed)


def version() -> str:
    """The package's `__version__`, read without importing it."""
    text = (pathlib.Path(__file__).parent / "larq_filters" / "__init__.py").read_text("utf-8")
    found = re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE)
    assert found is not None
    return found[1]


def _runs(name: str) -> Callable[[argparse.Namespace], int]:
    """The function `run` of a module of `larq_filters._commands`, imported when it is called."""

    def run(args: argparse.Namespace) -> int:
        with importing_quietly():
            module = importlib.import_module(f"larq_filters._commands.{name}")
        return module.run(args)

    return run


@contextlib.contextmanager
def importing_quietly() -> Iterator[None]:
    """Imports TensorFlow in its block without the lines that look like errors and are none.

    TensorFlow's libraries write them to stderr while they are loaded and look for devices, before
    any setting counts: that there is no GPU, and which instructions the processor has. All other
    lines are shown at the end of the block.
    """
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as written:
        os.dup2(written.fileno(), 2)
        try:
            yield
            importlib.import_module("larq_filters")  # before TensorFlow's Keras is touched
            # Which is when GPUs are looked for.
            importlib.import_module("tensorflow").config.list_physical_devices()
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
            written.seek(0)
            for line in written:
                if not _HARMLESS.search(line):
                    sys.stderr.write(line.decode(errors="replace"))


def _add_explain(commands: Any) -> None:
    parser = commands.add_parser(
        "explain",
        help="show the filter that a latent recipe is, and what each hyperparameter does",
        description="Explains SGD or Adam on latent weights as a filter over gradients.",
    )
    sgd = parser.add_argument_group("only of SGD").add_argument
    adam = parser.add_argument_group("only of Adam").add_argument
    add = parser.add_argument
    add("--optimizer", choices=["sgd", "adam"], default="sgd", help="default: sgd")
    add("--learning-rate", type=float, required=True, help="learning rate η")
    add("--weight-decay", type=float, default=0.0, help="weight decay λ (default 0)")
    sgd("--momentum", type=float, help="momentum β (default 0)")
    sgd("--nesterov", action="store_true", default=None, help="Nesterov momentum")
    sgd("--coupled", action="store_true", default=None, help="PyTorch's weight decay, not Keras'")
    sgd("--dampening", type=float, help="PyTorch's dampening (default 0)")
    adam("--beta-1", type=float, help="β₁, of the average of gradients (default 0.9)")
    adam("--beta-2", type=float, help="β₂, of the average of their squares (default 0.999)")
    adam("--epsilon", type=float, help="ε (default 1e-7)")
    adam(
        "--epsilon-hat",
        action="store_true",
        default=None,
        help="ε is added before the bias correction, as in Keras; without it, as in PyTorch",
    )
    add("--clip", type=float, help="bound of the latent weights; larq's weight_clip has 1")
    add("--epochs", type=float, help="length of the training; needs --steps-per-epoch")
    add("--steps-per-epoch", type=float, help="prints times in epochs, too")
    add("--decay", choices=["linear", "cosine"], help="decay of η to 0 over --epochs")
    add("--plot", type=pathlib.Path, metavar="PICTURE", help="draw the filter: .png, .pdf, .svg")
    parser.set_defaults(run=_runs("explain"))


def _add_export(commands: Any) -> None:
    parser = commands.add_parser(
        "export",
        help="pack a saved larq model into a .tflite file, a .npz file or a C program",
        description="Converts a saved larq model. Packs binary layers to 1 bit per weight, and "
        "prints the result for each layer. Larq Compute Engine runs tflite; npz holds the bits for "
        "NumPy; c is a C99 program without libraries.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("model", metavar="MODEL", help="a .keras or .h5 file, or a SavedModel")
    add("out", metavar="OUT", help="the file to write")
    add("--format", choices=FORMATS, help="default: OUT's ending, or tflite if it is another")
    add("--strict", action="store_true", help="fail if a layer that asks for 1 bit is not packed")
    add(
        "--verify",
        metavar="SAMPLES",
        help="compare the file with the model on the samples in a .npy file, or in a .npz file "
        "with an array for each input by name",
    )
    add(
        "--tolerance",
        type=float,
        help="largest difference that --verify accepts, as a share of the largest output; "
        "default: 0.001, with 8 bits 0.1",
    )
    add(
        "--allowed",
        type=float,
        help="share of samples that may differ by more, because rounding may change a sign; "
        "default: 0",
    )
    add("--report", metavar="FILE", help="write the report as JSON, too")
    add(
        "--target",
        choices=TARGETS,
        default="arm",
        help="processor of the .tflite file; default: arm",
    )
    add(
        "--no-pack-dense",
        dest="pack_dense",
        action="store_false",
        help="for tflite: leave QuantDense layers in floats",
    )
    add(
        "--int8",
        metavar="SAMPLES",
        help="for npz and c: store real layers in 8 bits, with scales from such samples as for "
        "--verify",
    )
    add(
        "--labels",
        metavar="FILE",
        help="right classes of the samples of --int8, in a .npy file, for the report",
    )
    add(
        "--import",
        dest="imports",
        metavar="MODULE",
        action="append",
        default=[],
        help="a Python module that registers custom layers, from the current folder or installed; "
        "may be given again",
    )
    parser.set_defaults(run=_runs("export"))


def _add_env(commands: Any) -> None:
    parser = commands.add_parser(
        "env",
        help="print versions, machine and devices, for an issue report",
        description="Prints what an issue report needs: versions, machine, settings, devices, and "
        "whether larq_filters can be imported.",
    )
    parser.set_defaults(run=_env)


def _env(args: argparse.Namespace) -> int:
    """Prints a table of two columns. Works where larq_filters cannot be imported."""
    _print("larq_filters", version())
    _print("Python", f"{platform.python_version()} ({platform.python_implementation()})")
    _print("system", platform.platform())
    _print("processor", f"{_processor()}, {os.cpu_count()} cores")
    for name in _PACKAGES.split():
        _print(name, _installed(name))
    for name, value in sorted(os.environ.items()):
        if _SETTINGS.match(name):
            _print(name, value)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        with importing_quietly():
            importlib.import_module("larq_filters")
        tf = importlib.import_module("tensorflow")
        _print("import larq_filters", f"works, tf.keras is {tf.keras.Model.__module__}")
        for device in tf.config.list_physical_devices():
            _print("device", device.name)
    except Exception as error:  # whatever it is, it belongs in the report
        _print("import larq_filters", f"{type(error).__name__}: {' '.join(str(error).split())}")
        return REFUSED
    return DONE


def _print(name: str, value: str) -> None:
    print(f"{name:<21} {value}".rstrip(), flush=True)


def _installed(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    """The model and its widest vectors, which decide how TensorFlow rounds."""
    info = pathlib.Path("/proc/cpuinfo")
    text = info.read_text("utf-8") if info.exists() else ""
    model = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    flags = [
        name for name in ("avx512f", "avx2", "avx", "asimd") if re.search(rf"\b{name}\b", text)
    ]
    return ", ".join([model[1] if model else platform.machine(), *flags[:1]])


if __name__ == "__main__":
    sys.exit(main())
