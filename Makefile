# Everything runs in .venv, made and filled by the first target that needs it.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

# Nothing that runs here reports home or looks for models and data on a hub.
export DO_NOT_TRACK = 1
export MLFLOW_DISABLE_TELEMETRY = true
export PREFECT_SERVER_ANALYTICS_ENABLED = false
export RAY_USAGE_STATS_ENABLED = 0
export HF_HUB_OFFLINE = 1
export HF_DATASETS_OFFLINE = 1
export NO_MKDOCS_2_WARNING = 1

.PHONY: demo test test-long check docs install demo-pool format

demo: $(STAMP)
	$(BIN)/python -m flows.demo

test: $(STAMP)
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder -m "not long"

test-long: $(STAMP)
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --no-cache
	@git ls-files -z '*.py' | xargs -0 wc -l | \
		awk '$$2 != "total" && $$1 > 400 {print $$2 ": " $$1 " lines, 400 at most"; bad = 1} END {exit bad}'

# The site goes to site/; a link that leads nowhere fails.
docs: $(STAMP)
	$(BIN)/python -m mkdocs build -q

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Trains the shipped pool again (about three minutes).
demo-pool: $(STAMP)
	$(BIN)/python -m evomerge.demo.pool --seed 1 --out evomerge/demo/pool

install: $(STAMP)

# torch is named first and exactly: unpinned it brings gigabytes.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[flows,languages,dev]'
	touch $@
