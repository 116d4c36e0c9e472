# ForgeField: `make demo` and `make test` work from a fresh clone; both make .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help setup demo test check slow kill fuzz clean

help:
	@echo "make setup   make .venv and install everything, exact versions"
	@echo "make demo    train, judge and export a MACE on 3BPA (about a minute)"
	@echo "make test    run the test suite"
	@echo "make slow    run the slow tests too"
	@echo "make kill    kill small fits 100 times, continue them, compare them to the bit (some minutes)"
	@echo "make fuzz    damage the sample of each data format 1000 times and read it (some minutes)"
	@echo "make check   format, lint, types, tests"
	@echo "make clean   remove .venv and the demo's run"

setup: $(READY)

$(READY): constraints.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("ForgeField needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==$$(sed -n 's/^torch==//p' constraints.txt)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(BIN)/python -m forgefield.kernels.library || echo "No C++ kernels: everything works, only slower."
	touch $(READY)

demo: $(READY)
	rm -rf runs/demo
	$(BIN)/forgefield run examples/demo.yaml --set run_dir=runs/demo

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses=8

slow: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses=8 -m "not engine and not gpu"

kill: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python tests/train/kill/drive.py --kills 100

fuzz: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python tests/data/fuzz/fuzz_drive.py --mutations 1000

check: $(READY)
	PATH="$(CURDIR)/$(BIN):$$PATH" scripts/check

clean:
	rm -rf $(VENV) runs/demo
