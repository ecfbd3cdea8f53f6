"""The examples, as a person runs them, in processes of their own."""

import importlib
import json
import pathlib
import re
import shutil
import subprocess
import sys

import larq_filters  # before TensorFlow's Keras is touched: selects Keras 2

import numpy as np
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf
from datasets import write_imagenet

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"
SHALLOW = pathlib.Path(__file__).parent / "support" / "shallow.py"


def run(name, *arguments, timeout=300, shallow=False):
    """An example in a process of its own, with its own networks or with shallow ones."""
    command = [sys.executable, *[SHALLOW] * shallow, EXAMPLES / name, *arguments]
    return subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=timeout
    )


def example(name):
    """An example, imported."""
    folder = str(EXAMPLES)
    sys.path.insert(0, folder)
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(folder)


@pytest.fixture
def refused(monkeypatch, capsys):
    """Runs an example in this process; the line with which it refuses its arguments."""

    def refused(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        monkeypatch.syspath_prepend(str(EXAMPLES))
        with pytest.raises(SystemExit) as error:
            importlib.import_module(name).main()
        printed = capsys.readouterr().err
        return error.value.code if isinstance(error.value.code, str) else printed.splitlines()[-1]

    return refused


@pytest.mark.slow
def test_quickstart():
    """Of 10 seeds, 98.6 ± 0.5 % are right: 96 % are five deviations away, whatever rounds how."""
    result = run("quickstart.py", timeout=300)
    assert result.returncode == 0, result.stderr
    accuracy = float(re.search(r"test accuracy +([\d.]+)% of 599", result.stdout)[1])
    assert accuracy >= 96.0
    assert "with values [-1.0, 1.0]" in result.stdout
    assert result.stdout.count("flips per step") == 20
    assert all(len(line) <= 80 for line in result.stdout.splitlines())
    bars = re.split("[\r\n]", result.stderr)
    assert not [line for line in bars if line.strip() and not line.startswith("epoch")]


QUIET = """
import os, sys, types
class Finder:
    def find_spec(name, path=None, target=None):
        if name == "larq_filters":
            os.write(2, b"I0000 cudart_stub.cc:31] Could not find cuda drivers on your machine\\n")
            os.write(2, b"E0000 a real error\\n")
            WHAT
sys.meta_path.insert(0, Finder)
sys.modules["tensorflow"] = types.ModuleType("tensorflow")
from common import quiet
"""


@pytest.mark.parametrize("what", ["raise ImportError('no Keras 2')", "sys.exit('gone')"])
def test_quickstart_hides_no_error_of_the_import(what):
    done = subprocess.run(
        [sys.executable, "-c", QUIET.replace("WHAT", what)],
        capture_output=True,
        text=True,
        cwd=EXAMPLES,
        timeout=60,
    )
    assert done.returncode == 1 and "cuda drivers" not in done.stderr
    assert "E0000 a real error" in done.stderr and what.split("'")[1] in done.stderr


@pytest.mark.slow
def test_quickstart_is_seeded():
    one, two = (run("quickstart.py", "--epochs", 2).stdout.splitlines()[:-1] for _ in range(2))
    assert one == two and len(one) > 2


@pytest.mark.slow
def test_export_edge(tmp_path):
    """`make quickstart`: trained, packed, verified on every image held out.

    The file adds up in another order than Keras. Of the first layer's 1.2 million signs in these
    images, an estimated 0.3 are of sums within 3e-7 of 0, which may turn; 1 % is six images.
    """
    result = run("export_edge.py", "--output", tmp_path / "new" / "folder", timeout=300)
    assert result.returncode == 0, result.stderr
    lines = [line for line in result.stdout.splitlines() if str(tmp_path) not in line]
    assert all(len(line) <= 80 for line in lines)
    assert "packed              2 of 2 layers" in result.stdout
    assert "on 599 images held out" in result.stdout
    same, beyond = map(float, re.search(r"dense .* ([\d.]+)% +([\d.]+)%", result.stdout).groups())
    assert same >= 99.0 and beyond <= 1.0
    assert float(re.search(r"test accuracy +([\d.]+)% of 599", result.stdout)[1]) >= 96.0
    data = (tmp_path / "new" / "folder" / "digits.tflite").read_bytes()
    header = (tmp_path / "new" / "folder" / "digits.h").read_text()
    numbers = re.search(r"digits_tflite\[(\d+)\] = {(.*?)}", header, re.DOTALL)
    assert bytes(int(n, 16) for n in numbers[2].split(",")) == data
    assert int(numbers[1]) == len(data) < 16_000
    assert "signs               1 of 2 by integer thresholds" in result.stdout
    assert "; 0 of the others exceed the tolerance" in result.stdout
    assert re.search(
        r"with 8-bit layers   9,\d+ bytes of constants, the same class for 9", result.stdout
    )
    written = {path.name for path in (tmp_path / "new" / "folder").iterdir()}
    assert written == {"digits.tflite", "digits.h"} | {
        f"digits_bits.{e}" for e in ("c", "h", "npz")
    }
    packed = larq_filters.export.load_bits(tmp_path / "new" / "folder" / "digits_bits.npz")
    assert packed.report.constant_bytes == 12_080
    if shutil.which("cc"):
        flash, ram = (
            int(re.search(rf"{n} +([\d,]+) bytes", result.stdout)[1].replace(",", ""))
            for n in ("flash", "RAM")
        )
        assert 12_080 < flash < 20_000 and ram == packed.report.buffer_bytes == 5_120


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["filtered", "adam", "sgd", "bop"])
def test_cifar10(optimizer, small_cifar10, tmp_path):
    output = tmp_path / "results" / "history.json"
    result = run(
        "cifar10.py",
        *("--epochs", 1, "--batch-size", 64, "--optimizer", optimizer),
        *("--recalibrate", 2, "--data-dir", small_cifar10, "--output", output),
        shallow=optimizer != "filtered",
    )
    assert result.returncode == 0, result.stderr
    assert re.search(r"test accuracy \d+\.\d+%", result.stdout)
    record = json.loads(output.read_text())
    assert record["arguments"]["optimizer"] == optimizer
    assert len(record["history"]["val_accuracy"]) == 1
    assert ("flip_ratio" in record["history"]) == (optimizer == "filtered")
    assert [path.name for path in output.parent.iterdir()] == ["history.json"]


