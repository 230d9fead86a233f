# Two commands: `make lab` opens the lectures, `make test` checks them. The rest is for maintainers.
# Options: PORT=8890, ARGS="--no-browser", PYTHON=python3.11.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL = $(BIN)/python -m pip install --quiet --constraint constraints.txt --editable
# What a shell or pip.conf sets for other environments must not reach this one. What says where
# packages come from (index, mirror, proxy, wheel folder) stays.
export PIP_USER = 0
unexport PIP_TARGET PIP_PREFIX PIP_ROOT PIP_PYTHON PIP_DRY_RUN PIP_NO_DEPS PIP_IGNORE_INSTALLED
unexport PIP_REQUIREMENT PIP_EDITABLE PIP_REQUIRE_HASHES
unexport PIP_PLATFORM PIP_PYTHON_VERSION PIP_IMPLEMENTATION PIP_ABI
unexport PYTHONHOME PYTHONPATH
# A target in pip.conf is stronger than an empty variable, and pip then installs elsewhere.
INSTALLED = @test -x $(BIN)/dgm || { echo "pip did not install into $(VENV): does 'pip config \
list' name a target, prefix, root or dry-run?"; exit 1; }
# As the dgm command does: threads that wait must not spin (see cli.py).
export OMP_WAIT_POLICY ?= PASSIVE
# A notebook's threads and the runner's must not fight for two cores. There are three workers, for
# one whose test drives a browser, a kernel or the sandbox often waits. Files keep the order of their
# names, which starts with tests/browser: long files that come last would leave workers idle.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

# Two installations at once, of make -j, would write over one another.
.NOTPARALLEL:
.PHONY: lab test check test-elsewhere bench grade-scale frames site format clean

lab: $(VENV)/.installed-lab
	$(BIN)/dgm lab $(if $(PORT),--port $(PORT)) $(ARGS)

test: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(PYTEST) $(ARGS)

# What a change can have broken, in under three minutes: no notebook, no browser, no statistics.
check: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(PYTEST) tests -m "not slow" --ignore=tests/browser --ignore=tests/test_notebooks.py \
	  --ignore=tests/test_assignment.py $(ARGS)

# The notebooks on other hardware: two threads, then a processor without vector instructions.
test-elsewhere: $(VENV)/.installed-test
	OMP_NUM_THREADS=2 $(BIN)/python -m pytest notebooks $(ARGS)
	OMP_NUM_THREADS=1 ATEN_CPU_CAPABILITY=default $(BIN)/python -m pytest notebooks $(ARGS)

bench: $(VENV)/.installed-bench
	$(BIN)/python -m tests.benchmarks $(ARGS)

# Three hundred submissions of the real assignment, half an hour on two cores.
grade-scale: $(VENV)/.installed-test
	$(BIN)/python -m tests.grading.scale 300 --jobs 2 $(ARGS)

# The pictures that a panel shows, for pages without a kernel; kept until a notebook changes.
frames: $(VENV)/.installed-site
	$(BIN)/python -m docs.site.frames $(ARGS)

# The site, in _site/html: it works from there, without a server and without a network.
site: frames
	$(BIN)/python -m docs.site.build $(ARGS)

format: $(VENV)/.installed-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist *.egg-info

# One stamp an extra, touched only when pip succeeded.
$(VENV)/.installed-lab: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "Installing the course into $(VENV) (some minutes the first time)"
	$(INSTALL) .
	$(INSTALLED)
	@touch $@

$(VENV)/.installed-%: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "Installing the course with its $* extra into $(VENV) (some minutes the first time)"
	$(INSTALL) ".[$*]"
	$(INSTALLED)
	@touch $@

# The interpreter's own date is older than the stamps', so it never triggers a second install.
$(VENV)/bin/python:
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed: make PYTHON=python3.11 ..."; exit 1; }
	"$(PYTHON)" -m venv $(VENV) || { rm -rf $(VENV); exit 1; }
