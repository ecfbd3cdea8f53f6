"""Runs the quick tests under the arithmetic of other processors: `make test-processors`.

    python tests/support/processors.py [SETTING ...]

Each setting makes oneDNN, XLA or TensorFlow use other instructions, or other programs, so that sums
are added in another order. Prints a line for each: how many tests passed, how many failed, minutes.
"""

import os
import re
import subprocess
import sys
import time

SETTINGS = (
    "",
    "ONEDNN_MAX_CPU_ISA=SSE41",
    "ONEDNN_MAX_CPU_ISA=AVX2",
    "XLA_FLAGS=--xla_cpu_max_isa=SSE4_2",
    "XLA_FLAGS=--xla_cpu_max_isa=AVX2",
    "TF_ENABLE_ONEDNN_OPTS=0",
)
# Tests that compute nothing with TensorFlow, or in processes of programs only.
LEFT_OUT = (
    "test_house test_keras test_commands test_commands_explain test_benchmarks test_plots"
).split()


def run(setting):
    environment = dict(part.split("=", 1) for part in [setting] if part)
    ignored = [f"--ignore=tests/{name}.py" for name in LEFT_OUT]
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-m", "not slow", *ignored],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    minutes = (time.monotonic() - start) / 60
    counts = {kind: number for number, kind in re.findall(r"(\d+) (passed|failed)", done.stdout)}
    passed, failed = (counts.get(kind, "0") for kind in ("passed", "failed"))
    print(f"{setting or 'as it is':38}{passed:>8}{failed:>8}{minutes:>9.1f}", flush=True)
    if done.returncode:
        print(done.stdout[-20_000:])
    return done.returncode


def main():
    print(f"{'setting':38}{'passed':>8}{'failed':>8}{'minutes':>9}", flush=True)
    sys.exit(max([run(setting) for setting in sys.argv[1:] or SETTINGS]))


if __name__ == "__main__":
    main()
