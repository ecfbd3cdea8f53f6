"""Speed, memory and latency."""

from typing import Any

from reports._text import table

from support import results

ROWS = {  # in optimizer_step.json: what to call it, its name in memory.json
    "CascadedEMA": ("`FilteredFlip`, `CascadedEMA`", "CascadedEMA"),
    "EMA": ("`FilteredFlip`, `EMA`", "EMA"),
    "CascadedEMA bfloat16": ('`CascadedEMA`, `state_dtype="bfloat16"`', "CascadedEMA bfloat16"),
    "larq Bop": ("larq's `Bop`", "larq Bop"),
    "Adam": ("Keras' Adam, latent weights", "latent, Adam"),
    "SGD, momentum": ("Keras' SGD with momentum, latent weights", "latent, SGD, momentum"),
}


def speed() -> str:
    """A step of the optimizers, and of a training, with what they hold in memory."""
    steps, memory, training = map(results.read, ("optimizer_step", "memory", "training_throughput"))
    parts, held = steps["in_parts"], memory["bytes_per_binary_weight"]
    one = steps["sizes"][str(parts["weights"])]
    rows = []
    for name, (label, in_memory) in ROWS.items():
        row = parts["rows"][name]
        low, high = (1e3 * second for second in row["step_seconds"]["quartiles"])
        rows.append(
            [
                label,
                f"{1e3 * row['step_seconds']['median']:.1f} ({low:.1f} to {high:.1f})",
                f"{row['of_copy']['median']:.2f}",
                f"{1e3 * one[name]['step_seconds']['median']:.1f}",
                f"{held[in_memory]['held']:.0f}",
            ]
        )
    heads = [
        f"{parts['weights'] / 1e6:.1f} M binary weights",
        f"ms a step in {parts['variables']} variables (quartiles)",
        "of a copy's bandwidth",
        "in one variable",
        "bytes per weight",
    ]
    rates = training["images_per_second"]
    ratio = training["filtered_over_latent_adam"]
    low, high = ratio["quartiles"]
    machine = steps["machine"]
    lines = [
        table(heads, rows),
        "",
        f"Training BiRealNet-20 on images of CIFAR-10's size, batch {training['batch_size']}: "
        f"{rates['filtered']['median']:.0f} images a second, {ratio['median']:.2f} times "
        f"(quartiles {low:.2f} to {high:.2f}) those of latent Adam; the optimizer takes "
        f"{training['optimizer_share']['median']:.1%} of a step. On {machine['processor']}, "
        f"{machine['cores']} cores, TensorFlow {machine['tensorflow']}.",
        "",
        mixed_precision(training),
        "",
        epoch(),
    ]
    return "\n".join(lines)


def mixed_precision(training: dict[str, Any]) -> str:
    """What a processor with instructions for bfloat16 gains by them."""
    faster = training["bfloat16_over_float32"]
    low, high = faster["quartiles"]
    return (
        f"Under Keras' policy mixed_bfloat16 it trains {faster['median']:.2f} times "
        f"(quartiles {low:.2f} to {high:.2f}) as many images a second. This processor has "
        f"{'' if training['bfloat16_instructions'] else 'no '}instructions for bfloat16 "
        "(AVX512-BF16)."
    )


def epoch() -> str:
    """Where the time of an epoch goes, in a sentence."""
    spent = results.read("epoch_profile")["seconds_of_an_epoch"]
    total = sum(seconds for seconds in spent.values() if seconds > 0)
    parts = sorted(spent.items(), key=lambda item: -item[1])
    shares = ", ".join(
        f"{name} {seconds / total:.1%}" if seconds > 0 else f"{name} too little to measure"
        for name, seconds in parts  # a difference of two medians may be negative
    )
    return f"On another day, an epoch of `examples/cifar10.py` took {total:.0f} s: {shares}."


def latency() -> str:
    """What exported files take on the machine of the benchmarks."""
    networks = results.read("export_latency")["networks"]
    rows = []
    for name, network in networks.items():
        times = {one["name"]: f"{one['median']:.2f}" for one in network["latencies"]}
        rows.append([name, f"{network['bytes'] / 1000:,.0f} kB", *times.values()])
    heads = [one["name"] for one in next(iter(networks.values()))["latencies"]]
    return table(["network", "file", *(f"{head}, ms" for head in heads)], rows)
