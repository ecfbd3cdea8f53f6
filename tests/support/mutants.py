"""Mutation testing of what computes: `make mutants`. Cosmic Ray makes the mutants.

    python tests/support/mutants.py [--number 420] [--seed 1] [--again] [--report] [NAME ...]

A seeded sample of mutants, as many of each module as of any other, and those of NAMED, each against
the quick tests that concern its module. Results go to tests/mutants.json as they come, and
a run that was stopped goes on; `--again` tries those that survived with all tests of these files,
also those that were not seen to run the changed line, and those whose tests took too long: a
timeout is no verdict, as it may be of a slow machine. At the end, a table, and the survivors with
their changes. tests/README.md explains those that change no behaviour. `--report` runs nothing. It
says what is recorded, and how much of that is of the present code.

Each mutant lives in a copy of the tree and runs in a fork of a process that has TensorFlow imported
already and has computed nothing with it.
"""

import argparse
import ast
import collections
import difflib
import hashlib
import importlib
import json
import multiprocessing
import os
import pathlib
import random
import shutil
import signal
import sys
import time

import cosmic_ray.plugins
import coverage
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import MutationVisitor

ROOT = pathlib.Path(__file__).parents[2]
FOLDER = ROOT / "build" / "mutants"
TIMEOUT = 400  # seconds
NO_TESTS = 5  # pytest's exit code when no test ran the changed line: the mutant survives
FILTERS = ("filters", "optimizers_oracles", "recipes", "optimizers_changed")
UPDATE = (
    *("optimizers_update", "optimizers_memory"),
    *("optimizers_distribute", "optimizers_inertia", "optimizers"),
)
RECIPES = ("recipes", "recipes_explain", "conversion_continue")
VERIFYING = ("export_verify", "export_benchmark", "export_models", "commands_export")
PACKING = ("export", "export_files", "export_models")
BITS = ("export_bits", "export_bits_refused", "export_bits_files", "export_bits_random")
ELEMENTARY, FLIP = "filters/_elementary.py", "optimizers/_flip.py"
TESTS = {  # by module: the files with the tests that concern it
    "filters/_base.py": FILTERS,
    ELEMENTARY: FILTERS,
    "filters/_cascade.py": FILTERS,
    "filters/_coupled_sgd.py": FILTERS,
    "filters/_iir.py": FILTERS,
    FLIP: (
        "optimizers_oracles",
        "optimizers_flip",
        "optimizers_changed",
        "optimizers_rounding",
        "filters_own",
    ),
    "optimizers/_binaries.py": ("optimizers_changed", *UPDATE[1:]),
    "optimizers/_averages.py": ("optimizers_averages",),
    "optimizers/_feedback.py": ("optimizers_flip_ratio",),
    "optimizers/_partition.py": ("optimizers_layers", "optimizers_arguments"),
    "optimizers/_settable.py": ("optimizers_arguments",),
    "optimizers/_start.py": ("optimizers_inertia",),
    "optimizers/_update.py": UPDATE,
    "optimizers/_rounding.py": ("optimizers_rounding",),
    "optimizers/_narrow.py": ("optimizers_rounding",),
    "recipes/_form.py": RECIPES,
    "recipes/_adam.py": RECIPES,
    "recipes/_optimizers.py": RECIPES,
    "conversion.py": ("conversion", "conversion_continue"),
    "export/_verify.py": VERIFYING,
    "export/_program.py": VERIFYING,
    "export/_packing.py": PACKING,
    "export/_rewrite.py": PACKING,
    "export/_bits/_build.py": BITS,
    "export/_bits/_fold.py": BITS,
    "export/_bits/_int8.py": BITS,
    "export/_bits/_lines.py": BITS,
    "export/_bits/_proof.py": BITS,
    "export/_bits/_regions.py": BITS,
    "export/_bits/_run.py": BITS,
}
NAMED = (  # by hand: module, what stands there, what stands there instead
    (ELEMENTARY, "fixed(self.leak) - 1.0, 0.0", "-1.0, 0.0"),
    (ELEMENTARY, "change = change - coefficients", "change = change + 0 * coefficients"),
    (ELEMENTARY, "if self.epsilon_hat:", "if False:"),
    (ELEMENTARY, "return m * (root_bias / m_bias)", "return m * (1.0 / m_bias)"),
    (ELEMENTARY, "y + share * (x - y)", "(1.0 - share) * y + share * x"),
    (FLIP, "output > now[", "output >= now["),
    (FLIP, "output > now[", "output > 1.01 * now["),
    (FLIP, "output > now[", "output > 1e-6 + now["),
    (FLIP, "last > before[", "last > now["),
    (FLIP, "last > before[", "last >= before["),
)
PLAUSIBLE = ("Add", "Sub", "Mul", "Div")  # of operators between two numbers; others are type errors


