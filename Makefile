# Everything here may be repeated, and goes on where an interrupt left it.
SHELL := /bin/bash -o pipefail
.DEFAULT_GOAL := help
.SUFFIXES:

PYTHON_FOR_VENV ?= python3.11
export PLIMSOLL_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/plimsoll
export UV_CACHE_DIR ?= $(PLIMSOLL_CACHE)/uv-cache
export UV_LINK_MODE ?= hardlink
export MYPY_CACHE_DIR ?= $(PLIMSOLL_CACHE)/mypy
# Cluster-wide names that the machine may have set would lead kubectl and the clients elsewhere.
unexport KUBECONFIG
# Compiled once: torch and the tests themselves cost every process that starts 2 s, and every worker 20.
unexport PYTHONDONTWRITEBYTECODE

TOOLS := $(PLIMSOLL_CACHE)/uv
UV := $(TOOLS)/bin/uv
VENV := .venv
PYTHON := $(VENV)/bin/python
CLUSTER := $(PYTHON) -m tests.cluster
COMPILE := $(UV) pip compile --quiet --python-version 3.11 --generate-hashes --no-emit-index-url \
  --no-emit-find-links --no-header --no-annotate
GENERATED := crds charts docs
SOURCES := api operator jobimage cli tests bench
NOT_UNIT := apiserver or cluster or images or slow
# Files are kept whole: their fixtures train models. A worker holds torch, half a GiB.
WORKERS := -n auto --maxprocesses 4
PARALLEL := $(WORKERS) --dist loadfile
# Of few long tests: by files, the last of them would leave all other workers idle.
PARALLEL_LONG := $(WORKERS) --dist worksteal
# The tests of one mark, read from the files that have any, in pytest's order: reading all files takes each worker seconds.
marked = -m $(1) $$(grep -rl --include='test_*.py' 'mark\.$(1)\b' tests | LC_ALL=C sort)

# One line a stage, with how long it took.
define stage
@printf '\n== %s\n' '$(1)'; begun=$$(date +%s); $(2); status=$$?; \
  printf '== %s: %s, %d s\n' '$(1)' "$$([ $$status = 0 ] && echo done || echo FAILED)" $$(( $$(date +%s) - begun )); exit $$status
endef

