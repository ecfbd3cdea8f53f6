"""The examples that benchmarks train as, and their parts."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "examples"))

import cifar10 as cifar10
import tune_cifar10 as tune_cifar10
from common import surviving as surviving
from common import training as training