def operators():
    for name in sorted(cosmic_ray.plugins.operator_names()):
        operator = cosmic_ray.plugins.get_operator(name)
        _, _, change = name.partition("ReplaceBinaryOperator_")
        if operator.arguments() or (change and not set(change.split("_")) <= set(PLAUSIBLE)):
            continue
        yield name, operator()


EMPTY = ("override", "do_not_convert")  # decorators that only speak to tools, or save time


class WithoutForm(ast.NodeTransformer):
    """Drops what computes nothing: annotations, such decorators, `strict` of zip, `*` and `/`."""

    def visit_Call(self, node):
        self.generic_visit(node)
        if getattr(node.func, "id", "") == "zip":
            node.keywords = []
        return node

    def visit_AnnAssign(self, node):
        if node.value is None or getattr(node.annotation, "id", "") == "TypeAlias":
            return None
        return ast.copy_location(ast.Assign([node.target], node.value), node)

    def visit_FunctionDef(self, node):
        self.generic_visit(node)
        node.returns = None
        for argument in [*node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]:
            if argument is not None:
                argument.annotation = None
        arguments = node.args
        arguments.args = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        arguments.posonlyargs, arguments.kwonlyargs = [], []
        defaults = [*arguments.defaults, *arguments.kw_defaults]
        arguments.defaults, arguments.kw_defaults = [d for d in defaults if d is not None], []
        node.decorator_list = [
            d for d in node.decorator_list if ast.unparse(d).split(".")[-1] not in EMPTY
        ]
        return node


def behaviour(code):
    return ast.dump(WithoutForm().visit(ast.parse(code)))


def sample(module, number, seed):
    """Names of mutants of a module, no two at the same place, and the code of each."""
    code = (ROOT / "larq_filters" / module).read_text("utf-8")
    tree, places = get_ast(code), collections.defaultdict(list)
    for name, operator in operators():
        positions = [p[0] for node in ast_nodes(tree) for p in operator.mutation_positions(node)]
        for occurrence, place in enumerate(positions):
            places[place].append((name, occurrence))
    draw = random.Random(f"{module} {seed}")
    order, original = sorted(places), behaviour(code)
    draw.shuffle(order)
    found = {}
    for place in order:
        name, occurrence = draw.choice(places[place])
        mutated = MutationVisitor.mutate_code(
            code, cosmic_ray.plugins.get_operator(name)(), occurrence
        )
        try:
            if mutated is None or behaviour(mutated) == original:
                continue
        except SyntaxError:
            continue
        found[f"{module} {name.removeprefix('core/')} {occurrence}"] = mutated
        if len(found) == number:
            break
    return found


def named(module):
    code = (ROOT / "larq_filters" / module).read_text("utf-8")
    for i, (where, before, after) in enumerate(NAMED):
        if where == module:
            assert code.count(before) >= 1, (module, before)
            yield f"{module} NAMED {i}", code.replace(before, after, 1)


def change(module, mutated):
    """The lines that differ."""
    code = (ROOT / "larq_filters" / module).read_text("utf-8")
    lines = difflib.unified_diff(code.splitlines(), mutated.splitlines(), lineterm="", n=0)
    return [line for line in lines if line[:2] not in ("--", "++", "@@")]


