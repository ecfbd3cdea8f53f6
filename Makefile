# `make quickstart` and `make test` need nothing but Python 3.10 to 3.12. PYTHON=... chooses one.
PYTHON ?= python3
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
SUPPORTED := 3.10 3.11 3.12

# An environment is stale when its dependencies or its Python changed, or when it was moved.
STAMP := installed-$(VERSION)
$(foreach env,.venv .venv-oldest .venv-nightly,$(shell $(env)/bin/pip --version >/dev/null 2>&1 || rm -f $(env)/$(STAMP)))
export TF_CPP_MIN_LOG_LEVEL ?= 2

.PHONY: quickstart test test-all test-processors test-nightly test-oldest mutants soak benchmark docs \
	lint python clean
.DELETE_ON_ERROR:

quickstart: .venv/$(STAMP)
	.venv/bin/python examples/export_edge.py

# What a change can break, in about 6 minutes on 2 cores; tests/README.md says what it leaves out.
test: .venv/$(STAMP)
	.venv/bin/python -m pytest -m "not slow"

test-all: .venv/$(STAMP)
	.venv/bin/python -m pytest

# The quick tests under the arithmetic of other processors, half an hour.
test-processors: .venv/$(STAMP)
	.venv/bin/python tests/support/processors.py

# The quick tests on nightly builds of TensorFlow and tf_keras: what will break next?
test-nightly: .venv-nightly/$(STAMP)
	.venv-nightly/bin/python -m pytest -m "not slow"

# Mutation testing of the parts that compute; goes on where it was stopped.
mutants: .venv/$(STAMP)
	.venv/bin/python tests/support/mutants.py

test-oldest: .venv-oldest/$(STAMP)
	.venv-oldest/bin/python -m pytest

# Kills a training twenty times and compares what it ends with.
soak: .venv/$(STAMP)
	timeout 600 .venv/bin/python tests/support/soak.py

# The short benchmarks, in under ten minutes, and the tables of all pages.
benchmark: .venv/$(STAMP)
	.venv/bin/python benchmarks/optimizer_step.py
	.venv/bin/python benchmarks/memory.py
	.venv/bin/python benchmarks/training_throughput.py
	.venv/bin/python benchmarks/epoch_profile.py --rounds 3
	.venv/bin/python benchmarks/flip_counting.py --rounds 20
	.venv/bin/python benchmarks/export_latency.py
	.venv/bin/python benchmarks/bits_latency.py
	.venv/bin/python benchmarks/fine_tuning.py
	.venv/bin/python benchmarks/report.py

# The pages, in build/docs/index.html; a warning is an error.
docs: .venv/$(STAMP)
	rm -rf build/docs
	.venv/bin/python -m sphinx -q -W --keep-going -b html -d build/doctrees docs build/docs

lint: .venv/$(STAMP)
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

python:
	@case " $(SUPPORTED) " in *" $(VERSION) "*) ;; *) \
		echo "larq_filters needs Python 3.10, 3.11 or 3.12, and '$(PYTHON)' is $(or $(VERSION),not there)." \
			"Install one of them and name it: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; \
		exit 1;; esac

.venv/$(STAMP): setup.py pyproject.toml | python
	@echo "Installing into .venv: TensorFlow and what the tests and pages need, some minutes."
	rm -rf .venv
	@mkdir .venv && date +%s >.venv/started
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet --upgrade pip
	@date +%s >.venv/pip
	.venv/bin/pip install --quiet --editable '.[dev]'
	@now=$$(date +%s) start=$$(cat .venv/started) pip=$$(cat .venv/pip); \
		echo "installation        $$((now - start)) s: $$((pip - start)) s for the environment and pip," \
		"$$((now - pip)) s for downloading and unpacking $$(du -sh .venv | cut -f1) of packages"
	touch $@

.venv-oldest/$(STAMP): setup.py pyproject.toml tests/support/oldest.txt | python
	rm -rf .venv-oldest
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/pip install --quiet --upgrade pip
	.venv-oldest/bin/pip install --quiet --editable '.[dev]' --constraint tests/support/oldest.txt
	touch $@

.venv-nightly/$(STAMP): setup.py pyproject.toml | python
	rm -rf .venv-nightly
	$(PYTHON) -m venv .venv-nightly
	.venv-nightly/bin/pip install --quiet --upgrade pip packaging
	.venv-nightly/bin/pip install --quiet --pre tf-nightly tf-keras-nightly
	.venv-nightly/bin/pip install --quiet --no-deps --editable .
	.venv-nightly/bin/pip install --quiet $$(.venv-nightly/bin/python tests/support/nightly.py)
	# larq asks for NumPy 1, and nightly builds are compiled for NumPy 2: with 1 they crash.
	.venv-nightly/bin/pip install --quiet --no-deps --upgrade 'numpy>=2'
	touch $@

clean:
	rm -rf .venv .venv-oldest .venv-nightly build *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
