# `make demo` and `make test` need nothing but Python 3.11 or newer; all of these work again and again.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := runs/demo
# Minutes of the demo's training, coders and report; without, as long as its recipe says.
DEMO_MINUTES ?=
DIST := build/dist
STAMP := $(VENV)/.installed

.PHONY: demo test lint bench notebooks docs release clean

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(STAMP)

demo: $(STAMP)
	rm -rf $(DEMO)
	$(BIN)/vqkit train emoji --recipe emoji --out $(DEMO) $(if $(DEMO_MINUTES),--minutes $(DEMO_MINUTES))
	$(BIN)/vqkit evaluate $(DEMO) emoji --json $(DEMO)/evaluation.json
	@echo
	@echo "The report: $(DEMO)/report.html"
	@echo "Three commands to try next:"
	@echo "  $(BIN)/vqkit info $(DEMO)"
	@echo "  $(BIN)/vqkit reconstruct $(DEMO) your-picture.png --out reconstructed"
	@echo "  $(BIN)/vqkit train your-folder-of-pictures --out runs/mine"

test: $(STAMP)
	$(BIN)/python -m pytest -n auto --dist worksteal

lint: $(STAMP)
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

bench: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(BIN)/python benchmarks/bench/debian_packages.py runs/data
	VQKIT_DATA=runs/data PYTHONPATH=benchmarks $(BIN)/python -m bench.all --json runs/bench/all.json

# Every notebook of examples/notebooks anew, held against what is committed.
notebooks: $(STAMP)
	$(BIN)/python scripts/run_notebooks.py

# The site, in build/docs; a broken link is an error.
docs: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	$(BIN)/python scripts/make_pages.py
	rm -rf build/docs
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going -b html docs build/docs
	@echo "The site: build/docs/index.html"

# Wheel and sdist, each of which trains the demo from an empty environment.
release:
	PYTHON=$(PYTHON) DIST=$(DIST) DEMO_MINUTES=$(DEMO_MINUTES) sh scripts/release.sh

clean:
	rm -rf $(VENV) runs build src/*.egg-info