.PHONY: help venv lock check generate verify test cluster cluster-down images demo demo-down bench bench-breadth bench-calibration bench-engine bench-gpu bench-latency \
  bench-operator bench-prune test-unit test-slow test-images test-apiserver test-cluster

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# The folder is shared by checkouts: a lock that has changed is installed again over what is there.
$(TOOLS)/.installed-$(shell sha256sum locks/build.txt | cut -c1-12):
	@echo "setting up uv in $(TOOLS)"
	@mkdir -p $(PLIMSOLL_CACHE)
	@[ -x $(TOOLS)/bin/pip ] || $(PYTHON_FOR_VENV) -m venv --clear $(TOOLS) \
	  || { echo "Debian's python3-venv is missing"; apt-get install -y python3-venv && $(PYTHON_FOR_VENV) -m venv --clear $(TOOLS); }
	@$(TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r locks/build.txt
	@touch $@

$(VENV)/.synced-$(shell sha256sum locks/dev.txt pyproject.toml | sha256sum | cut -c1-12): $(TOOLS)/.installed-$(shell sha256sum locks/build.txt | cut -c1-12)
	@echo "installing the locked packages into $(VENV) (cold: a few minutes, most of it torch)"
	@[ -x $(PYTHON) ] || $(UV) venv --quiet --python $(PYTHON_FOR_VENV) $(VENV)
	@$(UV) pip sync --python $(PYTHON) --require-hashes locks/dev.txt
	@$(UV) pip install --quiet --python $(PYTHON) --no-deps -e .
	@rm -f $(VENV)/.synced-*; touch $@

venv: $(VENV)/.synced-$(shell sha256sum locks/dev.txt pyproject.toml | sha256sum | cut -c1-12) ## Make .venv from the locks

lock: venv ## Resolve the locks anew (add UPGRADE=--upgrade for newer versions)
	$(COMPILE) $(UPGRADE) locks/build.in -o locks/build.txt
	$(COMPILE) $(UPGRADE) pyproject.toml --all-extras -o locks/dev.txt
	$(COMPILE) pyproject.toml --extra operator -c locks/dev.txt -o locks/operator.txt
	$(COMPILE) pyproject.toml --extra job -c locks/dev.txt -o locks/job.txt

check: venv ## Formatter, linter, types, import rules, unit tests
	$(call stage,format,$(VENV)/bin/ruff format --check --quiet .)
	$(call stage,lint,$(VENV)/bin/ruff check --quiet .)
	$(call stage,types,$(VENV)/bin/mypy $(SOURCES))
	$(call stage,import rules,$(VENV)/bin/lint-imports)
	@$(MAKE) --no-print-directory test-unit

generate: venv ## Write all generated files
	$(PYTHON) -m plimsoll_api.generate

verify: generate ## Fail when a generated file is not what the sources make
	git diff --exit-code -- $(GENERATED)
	@untracked=$$(git ls-files --others --exclude-standard -- $(GENERATED)); \
	  [ -z "$$untracked" ] || { echo "generated but not committed: $$untracked"; exit 1; }

# The programs of the cluster are built while the unit tests run; both locks and the cache make that safe. The last two
# stages wait more than they compute, so they share the time; a cluster of one's own, which they would share too, has them in turn.
test: venv ## All tests: unit, images, API server, cluster (whatever it starts it takes down)
	@begun=$$(date +%s); mkdir -p build; \
	nice -n 10 $(CLUSTER) build > build/cluster-build.log 2>&1 & builder=$$!; \
	trap 'kill $$builder 2>/dev/null' EXIT; \
	$(MAKE) --no-print-directory check verify && \
	$(MAKE) --no-print-directory test-slow test-images && \
	{ wait $$builder || { cat build/cluster-build.log; exit 1; }; } && \
	$(MAKE) --no-print-directory -j $(if $(PLIMSOLL_KUBECONFIG),1,2) --output-sync=target test-apiserver test-cluster; status=$$?; \
	printf '\n== all tests: %s, %d s\n' "$$([ $$status = 0 ] && echo passed || echo FAILED)" $$(( $$(date +%s) - begun )); \
	exit $$status

test-unit: venv
	$(call stage,unit tests,$(PYTHON) -m pytest -q -m 'not ($(NOT_UNIT))' --durations=5 $(PARALLEL))

test-slow: venv
	$(call stage,slow tests,$(PYTHON) -m pytest -q --durations=5 $(PARALLEL_LONG) $(call marked,slow))

test-images: venv
	$(call stage,images,$(PYTHON) -m pytest -q --durations=0 $(call marked,images))

test-apiserver: venv
	$(call stage,API server tests,$(PYTHON) -m pytest -q --durations=5 $(if $(PLIMSOLL_KUBECONFIG),,$(PARALLEL)) $(call marked,apiserver))

# Brought up here, so that all tests of the stage share it; left up if it was up before.
test-cluster: venv
	$(call stage,cluster tests,$(PYTHON) -m tests.cluster with -- $(PYTHON) -m pytest -q --durations=10 $(call marked,cluster))

cluster: venv ## Bring a real one-node Kubernetes up
	$(CLUSTER) up

cluster-down: venv ## Take it down
	$(CLUSTER) down

images: venv ## Build the two images with docker, if what goes in has changed
	$(PYTHON) -m tests.cluster.docker_build

demo: venv ## Compress, prove, release and roll back a real model in a real cluster
	$(PYTHON) -m tests.demo

demo-down: venv ## Take down what the demo left up
	$(PYTHON) -m tests.demo --down

bench: venv ## Measure the figures of the README
	$(PYTHON) -m bench.digits

bench-breadth: venv ## Each technique on the models that people have, a model of each family first; goes on after an interrupt
	$(PYTHON) -m bench.breadth

bench-engine: venv ## Ours beside the peers on the same models, data and budget; goes on after an interrupt
	$(PYTHON) -m bench.engine

bench-gpu: venv ## Number formats on a GPU, where there is one
	$(PYTHON) -m bench.gpu

bench-calibration: venv ## Calibration on a GPU beside the processor, where there is one; two minutes
	$(PYTHON) -m bench.calibration

bench-latency: venv ## One artifact timed beside itself: how many intervals contain 1; a few minutes
	$(PYTHON) -m bench.latency

bench-prune: venv ## Criteria of structured pruning, without training after; goes on after an interrupt
	$(PYTHON) -m bench.prune

bench-operator: venv ## 1,000 jobs against a real API server, pods simulated
	$(PYTHON) -m bench.operator