class Concerned:
    """A plugin of pytest that runs the tests that ran a changed line, the quickest first.

    Which ones that are, and how long each takes, is measured on the unchanged code. What AutoGraph
    makes of a function is not seen to run its lines: `thorough` runs all tests of the files.
    """

    def __init__(self, path, package, module, lines, thorough):
        self.path, self.package, self.coverage = path, package, None
        if lines is None:
            self.coverage = coverage.Coverage(None, config_file=False, source=[str(package)])
            self.coverage.start()
            self.seconds, self.concerned = {}, None
            return
        measured = json.loads(path.read_text("utf-8"))
        self.seconds, ran = measured["seconds"], measured["ran"].get(module, {})
        by_line = [ran.get(str(line), [""]) for line in lines]
        tests = {test for some in by_line for test in some}
        # "": when it was imported, so all of them.
        self.concerned = None if thorough or "" in tests else tests

    def pytest_collection_modifyitems(self, items):
        if self.concerned is not None:
            items[:] = [item for item in items if item.nodeid in self.concerned]
        items.sort(key=lambda item: self.seconds.get(item.nodeid, 0.0))

    def pytest_runtest_setup(self, item):
        if self.coverage is not None:
            self.coverage.switch_context(item.nodeid)

    def pytest_runtest_logreport(self, report):
        if report.when == "call":
            self.seconds[report.nodeid] = report.duration

    def pytest_sessionfinish(self, exitstatus):
        if self.coverage is None or exitstatus != 0:
            return
        self.coverage.stop()
        data = self.coverage.get_data()
        ran = {
            str(pathlib.Path(file).relative_to(self.package)): data.contexts_by_lineno(file)
            for file in data.measured_files()
        }
        self.path.write_text(json.dumps({"seconds": self.seconds, "ran": ran}), "utf-8")


def changed_lines(original, mutated):
    """The numbers of the original's lines that differ."""
    matcher = difflib.SequenceMatcher(None, original.splitlines(), mutated.splitlines(), False)
    blocks = [b for b in matcher.get_opcodes() if b[0] != "equal"]
    return [
        line for _, start, end, _, _ in blocks for line in range(start + 1, max(end, start) + 1)
    ]


