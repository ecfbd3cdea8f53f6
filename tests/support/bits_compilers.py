"""C compilers for the tests of generated programs, and programs that they made."""

import os
import shutil
import subprocess

import numpy as np
import pytest

STRICT = ("-std=c99", "-Wall", "-Wextra", "-Wconversion", "-pedantic", "-Werror")
SANITIZED = ("-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
# name: (command, what runs the program)
COMPILERS = {
    "gcc": (("gcc", "-O2"), ()),
    "gcc, sanitized": (("gcc", *SANITIZED), ()),
    "clang": (("clang", "-O2"), ()),
    "gcc -m32": (("i686-linux-gnu-gcc", "-m32", "-O2", "-static"), ()),
    "gcc for Arm": (("arm-linux-gnueabihf-gcc", "-O2", "-static"), ("qemu-arm",)),
}

# Reads samples from standard input until it ends, writes outputs to standard output.
MAIN = """
#include <stdio.h>
#include "network.h"

int main(void)
{
    static float x[NETWORK_INPUTS], y[NETWORK_OUTPUTS];
    while (fread(x, sizeof *x, NETWORK_INPUTS, stdin) == NETWORK_INPUTS) {
        const int32_t best = (int32_t)predict(x, y);
        if (fwrite(y, sizeof *y, NETWORK_OUTPUTS, stdout) != NETWORK_OUTPUTS ||
            fwrite(&best, sizeof best, 1, stdout) != 1) {
            return 1;
        }
    }
    return 0;
}
"""


def need(*programs):
    """Skips a test where a program is not installed; under LARQ_FILTERS_NEED_COMPILERS it fails."""
    missing = [program for program in programs if shutil.which(program) is None]
    if not missing:
        return
    sentence = f"needs {' and '.join(missing)}: install the packages in .ci/packages.txt"
    if os.environ.get("LARQ_FILTERS_NEED_COMPILERS"):
        pytest.fail(sentence)
    pytest.skip(sentence)


def compile_program(packed, folder, name):
    """Writes a network as C, compiles it with one of the compilers; the command that runs it."""
    command, runner = COMPILERS[name]
    need(command[0], *runner)
    folder.mkdir(exist_ok=True)
    packed.to_c(folder / "network.c")
    (folder / "main.c").write_text(MAIN)
    program = folder / name.replace(" ", "_").replace(",", "")
    sources = [folder / "network.c", folder / "main.c"]
    done = subprocess.run(
        [*command, *STRICT, *map(str, sources), "-o", str(program)], capture_output=True, text=True
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    return [*runner, str(program)]


def run_program(command, inputs, outputs):
    """The outputs of samples, as (samples, numbers), and what `predict` returned."""
    data = b"".join(
        np.concatenate([x.ravel() for x in sample]).astype("<f4").tobytes()
        for sample in zip(*inputs, strict=True)
    )
    done = subprocess.run(command, input=data, capture_output=True, timeout=120)
    assert done.returncode == 0 and not done.stderr, done.stderr.decode()
    rows = np.frombuffer(done.stdout, "<f4").reshape(len(inputs[0]), outputs + 1)
    return rows[:, :-1], rows[:, -1].copy().view("<i4")
