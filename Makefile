# The two commands: `make demo` and `make test`. Both make .venv by themselves.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test soak fuzz test-long test-pythons test-oldest lint docs bench bench-relay bench-floods bpf dist clean

# Shows proxy, farm and an arena with 40 bots, until Ctrl-C or q; FOR=10 for ten seconds.
demo: .venv/demo.stamp
	$(BIN)/gameproxy demo $(if $(FOR),--for $(FOR))

# Tests wait as often as they work: three at a time keep two cores busy. COVERAGE=1: and see that little is left untested,
# which takes a third longer.
JOBS ?= 3

test: .venv/test.stamp lint
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist worksteal $(if $(COVERAGE),--cov --cov-report=term)

# What takes longer: crashes and crowds in full, with real processes; about a quarter of an hour.
test-long: .venv/test.stamp
	$(BIN)/python -m pytest tests/long

# Inputs that are made up, guided by what they reach, at all that reads what strangers send: FUZZ_SECONDS (20) for each of
# six targets. tests/fuzz/fuzz.py says what else can be asked for.
fuzz: .venv/fuzz.stamp
	PYTHONPATH=. $(BIN)/python tests/fuzz/fuzz.py

# Half an hour of fuzzing, and the simulation at length: all bugs of the zoo, many seeds, and many twice under different
# hash seeds and on the other Pythons; hours. SHORT=1: four minutes. tests/simulation/soak.py says how to have more or less of each.
soak: .venv/test.stamp .venv/fuzz.stamp
	$(MAKE) fuzz FUZZ_SECONDS=$(or $(FUZZ_SECONDS),$(if $(SHORT),5,300))
	PYTHONPATH=. PYTHONS="$$(tests/simulation/pythons)" $(if $(SHORT),SOAK_ZOO=0 SOAK_SEEDS=500 SOAK_VERIFY=100 SOAK_PYTHONS=30) \
		$(BIN)/python tests/simulation/soak.py

# The unit tests under the other Pythons that are found (python3.12, or one of pyenv's); says which are not.
test-pythons: .venv/test.stamp
	tests/pythons

# The unit tests with the oldest releases of all that setup.cfg asks for. The simulation stands below Twisted's public
# face, and needs 26.10 of it.
test-oldest: .venv/oldest.stamp
	.venv/oldest/bin/python -m pytest --quiet -p no:cacheprovider --ignore-glob='*/test_simulation_*' tests/unit

lint: .venv/test.stamp
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: .venv/docs.stamp
	$(BIN)/sphinx-build -W --keep-going -q docs docs/_build

# Needs cc, libssl-dev and haproxy; see benchmarks/README.md.
bench: .venv/test.stamp
	$(BIN)/python benchmarks/bench_setup.py
	$(BIN)/python benchmarks/bench_farm.py

# Relaying, beside other proxies; some minutes. Needs nginx and libnginx-mod-stream too. SHORT=1: one minute, one window
# of each kind, fewer idle sessions.
bench-relay: .venv/bench.stamp
	$(BIN)/python benchmarks/bench_relay.py $(if $(SHORT),--rounds 1 --idle 1000)

# What 500 sessions notice of floods; twelve minutes. SHORT=1: two.
bench-floods: .venv/test.stamp
	$(BIN)/python benchmarks/bench_floods.py $(if $(SHORT),--rounds 1 --seconds 3)

# Builds the program that relays in the kernel, which is shipped built. Needs clang (14, for the same bytes),
# libbpf-dev and bpftool; no path of this machine gets into what is built.
SOCKMAP := gameproxy/relay/sockmap
BPF_INTO := $(SOCKMAP)
BPF_WORK := build
bpf: .venv/test.stamp
	@mkdir -p $(BPF_WORK)
	cd $(SOCKMAP) && clang -target bpf -O2 -g -Wall -Werror -fdebug-compilation-dir=. \
		-idirafter /usr/include/$$(uname -m)-linux-gnu -c relay.bpf.c -o $(abspath $(BPF_WORK))/relay.bpf.o
	bpftool gen skeleton -L $(BPF_WORK)/relay.bpf.o > $(BPF_WORK)/relay.skeleton.h
	$(BIN)/python -m gameproxy.relay.sockmap $(BPF_WORK)/relay.skeleton.h $(BPF_INTO)/relay.bpf.loader

# Source distribution and wheel, in dist/.
dist: .venv/release.stamp
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*

clean:
	rm -rf .venv build dist docs/_build .coverage .hypothesis

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "gameproxy needs Python 3.11 or later; say which one with: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "Python's venv is missing. On Debian and Ubuntu: sudo apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv .venv

.venv/demo.stamp: .venv/bin/python setup.cfg pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

.venv/test.stamp: .venv/bin/python setup.cfg pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@

.venv/fuzz.stamp: .venv/test.stamp setup.cfg
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[fuzz]'
	@touch $@

.venv/bench.stamp: .venv/test.stamp benchmarks/requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement benchmarks/requirements.txt
	@touch $@

.venv/oldest.stamp: .venv/bin/python setup.cfg pyproject.toml tests/oldest.txt
	$(PYTHON) -m venv .venv/oldest
	.venv/oldest/bin/python -m pip install --quiet --disable-pip-version-check --constraint tests/oldest.txt \
		--editable '.[test]'
	@touch $@

.venv/release.stamp: .venv/bin/python setup.cfg pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[release]'
	@touch $@

.venv/docs.stamp: .venv/bin/python setup.cfg pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	@touch $@
