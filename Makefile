# make run: set up what is missing, then the main job on the embedded default. make test: set up, then the tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export OMP_NUM_THREADS ?= 1
export MLFLOW_DISABLE_TELEMETRY := true
export DO_NOT_TRACK := true

RUN ?= runs/demo

.PHONY: run test test-slow check app mlflow bench audit sbom fmt clean
run: $(STAMP)
	$(BIN)/suture run configs/demo.yaml --out runs/demo --resume

test: $(STAMP)
	$(BIN)/python -m pytest -m "not slow"

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

app: run
	$(BIN)/suture app runs/demo

# MLflow writes to the store that it opens, and `suture verify` would say so: it is given a copy. RUN=DIR names a run.
mlflow: $(STAMP)
	@test -f $(RUN)/mlflow.db || { echo "$(RUN) has no mlflow.db: suture run CONFIG --out $(RUN) --resume makes it"; exit 1; }
	@mkdir -p build
	@cp $(RUN)/mlflow.db build/mlflow.db
	$(BIN)/mlflow server --backend-store-uri sqlite:///build/mlflow.db --host 127.0.0.1 --port 5000

bench: $(STAMP)
	$(BIN)/suture bench --quick

# What is installed: known weaknesses (asked over the network, a report and not a judge), licences, and a bill of materials.
audit: $(STAMP)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[audit]"
	@mkdir -p build
	-$(BIN)/pip-audit --skip-editable --progress-spinner off --timeout 15 --desc off --format json --output build/audit.json
	@$(BIN)/python docs/make_dependencies.py build/audit.json build/licences.md

sbom: $(STAMP)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[audit]"
	@mkdir -p build
	$(BIN)/cyclonedx-py environment $(BIN)/python --pyproject pyproject.toml --of JSON --output-reproducible -o build/sbom.json
	@echo "build/sbom.json: CycloneDX, every package that is installed"

fmt: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) runs build dist *.egg-info

# torch first and alone, so that pip takes a CPU build where one is at hand before anything else asks for torch.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Suture needs Python 3.11 or newer; set PYTHON=/path/to/python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) (a few minutes, once) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $(STAMP)
