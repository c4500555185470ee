# The verbs of this repository. Each prepares what it needs in .venv, once; `make help` lists them.
#
#   make test PYTHON=python3.13     with a certain interpreter (otherwise the first one of 3.11 or newer)
#   make test TESTS=tests/unit      a part of the tests; ARGS="-k word -x" goes to pytest as it is
#   make test TEST_LANES=1          one pytest at a time; by default four run side by side

VENV   ?= .venv
PYTHON ?=
TESTS  ?= tests
ARGS   ?=
BIN    := $(VENV)/bin

# The tests start hundreds of interpreters: compiled modules are worth keeping, whatever the shell says.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo start test test-plugins test-stores test-cluster test-knative cluster lint bench conformance format generate wheel clean packages

help: ## show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' Makefile

demo: $(VENV)/.laptop ## start a server, run a program on it, show the result, leave nothing behind
	@$(BIN)/python examples/demo.py

start: $(VENV)/.laptop ## run the server here; ARGS="--port 8080"
	@$(BIN)/flyte-unified start $(ARGS)

test: $(VENV)/.tools packages ## run the tests
	$(BIN)/python -m $(if $(filter tests,$(TESTS)),tests.lanes,pytest $(TESTS)) $(ARGS)

test-stores: $(VENV)/.tools ## run the tests of object stores, Azure's stand-in included, which npm installs once
	@$(BIN)/python -m tests.cloud_servers
	$(BIN)/python -m pytest tests/contract/storage tests/sdk/test_buckets.py tests/sdk/test_clouds.py $(ARGS)

test-plugins: $(VENV)/.tools ## run tasks with Ray, Dask, Spark and PyTorch themselves; fetches them, once
	FLYTE_TEST_PLUGINS=1 $(BIN)/python -m pytest tests/sdk/test_libraries.py $(ARGS)

test-cluster: $(VENV)/.tools ## run the cluster's tests in the cluster that $FLYTE_TEST_KUBECONFIG names
	@[ -r "$$FLYTE_TEST_KUBECONFIG" ] || { echo "Name a cluster's kubeconfig: make test-cluster" \
	  "FLYTE_TEST_KUBECONFIG=/path/to/kubeconfig. \`make cluster\` starts one. See docs/cluster.md." >&2; exit 2; }
	FLYTE_TEST_KUBECONFIG="$$(realpath "$$FLYTE_TEST_KUBECONFIG")" $(BIN)/python -m pytest tests/cluster tests/contract/kube $(ARGS)

test-knative: $(VENV)/.tools ## run apps with Knative Serving itself; builds it and Kubernetes, which takes minutes and Go
	@$(BIN)/python -m tests.cluster.realserver.knative $(BIN)/python -m pytest tests/cluster/test_knative.py $(ARGS)

cluster: $(VENV)/.tools ## start Kubernetes without nodes, for test-cluster; builds it, which takes minutes and Go
	@$(BIN)/python -m tests.cluster.realserver.serve --kubeconfig $(VENV)/kubeconfig $(ARGS)

lint: $(VENV)/.tools ## check style, types and import rules
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.tools ## measure the server and what a call costs it
	@$(BIN)/python -m tests.benchmarks.run
	@$(BIN)/python tests/benchmarks/edge.py

conformance: $(VENV)/.tools ## run Connect's conformance suite against the edge; needs Go
	$(BIN)/python tests/conformance/run.py $(ARGS)

format: $(VENV)/.tools ## repair what can be repaired
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

generate: $(VENV)/.tools ## write what is generated: flyte.yaml, docs/settings.md, messages.py, docs/api-coverage.md
	$(BIN)/python -m flyte_unified.cli.reference
	$(BIN)/python -m tests.generated_messages
	$(BIN)/python -m tests.coverage_page

wheel: $(VENV)/.laptop ## build dist/*.whl
	$(call install,build)
	$(BIN)/python -m build --wheel

clean: ## remove what these verbs made
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# uv, our own where there is no other: pip takes minutes for what it does in seconds. Where uv does not get through, a pip
# that knows dependency groups (25.1) may, as it has indexes and certificates of its own.
install = if command -v uv >/dev/null; then uv pip install --quiet --python $(BIN)/python $(1); \
	else $(BIN)/uv pip install --quiet --python $(BIN)/python $(1) || { $(BIN)/python -m pip install --quiet 'pip>=25.1' \
	&& $(BIN)/python -m pip install --quiet $(1); }; fi

# The console's tests look through a browser, containers are podman's, and the database's tests run servers of their own
# (programs of the package postgresql, in a temporary directory). What is not there is installed from Debian, by root only;
# what cannot be had is left out of the tests, which say so.
debian = { $(2); } >/dev/null 2>&1 || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
	&& echo "installing Debian's $(1) for the tests" && apt-get update -qq \
	&& apt-get install -qq -y --no-install-recommends $(1) >/dev/null; } || true

packages:
	@$(call debian,chromium,command -v chromium)
	@$(call debian,podman runc,command -v podman)
	@$(call debian,postgresql,command -v initdb || ls /usr/lib/postgresql/*/bin/initdb)

$(BIN)/python:
	@set -e; for python in $(PYTHON) $(if $(PYTHON),,python3 python3.14 python3.13 python3.12 python3.11); do \
	  if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ] && { [ -n "$(PYTHON)" ] || ! command -v uv >/dev/null; }; then \
	  echo "Python 3.11 or newer is needed; name one: make PYTHON=/path/to/python3.12" >&2; exit 1; \
	elif command -v uv >/dev/null; then uv venv --quiet --python "$${found:-3.13}" $(VENV); \
	else $$found -m venv $(VENV) && $(BIN)/python -m pip install --quiet uv; fi

$(VENV)/.laptop: pyproject.toml | $(BIN)/python
	@echo "installing into $(VENV)"
	@$(call install,-e '.[laptop]')
	@touch $@

$(VENV)/.tools: pyproject.toml $(VENV)/.laptop
	@$(call install,--group test --group lint)
	@touch $@
