"""The house: its folders and imports, and every private name of others that it uses.

The latter as an early warning: each is listed, and is there.
"""

import ast
import graphlib
import importlib
import pathlib
import statistics

import larq_filters
import larq_filters.tuning  # before KerasTuner, which then is for Keras 2

import keras_tuner
import larq as lq
import larq_compute_engine as lce
import tensorflow as tf

PACKAGE = pathlib.Path(larq_filters.__file__).parent
keras = tf.keras


def trained(optimizer):
    """An optimizer after a step, when it has all its attributes."""
    optimizer.apply_gradients([(tf.constant([1.0]), tf.Variable([1.0]))])
    return optimizer


def with_exceptions():
    optimizer = keras.optimizers.SGD(0.1, weight_decay=0.1)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    return optimizer


def sequential():
    model = keras.Sequential([keras.layers.Dense(1, input_shape=(2,))])
    model.compile("sgd", "mse")
    return model


def subclassed():
    model = type("Subclassed", (keras.Model,), {"call": lambda self, x: x})()
    model.build((1, 2))
    return model


def functional():
    x = keras.Input((2,))
    return keras.Model({"x": x}, x)


def under_mixed_precision():
    """A latent weight as larq's layers hold it then: a variable that casts another."""
    keras.mixed_precision.set_global_policy("mixed_float16")
    layer = lq.layers.QuantDense(1, kernel_quantizer="ste_sign", input_shape=(1,))
    return keras.Sequential([layer]).layers[0].kernel.latent_variable


# Where a private name is looked up: by the words of the sentence, what makes the object, its names.
PRIVATE = {
    "an optimizer of tf_keras": (
        lambda: trained(keras.optimizers.SGD(0.1)),
        "_built _index_dict _variables _var_key _clip_gradients _distribution_strategy "
        "_learning_rate _no_dependency",
    ),
    "an optimizer of tf_keras with exclude_from_weight_decay": (
        with_exceptions,
        "_exclude_from_weight_decay _exclude_from_weight_decay_names",
    ),
    "SGD of tf_keras": (lambda: trained(keras.optimizers.SGD(0.1)), "momentums"),
    "Adam of tf_keras": (lambda: trained(keras.optimizers.Adam(0.1)), "_momentums _velocities"),
    "a model of tf_keras": (
        sequential,
        "_get_compile_args _run_eagerly _is_graph_network _flatten_layers",
    ),
    "a subclassed model of tf_keras": (subclassed, "_build_input_shape"),
    "a functional model of tf_keras": (functional, "_nested_inputs"),
    "BackupAndRestore of tf_keras": (lambda: keras.callbacks.BackupAndRestore, "_backup"),
    "a convolution of tf_keras": (
        lambda: keras.layers.Conv2D(2, 3, groups=2),
        "_jit_compiled_convolution_op",
    ),
    "a convolution of larq": (
        lambda: lq.layers.QuantConv2D(1, 3),
        "_is_native_padding _get_padding_same",
    ),
    "a variable of TensorFlow": (lambda: tf.Variable(1.0), "_shared_name _constraint"),
    "a variable of tf_keras under mixed precision": (under_mixed_precision, "_variable"),
    "TensorFlow": (
        lambda: tf,
        "__internal__.distribute.interim.maybe_merge_call __internal__.tracking.wrap",
    ),
    "what TensorFlow saves": (
        lambda: tf.__internal__.tracking.Trackable(),
        "_trackable_children _serialize_to_tensors _restore_from_tensors",
    ),
    "KerasTuner": (lambda: keras_tuner, "Tuner._build_hypermodel"),
    "an interpreter of Larq Compute Engine": (
        lambda: lce.testing.Interpreter,
        "predict input_types input_scales input_zero_points output_scales output_zero_points",
    ),
}

