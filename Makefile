# Copyright: onprem.rollout contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
.PHONY: help demo test test-lint test-unit test-integration test-core test-fleet fleet-up fleet-verify fleet-down crash bench clean tree

tools := tests/tools
tiers := lint unit core -- fleet -- integration

help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: tree ## Roll a release out over eight hosts of this machine and survive a bad one; no root, no containers
	@$(tools)/prepare python
	@$(tools)/demo

test: ## Prepare this machine and run every tier
	@$(tools)/prepare python tests fleet
	@$(tools)/tiers $(tiers)

test-lint: tree ## ruff, mypy, ansible-lint, docs and changelog lint, and the built artifact
	@$(tools)/prepare python tests
	@$(tools)/lint

test-unit: tree ## Unit tests, seconds; on-host code also on Python 3.6 where there is one
	@$(tools)/prepare python tests
	@$(tools)/unit

test-integration: tree ## Modules and roles against this machine, on every ansible-core that can run here
	@$(tools)/prepare python tests
	@$(tools)/integration

test-core: tree ## The strategy and the role on every ansible-core that can run here
	@$(tools)/prepare python tests
	@$(tools)/on-cores python -m pytest -p no:cacheprovider -q -n 2 --dist worksteal tests/core

test-fleet: tree ## Molecule: six systemd hosts in podman, over SSH (root)
	@$(tools)/prepare python tests fleet
	@$(tools)/fleet test .build/fleet/test

fleet-up: tree ## Make the six hosts and keep them; prints the inventory's path
	@$(tools)/prepare python tests fleet
	@$(tools)/fleet up .build/fleet/dev

fleet-verify: tree ## Run the fleet's cases against the hosts of fleet-up (PYTEST_ADDOPTS="-k ...")
	@$(tools)/fleet verify .build/fleet/dev

fleet-down: tree ## Remove the hosts of fleet-up
	@$(tools)/fleet down .build/fleet/dev

crash: tree ## The whole crash table, every fault at every step of a host, on a fleet of its own (root; PYTEST_ADDOPTS="-k ...")
	@$(tools)/prepare python tests fleet
	@ONPREM_ROLLOUT_CRASH=whole PYTEST_ADDOPTS="-k test_crashes $${PYTEST_ADDOPTS:-}" $(tools)/fleet test .build/fleet/crash

bench: tree ## Measure the role against a plain playbook and raw SSH, on the fleet, snapshots against tar, the ledger, and big fleets against core
	@$(tools)/prepare python tests fleet
	@tests/bench/run
	@python3 tests/bench/snapshots.py --million
	@python3 tests/bench/ledger.py
	@$$(python3 $(tools)/env.py venv --python 3.11 3.12 3.13 -- molecule)/bin/python -B tests/bench/scale.py

clean: ## Remove what the tiers left in this clone (the shared caches stay)
	@for kind in dev test crash bench; do if [ -d .build/fleet/$$kind ]; then $(tools)/fleet down .build/fleet/$$kind; fi; done
	rm -rf .build .hypothesis .pytest_cache .mypy_cache .ruff_cache .ansible
	find . -name __pycache__ -prune -exec rm -rf {} +

# The tests import the collection by its full name: a tree in which this clone has its place.
tree:
	@mkdir -p .build/ansible_collections/onprem
	@[ -e .build/ansible_collections/onprem/rollout ] || ln -sfn ../../.. .build/ansible_collections/onprem/rollout
