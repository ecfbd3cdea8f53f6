"""Writes the README's table of benchmarks from the JSON in results/.

python benchmarks/report.py
"""

import json
import pathlib
from typing import Any

RESULTS = pathlib.Path(__file__).parent / "results"
README = RESULTS.parent.parent / "README.md"
BEGIN, END = "<!-- written by benchmarks/report.py -->", "<!-- end -->"
ROWS = {  # in optimizer_step.json: what to call it, its name in memory.json
    "CascadedEMA": ("`FilteredFlip`, `CascadedEMA`", "CascadedEMA"),
    "EMA": ("`FilteredFlip`, `EMA`", "EMA"),
    "CascadedEMA bfloat16": ('`CascadedEMA`, `state_dtype="bfloat16"`', "CascadedEMA bfloat16"),
    "larq Bop": ("larq's `Bop`", "larq Bop"),
    "Adam": ("Keras' Adam, latent weights", "latent, Adam"),
    "SGD, momentum": ("Keras' SGD with momentum, latent weights", "latent, SGD, momentum"),
}


def read(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / f"{name}.json").read_text("utf-8"))


def table() -> str:
    steps, memory, training = map(read, ("optimizer_step", "memory", "training_throughput"))
    parts, held = steps["largest_in_parts"], memory["bytes_per_binary_weight"]
    one = steps["sizes"][str(parts["weights"])]
    lines = [
        f"| {parts['weights'] / 1e6:.1f} M binary weights | ms a step in {parts['variables']} "
        "variables (quartiles) | of a copy's bandwidth | in one variable | bytes per weight |",
        "|---|---|---|---|---|",
    ]
    for name, (label, in_memory) in ROWS.items():
        row = parts["rows"][name]
        low, high = (1e3 * second for second in row["step_seconds"]["quartiles"])
        lines.append(
            f"| {label} | {1e3 * row['step_seconds']['median']:.1f} ({low:.1f} to {high:.1f}) "
            f"| {row['of_copy']['median']:.2f} | {1e3 * one[name]['step_seconds']['median']:.1f} "
            f"| {held[in_memory]['held']:.0f} |"
        )
    rates = training["images_per_second"]
    ratio = training["filtered_over_latent_adam"]
    low, high = ratio["quartiles"]
    machine = steps["machine"]
    lines += [
        "",
        f"Training BiRealNet-20 on images of CIFAR-10's size, batch {training['batch_size']}: "
        f"{rates['filtered']['median']:.0f} images a second, {ratio['median']:.2f} times "
        f"(quartiles {low:.2f} to {high:.2f}) those of latent Adam; the optimizer takes "
        f"{training['optimizer_share']['median']:.1%} of a step. On {machine['processor']}, "
        f"{machine['cores']} cores, TensorFlow {machine['tensorflow']}.",
    ]
    return "\n".join(lines)


def main() -> None:
    text = README.read_text("utf-8")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    README.write_text(f"{before}{BEGIN}\n{table()}\n{END}{after}", "utf-8")


if __name__ == "__main__":
    main()