# Modules that are not public, and what is taken of them.
MODULES = {
    "keras_tuner.src.backend.config": "multi_backend keras",
    "keras_tuner.src.utils": "save_json",
    "larq_compute_engine.mlir.python.tflite_schema": "ModelT Model BuiltinOperator TensorType",
    "tensorflow.compiler.tf2xla.python.xla": "dynamic_slice dynamic_update_slice",
    "tf_keras.api._v2.keras": "",
    "tf_keras.src.mixed_precision.loss_scale_optimizer": "LossScaleOptimizerV3",
    "tf_keras.src.optimizers.utils": "filter_empty_gradients",
    "tf_keras.src.utils.tf_utils": "can_jit_compile",
}


def look_up(thing, path):
    for name in path.split("."):
        thing = getattr(thing, name)
    return thing


def missing():
    """A sentence for every private name that the installed packages no longer have."""
    for where, (make, names) in PRIVATE.items():
        thing = make()
        for name in names.split():
            try:
                look_up(thing, name)
            except AttributeError:
                yield f"{where} no longer has `{name}`"
    for module, names in MODULES.items():
        try:
            found = importlib.import_module(module)
        except ImportError:
            yield f"there is no module `{module}` any more"
            continue
        for name in names.split():
            if not hasattr(found, name):
                yield f"the module `{module}` no longer has `{name}`"


def test_every_private_name_that_we_use_is_still_there():
    gone = list(missing())
    assert not gone, "; ".join(gone)


def trees():
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE), ast.parse(path.read_text("utf-8"))


def own_names():
    """What the package itself defines: functions, classes, variables and attributes of `self`."""
    names = {path.stem for path, _ in trees()}
    for _, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names.add(node.id)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                if getattr(node.value, "id", None) in ("self", "new"):
                    names.add(node.attr)
    return names


def private_names():
    """Attributes with an underscore that are not the package's own, and where they are used."""
    own = own_names()
    for path, tree in trees():
        for node in ast.walk(tree):
            name = None
            if isinstance(node, ast.Attribute):
                name = node.attr
            elif isinstance(node, ast.Call) and getattr(node.func, "id", None) == "getattr":
                name = getattr(node.args[1], "value", None)
            private = isinstance(name, str) and name.startswith("_") and name not in own
            if private and (not name.endswith("__") or name == "__internal__"):
                yield name, f"{path}:{node.lineno}"


def test_every_private_name_that_we_use_is_listed():
    listed = {
        name for _, names in PRIVATE.values() for path in names.split() for name in path.split(".")
    }
    unlisted = [(name, place) for name, place in private_names() if name not in listed]
    assert not unlisted, f"add these to PRIVATE: {unlisted}"


def test_every_private_module_that_we_use_is_listed():
    imported = set()
    for _, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported |= {f"{node.module}.{alias.name}" for alias in node.names}
    private = {
        name
        for name in imported
        if not name.startswith("larq_filters")
        and (".src." in name or "._" in name or ".tf2xla." in name)
    }
    listed = {f"{module}.{name}" for module, names in MODULES.items() for name in names.split()}
    assert private and private <= listed | MODULES.keys(), private - listed


# The layout


def room(path):
    """The folder of a file, or on the ground floor and at the top the file itself."""
    return path.parts[0] if len(path.parts) > 1 else path.stem


def own_imports():
    """Each file, and the path of a module or name of ours that it imports anywhere."""
    for path, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "larq_filters":
                for alias in node.names:
                    yield path, [*node.module.split(".")[1:], alias.name]


def test_what_has_an_underscore_is_used_only_in_its_folder():
    reached = [
        f"{path} imports {'.'.join(names)}"
        for path, names in own_imports()
        if names[0] != room(path) and any(name.startswith("_") for name in names[1:])
    ]
    assert not reached, reached


def test_imports_point_down():
    """Rooms can be put in order such that each imports only from rooms before it: no circle."""
    below = {room(path): set() for path, _ in trees()}
    for path, names in own_imports():
        if names[0] != room(path):
            below[room(path)].add(names[0])
    order = list(graphlib.TopologicalSorter(below).static_order())  # raises CycleError
    assert len(order) == len(below) and order[-1] in ("__main__", "__init__")


def test_files_are_small():
    sizes = {path: len((PACKAGE / path).read_text("utf-8").splitlines()) for path, _ in trees()}
    assert statistics.median(sizes.values()) <= 160
    assert not {path: size for path, size in sizes.items() if size > 330}