def outcome_of(copy, module, mutated, thorough, log):
    """What the tests that concern a module make of this code of it."""
    path = copy / "larq_filters" / module
    original = path.read_text("utf-8")
    lines = None if mutated == original else changed_lines(original, mutated)
    path.write_text(mutated, "utf-8")
    child = os.fork()
    if child == 0:
        run_tests(copy, module, lines, thorough, log)
    end, is_late = time.monotonic() + TIMEOUT, False
    while not (status := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > end:
            is_late = True
            os.killpg(child, signal.SIGKILL)
            status = os.waitpid(child, 0)
            break
        time.sleep(0.05)
    path.write_text(original, "utf-8")
    if is_late:
        return "timeout"
    return "survived" if os.waitstatus_to_exitcode(status[1]) in (0, NO_TESTS) else "killed"


def run_tests(copy, module, lines, thorough, log):
    """In a process of its own, which ends with pytest's exit code."""
    os.setsid()
    with open(log, "wb") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    os.chdir(copy)
    sys.path.insert(0, str(copy))
    sys.dont_write_bytecode = True
    code = 2
    try:
        importlib.invalidate_caches()
        measured = FOLDER / f"{'_'.join(TESTS[module])}.json"
        plugin = Concerned(measured, copy / "larq_filters", module, lines, thorough)
        import larq_filters

        import pytest

        assert pathlib.Path(larq_filters.__file__).is_relative_to(copy)
        files = [f"tests/test_{name}.py" for name in TESTS[module]]
        options = ["-o", "addopts=", "-p", "no:cacheprovider", "-x", "-q", "-m", "not slow"]
        code = pytest.main([*options, *files], plugins=[plugin])
    finally:
        os._exit(int(code))


def work(number, tasks, done):
    """Tries mutants from one queue and puts what became of them in another."""
    os.environ |= {"TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    copy = FOLDER / f"copy{number}"
    shutil.rmtree(copy, ignore_errors=True)
    for name in ("larq_filters", "tests", "examples"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, copy / name)
    for name in ("tensorflow", "tf_keras", "larq", "larq_compute_engine", "scipy.signal"):
        importlib.import_module(name)
    for name in ("hypothesis", "sklearn.datasets", "tensorflow_datasets", "PIL.Image", "pytest"):
        importlib.import_module(name)
    while (task := tasks.get()) is not None:
        name, module, mutated, thorough = task
        start = time.monotonic()
        outcome = outcome_of(copy, module, mutated, thorough, copy / "log.txt")
        log = (copy / "log.txt").read_text("utf-8", "replace")
        killer = [line[7:].split(" - ")[0] for line in log.splitlines() if line[:7] == "FAILED "]
        done.put((name, outcome, (killer or [log.strip()[-80:]])[0], time.monotonic() - start))


def run(mutants, results, path, workers, thorough):
    """Tries some mutants; before them the unchanged code, with the tests of each module."""
    one_of = {TESTS[module]: module for module, _ in mutants.values()}  # by its tests
    plain = {
        f"{module} unchanged": (module, (ROOT / "larq_filters" / module).read_text("utf-8"))
        for module in one_of.values()
    }
    context = multiprocessing.get_context("spawn")
    tasks, done = context.Queue(), context.Queue()
    processes = [context.Process(target=work, args=(i, tasks, done)) for i in range(workers)]
    for process in processes:
        process.start()

    def outcomes(some):
        for name, (module, code) in some.items():
            tasks.put((name, module, code, thorough))
        for i in range(len(some)):
            name, outcome, killer, seconds = done.get()
            print(f"{i + 1:4}/{len(some)} {seconds:4.0f} s  {outcome:8}  {name}", flush=True)
            yield name, outcome, killer

    try:
        for name, outcome, failed in outcomes(plain):
            if outcome != "survived":
                sys.exit(f"the tests fail without any mutant: {name}, {outcome}, {failed}")
        for name, outcome, killer in outcomes(mutants):
            module, code = mutants[name]
            results[name] = {
                "hash": digest(code),
                "outcome": outcome,
                "killed_by": killer if outcome == "killed" else None,
                "change": None if outcome == "killed" else change(module, code),
            }
            write(results, path)
    finally:
        for process in processes:
            process.kill()
        tasks.cancel_join_thread()


def read(path):
    """The results by name; those of earlier versions of this program say only who survived."""
    results = json.loads(path.read_text("utf-8"))
    for result in results.values():
        if "survived" in result:
            result["outcome"] = "survived" if result.pop("survived") else "killed"
    return results


def write(results, path):
    """A line for each, so that changes of the file can be read."""
    lines = [
        f"{json.dumps(k)}: {json.dumps(results[k], ensure_ascii=False)}" for k in sorted(results)
    ]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", "utf-8")


def digest(code):
    return hashlib.sha256(code.encode()).hexdigest()[:16]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--number", type=int, default=420)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--again", action="store_true", help="the survivors, with more tests")
    parser.add_argument("--report", action="store_true", help="what is recorded; run nothing")
    parser.add_argument("names", nargs="*", metavar="NAME", help="try these only, by their start")
    args = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = ROOT / "tests" / "mutants.json"
    results = read(path) if path.exists() else {}
    mutants = {}
    for module in TESTS:
        drawn = sample(module, -(-args.number // len(TESTS)), args.seed)
        for name, code in {**drawn, **dict(named(module))}.items():
            mutants[name] = (module, code)

    def is_present(name):
        return name in mutants and results.get(name, {}).get("hash") == digest(mutants[name][1])

    present = sum(map(is_present, results))
    print(f"{present} of {len(results)} recorded results are of the present code")
    results = {name: result for name, result in results.items() if name in mutants}

    def is_done(name):
        if args.names and not name.startswith(tuple(args.names)):
            return True
        return is_present(name) and not (args.again and results[name]["outcome"] != "killed")

    todo = [name for name in mutants if not is_done(name)]
    random.Random(args.seed).shuffle(todo)
    if todo and not args.report:
        run({name: mutants[name] for name in todo}, results, path, args.workers, args.again)

    print(f"\n{'module':24}{'mutants':>9}{'killed':>9}{'timeout':>9}")
    for module in (*TESTS, "all"):
        mine = [name for name in results if module in ("all", mutants[name][0])]
        counts = collections.Counter(results[name]["outcome"] for name in mine)
        print(f"{module:24}{len(mine):9}{counts['killed']:9}{counts['timeout']:9}")
    for name in (name for name in mutants if name in results):
        if results[name]["outcome"] != "killed":
            print("", f"{name}: {results[name]['outcome']}", *results[name]["change"], sep="\n")


if __name__ == "__main__":
    main()
