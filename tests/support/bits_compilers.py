"""C compilers for the tests of generated programs, and programs that they made."""

import os
import shutil
import subprocess

import numpy as np
import pytest

STRICT = ("-std=c99", "-Wall", "-Wextra", "-Wconversion", "-pedantic", "-Werror")
SANITIZED = ("-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
TRAPPED = ("-O1", "-fsanitize=undefined", "-fsanitize-trap=all")  # needs no library of clang's
# name: (command, what runs the program)
COMPILERS = {
    "gcc": (("gcc", "-O2"), ()),
    "gcc, sanitized": (("gcc", *SANITIZED), ()),
    "clang": (("clang", "-O2"), ()),
    "clang, sanitized": (("clang", *TRAPPED), ()),
    "gcc -m32": (("i686-linux-gnu-gcc", "-m32", "-O2", "-static"), ()),
    "gcc for Arm": (("arm-linux-gnueabihf-gcc", "-O2", "-static"), ("qemu-arm",)),
}

# Runs the network whose number it is given on samples from standard input until there are no more,
# and writes outputs and what `predict` returns to standard output.
MAIN = """
#include <stdio.h>
#include <stdlib.h>
{includes}

typedef int predict(const float *x, float *y);
static const struct {{
    predict *function;
    int inputs, outputs;
}} networks[] = {{
    {rows}
}};

int main(int count, char **arguments)
{{
    static float x[{inputs}], y[{outputs}];
    const int n = count > 1 ? atoi(arguments[1]) : 0;
    const size_t inputs = (size_t)networks[n].inputs, outputs = (size_t)networks[n].outputs;
    while (fread(x, sizeof *x, inputs, stdin) == inputs) {{
        const int32_t best = (int32_t)networks[n].function(x, y);
        if (fwrite(y, sizeof *y, outputs, stdout) != outputs ||
            fwrite(&best, sizeof best, 1, stdout) != 1) {{
            return 1;
        }}
    }}
    return 0;
}}
"""


def need(*programs):
    """Skips a test where a program is not installed; under LQF_CI=1 the test fails."""
    missing = [program for program in programs if shutil.which(program) is None]
    if not missing:
        return
    sentence = f"needs {' and '.join(missing)}: install the Debian packages in .ci/packages"
    if os.environ.get("LQF_CI") == "1":
        pytest.fail(sentence)
    pytest.skip(sentence)


def verify_in_c(packed, inputs, model, **options):
    """`packed.verify` with a C compiler, without which it would leave out C."""
    need("cc")
    proof = packed.verify(inputs, model, **options)
    assert proof.compiler
    return proof


def write_programs(networks, folder):
    """Writes networks as network_0.c, network_1.c, ..., and a program that runs any of them."""
    rows, sizes = [], []
    for i, (packed, inputs, outputs) in enumerate(networks):
        packed.to_c(folder / f"network_{i}.c", function=f"predict_{i}")
        rows.append(f"{{predict_{i}, NETWORK_{i}_INPUTS, NETWORK_{i}_OUTPUTS}},")
        sizes.append((inputs, outputs))
    main = MAIN.format(
        includes="\n".join(f'#include "network_{i}.h"' for i in range(len(rows))),
        rows="\n    ".join(rows),
        inputs=max(n for n, _ in sizes),
        outputs=max(n for _, n in sizes),
    )
    (folder / "main.c").write_text(main)


def compile_programs(folder, name):
    """Compiles what `write_programs` wrote with one of the compilers; the command that runs it."""
    command, runner = COMPILERS[name]
    need(command[0], *runner)
    program = folder / name.replace(" ", "_").replace(",", "")
    sources = [str(path) for path in sorted(folder.glob("*.c"))]
    done = subprocess.run(
        [*command, *STRICT, *sources, "-o", str(program)], capture_output=True, text=True
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    return [*runner, str(program)]


def run_program(command, number, inputs, outputs):
    """The outputs of samples, as (samples, numbers), and what the function returned."""
    data = b"".join(
        np.concatenate([x.ravel() for x in sample]).astype("<f4").tobytes()
        for sample in zip(*inputs, strict=True)
    )
    done = subprocess.run([*command, str(number)], input=data, capture_output=True, timeout=120)
    assert done.returncode == 0 and not done.stderr, done.stderr.decode()
    rows = np.frombuffer(done.stdout, "<f4").reshape(len(inputs[0]), outputs + 1)
    return rows[:, :-1], rows[:, -1].copy().view("<i4")
