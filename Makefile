# Attendant. `make` alone lists what can be made.
#
#   PROFILE=small|standard   which models (default: chosen from this machine's cores and memory)
#   ONCE=1                   make run: end after the first call
#   CARGO_TARGET_DIR         where to build (default: target/)

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.SILENT:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PROFILE ?=
ONCE ?=

ENV := . scripts/env.sh
profile_args = $(if $(PROFILE),--profile $(PROFILE))

.PHONY: help
help:
	echo 'make run         build, fetch models, start the attendant and place a first call to it  (cold 9-15 min, warm 1 min)'
	echo 'make run ONCE=1  the same, ending after that call'
	echo 'make test        all checks and tests, with the small models                       (cold 50-60 min, warm 35 min)'
	echo 'make peer-test   the long tests with real PBXs and telephones; writes their tables     (30-40 min)'
	echo 'make api-test    more than 20,000 made-up requests to the API, each answer checked'
	echo 'make build       the programs only, in target/release                                  (cold 8-14 min, warm 5 s)'
	echo 'make models      fetch the models only                                               (about 1 min, once, 0.6 GB)'
	echo 'make install     the programs and the systemd units onto this machine (root)'
	echo 'make clean-cache remove models and compiler cache from this account'
	echo
	echo 'Times are for 2 cores. Variables: PROFILE=small|standard, CARGO_TARGET_DIR=DIR'

.PHONY: setup
setup:
	scripts/setup.sh build

.PHONY: build
build: setup
	$(ENV)
	scripts/expect.sh build
	cargo build --release --locked --workspace --bins

.PHONY: models
models: build
	$(ENV)
	"$$ATTENDANT_BIN_DIR/attendant" models fetch $(profile_args)

.PHONY: run
run: models
	$(ENV)
	exec "$$ATTENDANT_BIN_DIR/attendant" demo $(profile_args) $(if $(ONCE),--once)

.PHONY: test
test:
	scripts/setup.sh test
	$(ENV)
	exec scripts/test.sh

.PHONY: peer-test
peer-test:
	scripts/setup.sh peer
	$(ENV)
	exec scripts/peer-test.sh

.PHONY: api-test
api-test: models
	$(ENV)
	exec scripts/schemathesis.sh

.PHONY: install
install: build
	$(ENV)
	exec scripts/install.sh

.PHONY: clean-cache
clean-cache:
	$(ENV)
	scripts/clean-cache.sh
