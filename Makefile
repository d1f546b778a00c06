# `make demo` and `make test` are the whole set-up; both install first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: install demo test lint bench gpu reproduce clean

install: $(STAMP)

# torch first and alone: from constraints.txt, so that no other package chooses its build.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
		|| { echo "voxseg needs Python 3.11, 3.12 or 3.13; name one with 'make PYTHON=python3.12 ...'"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch -c constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev,brain,dicom,onnx]' -c constraints.txt
	@touch $@

demo: install
	$(BIN)/voxseg demo --output demo

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# A process for each of two cores; each file's tests stay together and share their fixtures.
test: lint
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

bench: install
	$(BIN)/voxseg bench pool
	$(BIN)/voxseg bench slic

# On a machine with a GPU, with the Python that holds torch for it; nothing is installed:
# make gpu OPTIONS="--output FILE.json --what pool slic" (all parts by default, ten minutes)
gpu:
	$(PYTHON) -m voxseg.bench.gpu $(OPTIONS)

# The supervoxel paper's tables on IBSR: make reproduce DATA=folder OUT=folder BUDGET_MINUTES=80
# The same line goes on where it was stopped; OPTIONS="--rows full-v3-* --device cuda" and so on.
BUDGET_MINUTES ?= 80
reproduce: install
	@test -n "$(DATA)" -a -n "$(OUT)" \
		|| { echo "say where the labelled volumes are and where rows go: make reproduce DATA=... OUT=..."; exit 2; }
	$(BIN)/python examples/reproduce_ibsr_tables.py "$(DATA)" -o "$(OUT)" \
		--budget-minutes $(BUDGET_MINUTES) $(OPTIONS)

clean:
	rm -rf $(VENV) build dist *.egg-info demo