@pytest.mark.slow
def test_cifar10_says_how_to_get_the_data(tmp_path):
    result = run("cifar10.py", "--data-dir", tmp_path)
    assert result.returncode == 1
    assert "CIFAR-10 is not prepared in" in result.stderr
    assert f"tfds build cifar10 --data_dir {tmp_path}" in result.stderr
    assert "Traceback" not in result.stderr


def small(data, output, *arguments):
    """A short run of cifar10.py with a shallow network; its history."""
    result = run(
        *("cifar10.py", "--width", 4, "--batch-size", 64, "--epochs", 1, "--data-dir", data),
        *("--output", output, *arguments),
        shallow=True,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(output.read_text())


@pytest.mark.slow
def test_cifar10_with_all_options(small_cifar10, tmp_path):
    """A teacher, its precomputed logits, two steps, and what else can be asked for."""
    teacher, logits = tmp_path / "teacher.keras", tmp_path / "logits.npy"
    real = ("--real", "--optimizer", "sgd", "--save", teacher, "--label-smoothing", 0.1)
    record = small(small_cifar10, tmp_path / "1.json", *real)
    assert "flip_ratio" not in record["history"] and 0.5 < record["history"]["loss"][0] < 10
    record = small(
        *(small_cifar10, tmp_path / "2.json", "--teacher", teacher, "--two-step", 1),
        *("--tensorboard", tmp_path / "board", "--backup", tmp_path / "backup"),
        *("--mixed-precision", "mixed_bfloat16"),
    )
    assert len(record["first_step"]["loss"]) == len(record["history"]["loss"]) == 1
    # Half of all weights in the first of 8 steps would be 0.06.
    assert "flip_ratio" not in record["first_step"] and record["history"]["flip_ratio"][0] < 0.01
    assert record["switch"]["before"] == record["first_step"]["val_accuracy"][-1]
    assert 0.0 <= record["switch"]["after"] <= 1.0
    assert list((tmp_path / "board" / "training" / "train").iterdir())
    assert (tmp_path / "backup" / "first_step.h5").exists()
    computed = small(
        small_cifar10, tmp_path / "3.json", "--teacher", teacher, "--teacher-logits", logits
    )
    read = small(small_cifar10, tmp_path / "4.json", "--teacher-logits", logits)
    assert np.load(logits).shape == (512, 10)
    assert computed["history"]["loss"] == read["history"]["loss"]


@pytest.mark.slow
def test_a_searched_recipe_keeps_the_signs_of_a_first_step(small_cifar10, tmp_path):
    hp = larq_filters.tuning.HyperParameters()
    larq_filters.tuning.filtered_flip(hp, steps=100)
    trial = tmp_path / "trial.json"
    trial.write_text(json.dumps({"hyperparameters": hp.get_config()}))
    two = ("--two-step", 1, "--epochs", 3)
    record = small(small_cifar10, tmp_path / "1.json", "--trial", trial, *two)
    assert record["history"]["flip_ratio"][0] < 0.01  # half in the first of 8 steps: 0.06


@pytest.mark.slow
def test_cifar10_mirrored(small_cifar10, tmp_path):
    """That two devices compute what one does is tested with the optimizer, where it is exact."""
    record = small(
        small_cifar10, tmp_path / "1.json", "--strategy", "mirrored", "--logical-devices", 2
    )
    alone = small(small_cifar10, tmp_path / "2.json")
    assert record["arguments"]["strategy"] == "mirrored" and record["history"].keys() == (
        alone["history"].keys()
    )
    for history in (record["history"], alone["history"]):
        # Untrained, the loss is about ln 10; of steps without flips, the ratio would be 0.
        assert 0.5 < history["loss"][0] / np.log(10) < 2.0 and 0 < history["flip_ratio"][0] < 0.5


@pytest.mark.parametrize(
    "arguments, text",
    [
        (["--real"], "--real has no binary weights"),
        (["--real", "--optimizer", "sgd", "--two-step", 1], "no --trial or --two-step"),
        (["--teacher", "MobileNetV9"], "--teacher: MobileNetV9 is neither a saved model nor"),
        (["--teacher-logits", "none.npy"], "there is no none.npy; give a --teacher, too"),
        (["--strategy", "multi_worker"], "TF_CONFIG"),
        (["--trial", "none.json"], "--trial: none.json is not the trial.json of a search"),
        (["--epochs", 0], "--epochs is a whole number from 1 on. Received: --epochs 0"),
        (["--two-step", -1], "--two-step is a whole number from 0 on"),
        (["--seed", -1], "--seed is a whole number from 0 to 4294967295"),
        (["--learning-rate", 0], "--learning-rate is above 0 and finite"),
        (["--label-smoothing", 1], "--label-smoothing is from 0 to below 1"),
        (["--label-smoothing", 0.1, "--teacher", "t.keras"], "no effect on what a teacher says"),
        (["--save", "network"], "--save ends in .keras or .h5"),
        (["--alpha", 0.1, "--optimizer", "adam"], "--alpha has no effect with --optimizer adam"),
        (["--gamma", 0.5, "--trial", "t.json"], "--gamma has no effect: --trial has"),
        # At their defaults, too.
        (["--alpha", 0.01, "--optimizer", "sgd"], "--alpha has no effect with --optimizer sgd"),
        (["--optimizer", "filtered", "--trial", "t.json"], "--optimizer has no effect: --trial"),
        (["--backup-steps", 500], "--backup-steps has no effect without --backup"),
        (["--learning-rate", 1, "--trial", "t.json"], "--learning-rate has no effect"),
        (["--teacher-weights", "w.h5"], "--teacher-weights has no effect without a --teacher"),
        (["--teacher", __file__, "--teacher-weights", "w.h5"], "without a --teacher by name"),
        (["--backup-steps", 3], "--backup-steps has no effect without --backup"),
        (["--alpha", -1], "--alpha must be"),
        (["--gamma", 7], "--gamma must be"),
        (["--learning-rate", "nan"], "--learning-rate is above 0 and finite"),
        (["--width", 0], "--width is a whole number from 1 on"),
        (["--trial", "none.json", "--two-step", 1, "--learning-rate", 1], "--trial: none.json"),
        (["--logical-devices", 2], "--logical-devices has no effect without --strategy"),
        (["--optimizer", "bop", "--two-step", 1], "nor make bits of real weights"),
        (["--batch-size", 1000], "fewer training images than 1000"),
        (["--optimizer", "bop", "--strategy", "mirrored"], "lqf.recipes.bop can"),
    ],
)
def test_cifar10_refuses(arguments, text, small_cifar10, tmp_path, refused):
    output = tmp_path / "history.json"
    assert text in refused("cifar10", "--data-dir", small_cifar10, "--output", output, *arguments)
    assert not output.exists()


@pytest.mark.slow
@pytest.mark.parametrize("space", ["filtered", "latent"])
def test_tune_cifar10(space, small_cifar10, tmp_path):
    """A search, its report, and the command that it ends with."""

    def tune(*arguments):
        result = run(
            *("tune_cifar10.py", "--data-dir", small_cifar10, "--space", space, "--trials", 2),
            *("--epochs", 2, "--width", 2, "--subset", 320, "--held-out", 128, "--batch-size", 32),
            *("--folder", tmp_path / "search", *arguments),
            shallow=True,
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    output = tune()
    settings = "epochs2_width2_subset320_held-out128_batch-size32_seed1"
    folder = tmp_path / "search" / f"{space}_random_{settings}"
    scores = [
        json.loads((folder / f"trial_{i}" / "trial.json").read_text())["score"] for i in (0, 1)
    ]
    accuracies = [
        float(value) for value in re.findall(r"val_loss: \S+ - val_accuracy: (\S+)", output)
    ]
    assert accuracies[1:4:2] == pytest.approx(scores, abs=1e-4)  # the last epochs'
    lines = output.splitlines()
    heads = [line.split()[:2] for line in lines]
    start = heads.index(["trial", "accuracy"])
    rows = [line.split()[:2] for line in lines[start + 1 : start + 3]]
    best = int(np.argmax(scores))
    assert rows == [[str(i), f"{scores[i]:.2%}"] for i in (best, 1 - best)]
    assert max(map(len, lines[start - 2 : start + 3])) <= 80
    assert (folder / "search.png").stat().st_size > 10_000
    if space == "filtered":  # a finished search is only reported
        again = tune()
        assert "Epoch" not in again and again.splitlines()[-1] == lines[-1]

    script, *command = lines[-1].split()[1:]
    assert script == "examples/cifar10.py" and f"trial_{best}" in lines[-1]
    assert "--batch-size 32" in lines[-1]
    small = ("--epochs", 1, "--width", 2, "--batch-size", 16, "--data-dir", small_cifar10)
    output = ("--output", tmp_path / "full.json")
    result = run("cifar10.py", *command, *small, *output, shallow=True)
    assert result.returncode == 0, result.stderr
    history = json.loads((tmp_path / "full.json").read_text())["history"]
    assert ("flip_ratio" in history) == (space == "filtered")


@pytest.mark.parametrize(
    "arguments, text",
    [
        (["--trials", 0], "--trials is a whole number from 1 on"),
        (["--subset", 100], "20 steps are the least"),
        (["--subset", 600, "--batch-size", 16], "are more than the 512 training images"),
    ],
)
def test_tune_cifar10_refuses(arguments, text, small_cifar10, tmp_path, refused):
    folder = ("--folder", tmp_path / "search")
    assert text in refused("tune_cifar10", "--data-dir", small_cifar10, *folder, *arguments)
    assert not (tmp_path / "search").exists()


@pytest.fixture(scope="module")
def small_imagenet(tmp_path_factory):
    folder = tmp_path_factory.mktemp("imagenet")
    write_imagenet(folder)
    return folder


@pytest.mark.slow
def test_imagenet(small_imagenet, tmp_path):
    """Trains a ReActNet, is stopped, goes on, learns from itself and from precomputed logits."""

    def train(*arguments):
        result = run(
            *("imagenet.py", "--width", 4, "--size", 64, "--batch-size", 16),
            *("--data-dir", small_imagenet, "--output", tmp_path / "history.json", *arguments),
            shallow=True,
        )
        assert result.returncode == 0, result.stderr
        return result.stdout, json.loads((tmp_path / "history.json").read_text())["history"]

    network, logits = tmp_path / "network.keras", tmp_path / "logits.npy"
    steps = ("--backup", tmp_path / "backup", "--backup-steps", 4)
    train("--epochs", 1, *steps)
    (tmp_path / "backup" / "arguments.json").unlink()  # which say that there is one epoch
    output, history = train("--epochs", 2, *steps, "--save", network)
    assert "going on after step 4 of 12" in output
    assert len(history["val_loss"]) == 2
    model = tf.keras.models.load_model(network)
    assert model.output_shape == (None, 1000)
    kernels = [w for w in model.get_weights() if w.ndim == 4 and w.shape[2] > 3]
    assert len(kernels) == 3 + 3 + 2  # two of the three blocks double the channels
    assert all(set(np.unique(kernel)) == {-1.0, 1.0} for kernel in kernels)
    packed = tmp_path / "network.tflite"
    command = (sys.executable, "-m", "larq_filters", "export", network, packed, "--strict")
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert "packed              8 of 8 layers" in result.stdout and packed.exists()
    output, history = train("--epochs", 1, "--teacher", network, "--teacher-logits", logits)
    assert np.load(logits).shape == (96, 1000) and np.isfinite(history["loss"]).all()


def arguments(name, *given):
    module, before = example(name), sys.argv
    sys.argv = [name, *map(str, given)]
    try:
        return module, module.parse_arguments()
    finally:
        sys.argv = before


@pytest.mark.parametrize("name", ["cifar10", "imagenet"])
def test_precomputed_logits_belong_to_their_images(name, small_cifar10, small_imagenet, tmp_path):
    size = [] if name == "cifar10" else ["--size", 32, "--shuffle-buffer", 20]
    folder = small_cifar10 if name == "cifar10" else small_imagenet
    module, args = arguments(name, "--data-dir", folder, "--batch-size", 16, *size)
    labels = np.array([int(y) for _, y in module.load(args).plain])
    args.teacher_logits = tmp_path / "logits.npy"
    classes = {"cifar10": 10, "imagenet": 1000}[name]
    np.save(args.teacher_logits, 1.0 * np.eye(classes, dtype="float32")[labels])
    seen = []
    for _, y, logits in module.load(args).train(0, 12):
        np.testing.assert_array_equal(logits.numpy().argmax(1), y)
        seen.extend(y.numpy())
    assert seen[:96] != seen[96:] and len(seen) == 192
    np.save(args.teacher_logits, np.zeros((len(labels) - 1, classes), "float32"))
    with pytest.raises(SystemExit, match="a row for each training image. Received"):
        module.load(args)
    np.savez(tmp_path / "arrays.npz", labels=labels)
    for content in (b"no array", b"", (tmp_path / "arrays.npz").read_bytes()):
        args.teacher_logits.write_bytes(content)
        with pytest.raises(SystemExit, match="is no .npy file"):
            module.load(args)
    args.teacher_logits, args.teacher = tmp_path / "none.npy", "MobileNet"
    args.strategy = "multi_worker"
    with pytest.raises(SystemExit, match="every worker would make it; make it first"):
        module.load(args)


@pytest.mark.parametrize("seed", [0, 2**31 - 1, 2**32 - 1])
def test_any_seed_orders_imagenet(seed, small_imagenet):
    given = ("--data-dir", small_imagenet, "--batch-size", 16, "--size", 32, "--seed", seed)
    module, args = arguments("imagenet", *given)
    data = module.load(args)
    tf.keras.utils.set_random_seed(seed)
    assert len(list(data.train(0, 2))) == 2


@pytest.mark.parametrize("name", ["cifar10", "imagenet"])
def test_data_depend_on_seed_and_step_only(name, small_cifar10, small_imagenet):
    size = [] if name == "cifar10" else ["--size", 32, "--shuffle-buffer", 20]
    folder = small_cifar10 if name == "cifar10" else small_imagenet
    module, args = arguments(name, "--data-dir", folder, "--batch-size", 40, *size)
    data = module.load(args)
    per_epoch = data.steps_per_epoch
    whole = [tuple(map(np.array, batch)) for batch in data.train(0, 2 * per_epoch)]
    assert len(whole) == 2 * per_epoch
    start = per_epoch + 1
    for one, two in zip(whole[start:], data.train(start, 2 * per_epoch), strict=True):
        for a, b in zip(one, two, strict=True):
            np.testing.assert_array_equal(a, b)
    parts = []  # of two workers with two devices each
    for worker in (0, 1):
        context = tf.distribute.InputContext(2, worker, num_replicas_in_sync=4)
        parts.append([batch[0].numpy() for batch in data.train(start, 2 * per_epoch, context)])
    assert {len(images) for part in parts for images in part} == {10}
    shared = [x for i in range(0, len(parts[0]), 2) for part in parts for x in part[i : i + 2]]
    np.testing.assert_array_equal(
        np.concatenate(shared), np.concatenate([x for x, _ in whole[start:]])
    )
    labels = np.array([y for _, y in whole]).reshape(2, -1)
    assert (labels[0] != labels[1]).any()
    other = arguments(name, "--data-dir", folder, "--batch-size", 40, "--seed", 2, *size)
    first = next(iter(module.load(other[1]).train(0, 1)))
    assert (first[1].numpy() != whole[0][1]).any()


@pytest.mark.slow
def test_any_keras_application_can_teach(tmp_path, digits):
    """With weights from a file, as there is no network here to load them from."""
    teachers = example("common.teachers")
    network = tf.keras.applications.MobileNetV2(weights=None, classes=1000)
    network.save_weights(tmp_path / "weights.h5")
    teacher, preprocess = teachers.pretrained("MobileNetV2", str(tmp_path / "weights.h5"))
    x = np.random.default_rng(0).uniform(0, 255, (2, 224, 224, 3)).astype("float32")
    expected = network.predict(x / 127.5 - 1, verbose=0)  # what MobileNets are trained on
    logits = teacher.predict(preprocess(x.copy()), verbose=0)
    np.testing.assert_allclose(tf.nn.softmax(logits), expected, atol=1e-5)
    args = type("Arguments", (), {"teacher": "MobileNetV2"})
    args.teacher_weights = str(tmp_path / "weights.h5")
    data = example("common.data").Data(None, None, None, 1, 1, 1000, (120.0,) * 3, (60.0,) * 3)
    given = teachers.make_teacher(args, data)((x - 120) / 60)
    np.testing.assert_allclose(given, logits, atol=1e-3)
    teacher, preprocess = teachers.pretrained("MobileNetV3Small", None)
    assert teacher.name == "MobilenetV3small" and preprocess(x) is x


@pytest.mark.parametrize("end", ["activation", "layer", "logits"])
def test_a_teacher_gives_logits_or_probabilities(end, tmp_path):
    teachers, layers = example("common.teachers"), tf.keras.layers
    activation = "softmax" if end == "activation" else None
    teacher = tf.keras.Sequential([layers.Dense(3, activation, input_shape=(4,))])
    if end == "layer":
        teacher.add(layers.Softmax())
    teacher.save(tmp_path / "teacher.keras")
    args = type("Arguments", (), {"teacher": str(tmp_path / "teacher.keras")})
    data = example("common.data").Data(None, None, None, 1, 1, 3, (0.0,) * 3, (1.0,) * 3)
    x = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
    logits = x @ teacher.layers[0].kernel.numpy() + teacher.layers[0].bias.numpy()
    found = tf.nn.softmax(teachers.make_teacher(args, data)(tf.constant(x)))
    np.testing.assert_allclose(found, scipy.special.softmax(logits, 1), atol=1e-5)


def test_distribution_loss():
    teachers = example("common.teachers")
    random = np.random.default_rng(0)
    student, teacher = random.normal(size=(2, 6, 5)).astype("float32")
    labels = np.arange(6) % 5
    p, q = scipy.special.softmax(teacher, 1), scipy.special.softmax(student, 1)
    loss = teachers.DistributionLoss()
    assert float(loss(teacher, student)) == pytest.approx(
        np.mean([scipy.stats.entropy(a, b) for a, b in zip(p, q, strict=True)]), rel=1e-5
    )
    assert float(loss(labels, student)) == pytest.approx(
        -np.log(q[np.arange(6), labels]).mean(), rel=1e-5
    )
    smooth = 0.9 * np.eye(5)[labels] + 0.1 / 5
    assert float(teachers.DistributionLoss(0.1)(labels[:, None], student)) == pytest.approx(
        -(smooth * np.log(q)).sum(1).mean(), rel=1e-5
    )
