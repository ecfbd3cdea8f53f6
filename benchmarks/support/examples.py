"""The examples that benchmarks train as, and their parts."""

import cifar10 as cifar10
import quickstart as quickstart
import tune_cifar10 as tune_cifar10
from common import surviving as surviving
from common import training as training
