"""What every benchmark records beside its figures."""

import json
import os
import pathlib
import platform

import larq_filters as lqf
from support.results import RESULTS

import larq as lq
import numpy as np
import tensorflow as tf
from common import files


def describe() -> dict:
    """The machine and the versions that figures were measured on."""
    model = platform.processor() or platform.machine()
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [x for x in cpuinfo.read_text().splitlines() if x.startswith("model name")]
        model = names[0].split(":")[1].strip() if names else model
    return {
        "processor": model,
        "cores": len(os.sched_getaffinity(0)),
        "gpus": [device.name for device in tf.config.list_physical_devices("GPU")],
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "larq": lq.__version__,
        "larq_filters": lqf.__version__,
    }


def summary(values: list[float]) -> dict:
    """Median and quartiles."""
    low, median, high = np.percentile(values, [25, 50, 75])
    return {"median": float(median), "quartiles": [float(low), float(high)], "runs": len(values)}


def write(name: str, record: dict) -> pathlib.Path:
    """Writes results/NAME.json, with the machine."""
    path = RESULTS / f"{name}.json"
    text = json.dumps({"machine": describe(), **record}, indent=1) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write(path, lambda beside: beside.write_text(text, "utf-8"))
    return path
