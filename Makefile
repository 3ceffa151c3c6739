# Graft: everything a person or CI runs. Needs only Python 3.11 and make.
PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin
CLIENTS := .venv-clients

# ImageNet weights: a Keras home folder beside the checkout is used where there is one;
# elsewhere Keras downloads into its own ~/.keras. The code is the same.
ifneq ($(wildcard ../shared/keras),)
export KERAS_HOME ?= $(abspath ../shared/keras)
endif

.PHONY: env demo test test-clients lint unit families locks protos clean help bench

help:  ## show this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

env: $(VENV)/.complete  ## make the environment in .venv

$(VENV)/.complete: locks/all.lock
	@command -v $(PYTHON) >/dev/null || { echo "Graft needs Python 3.11: '$(PYTHON)' was not found. Set PYTHON=/path/to/python3.11"; exit 1; }
	@echo "Making the environment in $(VENV) (about 1.3 GB to download and unpack; a few minutes) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --requirement locks/all.lock
	@touch $@

demo: env  ## make sample data, train, serve, classify two pages, stay up until Ctrl-C
	@$(BIN)/python -m training demo

test: lint unit  ## lint, types, import rules and all tests

# Photos to measure with: real ones where they lie beside the checkout, else the pages that `training documents` draws.
PHOTOS ?= $(firstword $(wildcard ../shared/data/four-classes) var/bench/documents)

# Only their speed matters, so weights need not be downloaded; a head on untrained features may be too unsure for bf16.
BENCH_TRAIN = test -d var/bench/$(1)/$(1)/1 || $(BIN)/python -m training train $(PHOTOS) --models var/bench/$(1) --name $(1) --backbone $(2) --weights $(3) --cache var/bench/cache --strategy linear $(4)

bench: env  ## measure serving and write docs/benchmarks.md (needs wrk and a quiet machine; twenty minutes, with other servers forty)
	test -d var/bench/documents || { rm -rf var/bench/unfinished && $(BIN)/python -m training documents var/bench/unfinished --per-class 10 && mv var/bench/unfinished var/bench/documents; }
	$(call BENCH_TRAIN,mobilenet,MobileNetV2,$(if $(KERAS_HOME),imagenet,none))
	$(call BENCH_TRAIN,quantized,MobileNetV2,$(if $(KERAS_HOME),imagenet,none),--quantize)
	$(call BENCH_TRAIN,resnet,ResNet50,none)
	$(BIN)/python -m benchmarks.null_model var/bench/null $(PHOTOS)
	$(BIN)/python -m benchmarks.serving var/bench/mobilenet $(PHOTOS) --larger var/bench/resnet --quantized var/bench/quantized --null var/bench/null --out docs/benchmarks.md

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: env
	$(BIN)/python -m pytest

test-clients: env $(CLIENTS)/.complete  ## other people's clients, in an environment of their own
	GRAFT_CLIENTS_PYTHON=$(abspath $(CLIENTS))/bin/python $(BIN)/python -m pytest tests/clients

$(CLIENTS)/.complete: locks/clients.lock
	@$(PYTHON) -m venv $(CLIENTS)
	@$(CLIENTS)/bin/pip install --quiet --disable-pip-version-check --require-hashes --requirement locks/clients.lock
	@touch $@

families: env  ## every family of keras.applications the whole way, from random weights (minutes)
	$(BIN)/python -m benchmarks.families

protos: env  ## regenerate the committed protobuf code
	$(BIN)/python -m protos.generate

locks:  ## resolve pyproject.toml anew into locks/ (needs uv)
	uv pip compile --upgrade --quiet --no-header --universal --generate-hashes --python-version 3.11 --extra dev -o locks/all.lock pyproject.toml
	uv pip compile --upgrade --quiet --no-header --universal --generate-hashes --python-version 3.11 -c locks/all.lock -o locks/cpu.lock pyproject.toml
	uv pip compile --upgrade --quiet --no-header --universal --generate-hashes --python-version 3.11 -c locks/all.lock --extra gpu -o locks/gpu.lock pyproject.toml
	uv pip compile --upgrade --quiet --no-header --universal --generate-hashes --python-version 3.11 --group clients -o locks/clients.lock

clean:  ## remove everything that the commands above made
	rm -rf $(VENV) $(CLIENTS) var .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .schemathesis
