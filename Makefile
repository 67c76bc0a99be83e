# The two commands of the README are `make walk` and `make test`; each does its own set-up.
# Options for a command: make walk ARGS="--help"      Another environment: make walk NFPO_VENV=~/env

SHELL := /bin/bash
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help walk test test-slow fuzz setup setup-walk lint format typecheck clean distclean

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

walk: setup-walk ## set up, then let Go2 walk in MuJoCo through the whole ROS 2 graph
	@scripts/run nfpo walk $(ARGS)

test: setup ## set up everything, then run the test suite
	@scripts/test.sh $(ARGS)

test-slow: setup ## the tests that take minutes, too
	@NFPO_SLOW=1 scripts/test.sh $(ARGS)

fuzz: setup ## damage the inputs of every parser for ten minutes: make fuzz ARGS="--minutes 60"
	@scripts/run python -m tests.fuzz $(ARGS)

setup: ## set up everything: simulation, ROS 2, training, development
	@scripts/setup.sh test

setup-walk: ## set up only what `make walk` needs (no torch)
	@scripts/setup.sh walk

lint: setup ## check style
	@scripts/run ruff check . && scripts/run ruff format --check .

format: setup ## rewrite files in the project's style
	@scripts/run ruff check --fix . && scripts/run ruff format .

typecheck: setup ## check types
	@scripts/run mypy

clean: ## remove build products and caches; keep the environment and training runs
	rm -rf build dist *.egg-info ros2_ws/build ros2_ws/install ros2_ws/log .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -type d -prune -exec rm -rf {} +

distclean: clean ## remove the environment too
	rm -rf .venv
