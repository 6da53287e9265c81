# Two commands do everything: `make run` and `make test`. `make help` lists the rest.
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
APT_PACKAGES := gcc libc6-dev make python3-dev python3-venv
BROWSER_PACKAGES := chromium fonts-liberation
DEB_PACKAGES := build-essential debhelper lintian python3-dev python3-venv
DEB_TREE := build/deb/balancerd
DEB_DONE := build/deb/.done
RPM_PACKAGES := gcc libc6-dev python3-dev python3-venv rpm rpmlint
RPM_DONE := build/rpm/.done
RPM_VERSION := $(shell sed -n 's/^Version: *//p' deploy/rpm/balancerd.spec)
PACKAGE_PARTS := balancerd config deploy docs systemd CHANGELOG.md LICENSE README.md pyproject.toml
PACKAGE_SOURCES := $(shell find $(PACKAGE_PARTS) -type f ! -name '*.pyc' ! -name '*.so' ! -name _core.c)
PACKAGE_TAR := tar -c --exclude=__pycache__ --exclude='*.so' --exclude=_core.c $(PACKAGE_PARTS)
NATIVE := $(wildcard balancerd/native/*.c balancerd/native/*.h balancerd/native/backend.py)
REQUIREMENTS := deploy/requirements/build.txt deploy/requirements/dev.txt deploy/requirements/optimum.txt
SOURCES := balancerd tests
UNIT_WORKERS ?= 2

include tests/fuzz/fuzz.mk

.PHONY: help run test lint types contracts unit page-test lab-test lab-thorough lab bench bench-locality faults sdist wheel deb rpm packages-test sbom audit coverage mutation format requirements apt browser-ready lab-ready clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

run: $(VENV)/.ready ## run balancerd: here when this machine has several NUMA nodes, else in the virtual one
	@if [ "$$(ls -d /sys/devices/system/node/node[0-9]* 2>/dev/null | wc -l)" -gt 1 ]; then \
		$(MAKE) --no-print-directory run-here; \
	else \
		$(MAKE) --no-print-directory lab-ready && $(BIN)/python -m tests.lab run --topology four-nodes -- $(BIN)/python -m tests.lab.demo; \
	fi

.PHONY: run-here
run-here: $(VENV)/.ready
	@echo "balancerd in the foreground on this machine; Ctrl-C ends it. In another terminal: $(BIN)/balancerctl --socket /run/balancerd.sock ps"
	$$([ "$$(id -u)" = 0 ] || echo sudo) $(BIN)/balancerd --config config/balancerd.yaml --set control.socket=/run/balancerd.sock

# A virtual machine takes one CPU, so that two things are done at a time; the output of each comes when it has ended.
test: browser-ready lab-ready fuzz-ready $(VENV)/.other-python ## everything that must pass: lint, types, import contracts, unit tests, page, lab tests
	@$(MAKE) --no-print-directory lint contracts
	@$(MAKE) --no-print-directory -j2 --output-sync=target UNIT_WORKERS=1 lab-default lab-host no-lab lab-others

.PHONY: no-lab lab-default lab-host lab-others
no-lab:
	@$(MAKE) --no-print-directory -j1 types unit fuzz-test page-test

lab-default lab-host lab-others:
	@echo "tests of the lab: $(@:lab-%=%)"
	@$(BIN)/python -m tests.lab test --part $(@:lab-%=%)

lint: $(VENV)/.ready ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.browser ## mypy --strict
	$(BIN)/mypy

contracts: $(VENV)/.ready ## the arrows between the rooms
	$(BIN)/lint-imports

unit: $(VENV)/.ready $(VENV)/.other-python ## unit tests on this machine
	$(BIN)/python -m pytest -n $(UNIT_WORKERS) tests/unit

page-test: browser-ready ## the page in a real browser; its pictures are left in .lab/out/page
	$(BIN)/python -m pytest tests/page

lab-test: lab-ready browser-ready ## tests on a real kernel with several NUMA nodes, in a virtual machine; pictures as page-test
	$(BIN)/python -m tests.lab test

lab-thorough: lab-ready browser-ready deb ## the same with those that take long
	$(BIN)/python -m tests.lab test --thorough

lab: lab-ready ## a shell inside the virtual NUMA machine
	$(BIN)/python -m tests.lab shell --topology four-nodes

bench: lab-ready ## benchmarks: ratios measured side by side (takes long)
	$(BIN)/python -m tests.bench

bench-locality: lab-ready ## locality beside every rival, then its report (many hours; goes on where it was stopped)
	$(BIN)/python -m tests.bench locality --missing
	$(BIN)/python -m tests.bench report

faults: lab-ready ## the fault suite, each fault as often as its figures need, then their page (an hour and a half)
	$(BIN)/python -m tests.bench faults

wheel: sdist ## build the wheel into dist/, from the source archive alone, for each Linux with glibc
	rm -rf build/wheel
	$(BIN)/python -m pip wheel -q --no-deps --no-build-isolation --no-cache-dir -w build/wheel dist/balancerd-*.tar.gz
	PATH="$(CURDIR)/$(BIN):$$PATH" auditwheel repair --plat auto -w dist build/wheel/balancerd-*.whl 2> build/wheel/log || { cat build/wheel/log; exit 1; }

sdist: $(VENV)/.ready ## build the source archive into dist/
	rm -rf dist/balancerd-*.tar.gz dist/balancerd-*.whl && mkdir -p dist
	$(BIN)/python -W ignore -c 'import sys; sys.path.insert(0, "balancerd/native"); import backend; backend.build_sdist("dist")' > /dev/null

coverage: $(VENV)/.ready ## lines and branches of the pure rooms that their tests run, at least 95 % (takes minutes)
	$(BIN)/python -m tests.covered

mutation: $(VENV)/.ready ## how many of 30 faults put into each module of engine and policies its tests find (half an hour)
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r deploy/requirements/mutation.txt
	$(BIN)/python -m tests.mutants --sample 30 --keep

sbom: ## what the packages bundle, as CycloneDX JSON in dist/
	@mkdir -p dist
	$(PYTHON) deploy/sbom.py deploy/requirements/top.txt > dist/balancerd.cdx.json

audit: $(VENV)/.ready ## requirement files pinned and complete; known vulnerabilities of what they name, where pip-audit finds them
	$(BIN)/python -m pytest -q tests/unit/test_requirements.py tests/unit/test_dangers.py
	@if command -v pip-audit >/dev/null; then \
		for file in run top dev optimum browser build; do \
			pip-audit --strict --disable-pip --require-hashes -r deploy/requirements/$$file.txt || exit 1; \
		done; \
	else \
		echo "vulnerabilities were NOT looked up: there is no pip-audit, and it needs a network"; exit 1; \
	fi

deb: $(DEB_DONE) ## build the Debian package into dist/, with what it needs bundled, and judge it with lintian

$(DEB_DONE): $(PACKAGE_SOURCES)
	@$(MAKE) --no-print-directory apt APT_PACKAGES="$(DEB_PACKAGES)"
	rm -rf build/deb dist/*.deb && mkdir -p $(DEB_TREE) dist
	$(PACKAGE_TAR) | tar -x -C $(DEB_TREE)
	cp -r deploy/debian $(DEB_TREE)/debian
	cd $(DEB_TREE) && dpkg-buildpackage --build=binary --no-sign > ../build.log 2>&1 || { tail -50 ../build.log; exit 1; }
	lintian --fail-on error,warning --tag-display-limit 0 build/deb/*.changes
	mv build/deb/*.deb dist/
	@touch $@

rpm: $(RPM_DONE) ## the same as an RPM package and its source, judged by rpmlint

# Debian knows no package of RPM, so that what the spec needs is not asked for (--nodeps) but installed here.
$(RPM_DONE): $(PACKAGE_SOURCES)
	@$(MAKE) --no-print-directory apt APT_PACKAGES="$(RPM_PACKAGES)"
	rm -rf build/rpm dist/*.rpm && mkdir -p build/rpm/SOURCES dist
	$(PACKAGE_TAR) --transform 's,^,balancerd-$(RPM_VERSION)/,S' -zf build/rpm/SOURCES/balancerd-$(RPM_VERSION).tar.gz
	cp systemd/balancerd.sysusers build/rpm/SOURCES/
	rpmbuild -ba --nodeps --define "_topdir $(CURDIR)/build/rpm" --load deploy/rpm/macros.systemd deploy/rpm/balancerd.spec \
		> build/rpm/build.log 2>&1 || { tail -50 build/rpm/build.log; exit 1; }
	rpmlint --strict --config deploy/rpm/rpmlint.toml deploy/rpm/balancerd.spec build/rpm/SRPMS/*.rpm build/rpm/RPMS/*/*.rpm
	mv build/rpm/SRPMS/*.rpm build/rpm/RPMS/*/*.rpm dist/
	@touch $@

packages-test: $(VENV)/.ready deb rpm ## tests of what the two packages hold, and of the steps that make the image
	$(BIN)/python -m pytest --timeout 600 tests/packages

format: $(VENV)/.ready ## let ruff format and fix what it can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

requirements: ## lock the dependencies again, after a change in pyproject.toml (needs uv)
	deploy/requirements/lock

# The environment: packages by hash, the project itself editable, byte code for the virtual machine, which cannot write.
$(VENV)/.ready: $(REQUIREMENTS) pyproject.toml $(NATIVE)
	@$(MAKE) --no-print-directory apt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "balancerd needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes $(addprefix -r ,$(REQUIREMENTS))
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# Another version of Python, if one is here: golden traces must be decided the same by both.
$(VENV)/.other-python: deploy/requirements/run.txt pyproject.toml tests/traces/pythons.py | $(VENV)/.ready
	$(BIN)/python -m tests.traces.pythons
	@touch $@

# What drives the browser: 50 MB to fetch, 165 on disk. The browser itself comes with apt: 113 MB, 412 on disk.
$(VENV)/.browser: $(VENV)/.ready deploy/requirements/browser.txt
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r deploy/requirements/browser.txt
	@touch $@

browser-ready: $(VENV)/.browser
	@$(MAKE) --no-print-directory apt APT_PACKAGES="$(BROWSER_PACKAGES)"

lab-ready: $(VENV)/.ready
	@$(BIN)/python -m tests.lab prepare
	@$(BIN)/python -m compileall -q $(VENV) $(SOURCES) || true

apt:
	@missing="$$(for p in $(APT_PACKAGES); do dpkg -s $$p >/dev/null 2>&1 || echo $$p; done)"; \
	if [ -n "$$missing" ]; then \
		echo "installing:" $$missing; \
		as_root="$$([ "$$(id -u)" = 0 ] || echo sudo)"; \
		$$as_root apt-get update -q >/dev/null && \
		DEBIAN_FRONTEND=noninteractive $$as_root apt-get install -y -q --no-install-recommends $$missing >/dev/null; \
	fi

clean: ## remove what was built; the virtual machine's kernel stays in .lab/
	rm -rf $(VENV) build dist *.egg-info balancerd/native/_core.c balancerd/native/*.so
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
