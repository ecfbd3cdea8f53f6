"""How long a file takes, beside the same network in floats."""

import json
import types

import larq_filters as lqf

import ai_edge_litert.interpreter
import larq as lq
import larq_compute_engine as lce
import numpy as np
import pytest
from export_helpers import BINARY, conv, layers, operators, stack
from helpers import assert_one_sentence

Q = lq.layers
convert = lqf.export.convert
timing = lqf.export._benchmark


def test_benchmark():
    exported = convert(stack(conv(), conv(8), shape=(6, 6, 32)))
    results = {i: lqf.export.benchmark(exported, runs=5, indirect=i) for i in (None, True, False)}
    names = {i: [latency.name for latency in r.latencies] for i, r in results.items()}
    assert names[None] == ["default", "indirect", "float, LiteRT"]
    assert names[True] == ["indirect", "float, LiteRT"]
    assert names[False] == ["default", "float, LiteRT"]
    for result in results.values():
        assert all(0 < t.lower <= t.median <= t.upper for t in result.latencies)
        assert "64-bit Arm" in str(result) and "x86" in str(result)
        assert all(len(line) <= 80 for line in str(result).splitlines())
        assert json.loads(json.dumps(result.to_dict()))["runs"] == 5
    for bad in ({"runs": 0}, {"threads": 0}, {"runs": 2.5}):
        assert_one_sentence(
            lambda b=bad: lqf.export.benchmark(exported, **b), ValueError, "whole number"
        )


def test_benchmarks_float_file_computes_what_the_model_computes(monkeypatch):
    """Also after rewrites: the float file is of the network as it was."""
    x = np.random.default_rng(0).normal(size=(1, 8, 8, 32)).astype("float32")
    model = stack(conv(), layers.MaxPooling2D(), layers.BatchNormalization(), layers.Flatten())
    model = stack(*model.layers, Q.QuantDense(5, **BINARY))
    norm = model.layers[2]
    norm.gamma.assign(np.abs(norm.gamma.numpy()))
    files = []
    litert = lambda file, *_: files.append(file) or (lambda: None)  # noqa: E731
    monkeypatch.setattr(timing, "litert", litert)
    exported = convert(model)
    lqf.export.benchmark(exported, runs=1)
    runner = ai_edge_litert.interpreter.Interpreter(model_content=files[0]).get_signature_runner()
    (output,) = runner(**{model.input_names[0]: x}).values()
    np.testing.assert_allclose(output, model.predict(x, verbose=0), atol=1e-3)
    assert set(operators(files[0])).isdisjoint({"LceBconv2d", "LceQuantize"})


def test_a_model_that_larq_compute_engine_would_get_wrong_is_timed_in_floats():
    """A ternary input is a sum of signs: in TensorFlow Lite nothing is wrong with it."""
    ternary = {"input_quantizer": "ste_tern", "kernel_quantizer": "ste_sign"}
    model = stack(Q.QuantConv2D(8, 3, **ternary), shape=(4, 4, 8))
    result = lqf.export.benchmark(convert(model), runs=1)
    assert [latency.name for latency in result.latencies][-1] == "float, LiteRT"


def test_times_are_those_of_the_clock(monkeypatch):
    """In milliseconds, of candidates in turns, without the runs that warm up."""
    now, ran = [100.0], []
    monkeypatch.setattr(timing, "time", types.SimpleNamespace(perf_counter=lambda: now[0]))

    def candidate(name, milliseconds):
        left = iter(milliseconds)

        def run():
            ran.append(name)
            now[0] += next(left) / 1e3

        return run

    times = {"a": [90, 90, 5, 1, 4, 2, 3], "b": [0, 0, 10, 20, 20, 20, 70]}
    result = timing.measure({n: candidate(n, t) for n, t in times.items()}, runs=5, threads=3)
    assert ran == ["a", "b"] * 7 and (result.runs, result.threads) == (5, 3)
    found = {t.name: (t.lower, t.median, t.upper) for t in result.latencies}
    assert found == {"a": pytest.approx((2, 3, 4)), "b": pytest.approx((20, 20, 20))}


@pytest.mark.parametrize("threads", [1, 2])
def test_every_interpreter_gets_the_threads(threads, monkeypatch):
    given = []

    def recording(interpreter):
        def make(*args, num_threads, **options):
            given.append(num_threads)
            return interpreter(*args, num_threads=num_threads, **options)

        return make

    exported = convert(stack(conv(4), shape=(4, 4, 8)))
    for module in (lce.testing, ai_edge_litert.interpreter):
        monkeypatch.setattr(module, "Interpreter", recording(module.Interpreter))
    lqf.export.benchmark(exported, runs=1, **({} if threads == 1 else {"threads": threads}))
    assert given == [threads] * 3


@pytest.mark.parametrize("indirect", ["no", 1])
def test_what_is_no_bool_is_refused(indirect):
    exported = convert(stack(conv(4), shape=(4, 4, 8)))
    call = lambda: lqf.export.benchmark(exported, runs=1, indirect=indirect)  # noqa: E731
    assert_one_sentence(call, TypeError, f"indirect={indirect!r}")


@pytest.mark.parametrize("indirect, engine", [(True, "indirect"), (False, "default")])
def test_an_engine_that_cannot_run_the_file_is_refused(indirect, engine):
    exported = convert(stack(conv(8, pad_values=0.0), shape=(2, 2, 32)))
    assert exported.report.engines == ("reference",)
    call = lambda: lqf.export.benchmark(exported, runs=1, indirect=indirect)  # noqa: E731
    assert_one_sentence(call, ValueError, "with these engines only: ['reference']")
    with pytest.raises(ValueError, match=f"Received: engine='{engine}'"):
        call()
    names = [t.name for t in lqf.export.benchmark(exported, runs=1).latencies]
    assert names == ["reference", "float, LiteRT"]
