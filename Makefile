# armvirt: `make demo` shows it at work, `make test` runs its tests. Nothing here needs root.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
GUESTS := .cache/guests

.PHONY: demo test test-long lint guests bench campaign linux-matrix migrate-campaign gic-reference timer-reference gic-campaign fuzz limits \
	exit-campaign poll-campaign firmware cases differential package install clean

demo: $(STAMP)
	@$(BIN)/python tools/demo.py

install: $(STAMP)

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	    { echo "armvirt needs Python 3.10 or newer; set PYTHON=..., for example make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	    { echo "this Python cannot make virtual environments; on Debian: apt-get install python3-venv"; exit 1; }
	@rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)

# The native engine is rebuilt when its source changes; an editable install sees all other changes by itself.
$(STAMP): $(VENV)/bin/python pyproject.toml setup.py armvirt/hw/engine/native.c armvirt/hw/engine/layout.h armvirt/hw/engine/shadow.h armvirt/hw/engine/rounds.h armvirt/hw/engine/waits.h
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --config-settings editable_mode=compat --editable '.[dev]'
	$(BIN)/python -m compileall -q armvirt
	@touch $@

# Tests run in JOBS processes. `make test` leaves out the tests marked long, `make test-long` runs them.
JOBS ?= auto
PYTEST := $(BIN)/python -m pytest -n $(JOBS) --dist worksteal
test: $(STAMP)
	$(PYTEST) -m 'not long' $(PYTEST_ARGS)

test-long: $(STAMP)
	$(PYTEST) -m long $(PYTEST_ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

guests:
	$(PYTHON) tools/fetch_guests.py --cache $(GUESTS)

differential: $(STAMP)
	$(BIN)/python tools/differential.py

# The source package and both wheels, in dist/; they are installed into every Python that is here, and tried.
package: $(STAMP)
	$(BIN)/python tools/package.py $(PACKAGE_ARGS)

bench: $(STAMP)
	$(BIN)/python tools/bench.py $(BENCH_ARGS)

campaign: $(STAMP)
	$(BIN)/python tools/campaign.py $(CAMPAIGN_ARGS)

linux-matrix: $(STAMP)
	$(BIN)/python tools/linux_matrix.py $(MATRIX_ARGS)

migrate-campaign: $(STAMP)
	$(BIN)/python tools/migrate_campaign.py $(CAMPAIGN_ARGS)

exit-campaign: $(STAMP)
	$(BIN)/python tools/exit_campaign.py $(CAMPAIGN_ARGS)

# The vGIC beside the reference model: STEPS actions under hypothesis. Ten million take about half an hour.
STEPS ?= 1000000
gic-reference: $(STAMP)
	ARMVIRT_REFERENCE_STEPS=$(STEPS) $(BIN)/python -m pytest -s tests/hyp/vgic/test_vgic_reference.py

# The timers beside the oracle of the architecture: a million steps take about a quarter of an hour.
timer-reference: $(STAMP)
	ARMVIRT_REFERENCE_STEPS=$(STEPS) $(BIN)/python -m pytest -s tests/hyp/timer/test_timer_reference.py

# Sixty and more storms under --timeout, SIGINT and SIGTERM, on both engines: about ten minutes.
limits: $(STAMP)
	PYTHONPATH=tools:tests:tests/board $(BIN)/python tests/storms/limits.py $(LIMITS_ARGS)

# Random polling loops with and without skipping: LOOPS of them, from SEED on.
LOOPS ?= 20000
SEED ?= 100000
poll-campaign: $(STAMP)
	ARMVIRT_POLL_LOOPS=$(LOOPS) ARMVIRT_POLL_SEED=$(SEED) $(BIN)/python -m pytest -s tests/hw/polling/test_poll_loops.py -k random

fuzz: $(STAMP)
	$(BIN)/python tools/fuzz.py $(CAMPAIGN_ARGS)

gic-campaign: $(STAMP)
	$(BIN)/python tools/gic_campaign.py $(CAMPAIGN_ARGS)

firmware: $(STAMP)
	$(BIN)/python tools/build_firmware.py

cases: $(STAMP)
	PYTHONPATH=tools $(BIN)/python tests/cases/case_builder.py

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	rm -f armvirt/hw/engine/_native.so
	find armvirt tests tools -name __pycache__ -type d -prune -exec rm -rf {} +
