# The commands of a checkout; everything is installed into .venv, nothing outside it changes.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: install quickstart study study-report test lint format clean

install: $(STAMP)

$(STAMP): setup.py pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@

quickstart: $(STAMP)
	$(BIN)/python -m invariance_jax quickstart --workdir=quickstart

# The study of docs/results.md: two CPU cores and three hours; started again it goes on. DATA is a
# folder of TFDS with imagenet2012.
DATA ?= ~/tensorflow_datasets
study: $(STAMP)
	$(BIN)/python launch/study.py --root=study --data_dir=$(DATA) --pack=docs/study

# Its page and figures, from the committed results.
study-report: $(STAMP)
	$(BIN)/python -m invariance_jax report docs/study/results --output=docs/study

# Two processes: compilation dominates and most of it is serial. What one test has compiled, other
# tests and the commands that they start find in a cache that lives as long as the run. XLA's older
# emitters take half the time of the newer ones. Neighbours stay together and share their fixtures.
test: $(STAMP)
	cache=$$(mktemp -d) && trap 'rm -rf "$$cache"' EXIT && \
	JAX_COMPILATION_CACHE_DIR=$$cache JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0.3 \
	XLA_FLAGS="$$XLA_FLAGS --xla_cpu_use_fusion_emitters=false" \
	$(BIN)/python -m pytest -n 2 --dist=worksteal

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache quickstart study
