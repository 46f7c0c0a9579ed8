# netd's commands: `make` lists them. `make run` needs git, python3 (3.11 or later) and make; `make test` installs the rest.

PYTHON ?= python3
CONFIG ?= config/dev.toml
ARGS ?=
JOBS ?= 4
CODEC ?=
SECONDS ?= 600
SABOTAGE ?=
MINUTES ?= 30
PREFIX ?= /opt/netd
DESTDIR ?=

# What the tests need, a program or a file, and the Debian package that has it.
TOOLS = redis-server=redis-server rabbitmqctl=rabbitmq-server memcached=memcached memccapable=libmemcached-tools \
	nutcracker=nutcracker strace=strace nc=netcat-openbsd \
	telnet=telnet socat=socat tmux=tmux ssh=openssh-client sshd=openssh-server dbclient=dropbear-bin \
	plink=putty-tools ssh-audit=ssh-audit promtool=prometheus chromium=chromium zsh=zsh fish=fish haproxy=haproxy \
	systemctl=systemd mandoc=mandoc \
	cc=gcc cc=libc6-dev /usr/include/libssh/libssh.h=libssh-dev /usr/include/amqp.h=librabbitmq-dev

PIP = .venv/bin/python -m pip --quiet --quiet --disable-pip-version-check --no-input
SAY = @printf 'netd: %s\n'
SYSTEM_PATH = PATH="$$PATH:/usr/sbin:/sbin"

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:
.PHONY: help run test test-systemd faults fuzz demo soak lint bench install uninstall lock clean tools

help: ## list these commands
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' Makefile | while IFS='	' read -r name what; do printf '  make %-12s %s\n' "$$name" "$$what"; done

run: .venv/.runtime ## start netd in the foreground (CONFIG=config/dev.toml); Ctrl-C stops it
	@exec .venv/bin/twistd -n --pidfile= netd --config $(CONFIG)

test: tools lint ## install what the tests need, then lint and run them (ARGS='-k echo'; JOBS=0: in one process)
	@$(SYSTEM_PATH) .venv/bin/python -m pytest -n $(JOBS) --dist loadfile $(ARGS)

faults: tools .venv/.dev ## half an hour of what can break, at every door, a line a fault (ARGS='-k echo')
	@$(SYSTEM_PATH) .venv/bin/python -m pytest -q tests/faults $(ARGS)

fuzz: .venv/.fuzz ## search for bytes that make a codec fail, ten minutes each (CODEC='resp amqp' SECONDS=600)
	@.venv/bin/python -m fuzz $(CODEC) --seconds $(SECONDS)

demo: tools .venv/.dev ## two minutes: 200,000 lines, everything breaks, nothing is lost (SABOTAGE=nosync, SABOTAGE=earlyok)
	@$(SYSTEM_PATH) .venv/bin/python -m tests.demo --sabotage '$(SABOTAGE)' $(ARGS)

soak: tools .venv/.dev ## half an hour of mixed load, reloads and faults: memory and the rest must be flat (MINUTES=30)
	@$(SYSTEM_PATH) .venv/bin/python -m tests.soak --minutes '$(MINUTES)' $(ARGS)

lint: .venv/.dev ## ruff and mypy
	@.venv/bin/ruff check --quiet
	@.venv/bin/ruff format --quiet --check
	@.venv/bin/mypy --no-error-summary

test-systemd: tools .venv/.dev ## the unit files under the real systemd alone; they are part of `make test` too
	@$(SYSTEM_PATH) .venv/bin/python -m pytest tests/systemd $(ARGS)

bench: .venv/.bench tools ## measure netd beside its peers (ARGS='--help')
	@$(MAKE) --silent --no-print-directory -C benchmarks
	@$(SYSTEM_PATH) .venv/bin/python -m benchmarks $(ARGS)

install: ## install netd, its units and manual pages for this machine (PREFIX=/opt/netd DESTDIR=)
	@DESTDIR='$(DESTDIR)' PREFIX='$(PREFIX)' PYTHON='$(PYTHON)' config/install install

uninstall: ## remove what `make install` put in place, but configuration and state
	@DESTDIR='$(DESTDIR)' PREFIX='$(PREFIX)' config/install uninstall

lock: .venv/bin/pip ## renew the lock files after a change of pyproject.toml (ARGS=--upgrade for newer versions)
	@$(PIP) install --upgrade --target .venv/uv uv
	@$(call lock,requirements.lock,--group build)
	@$(call lock,requirements-dev.lock,--group dev --constraint requirements.lock)
	@$(call lock,requirements-fuzz.lock,--group fuzz --constraint requirements-dev.lock)
	@$(call lock,requirements-bench.lock,--group bench --constraint requirements-dev.lock)

clean: ## remove what these commands made, but netd's state
	@rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis benchmarks/build
	@find netd tests twistd_plugins benchmarks fuzz -name __pycache__ -prune -exec rm -rf {} +

# One lock holds for every Python and platform that netd supports.
lock = .venv/uv/bin/uv pip compile --quiet --python .venv/bin/python --universal --python-version 3.11 --generate-hashes \
	--custom-compile-command 'make lock' --annotation-style line $(ARGS) pyproject.toml $(2) --output-file $(1)

# An environment that was copied or moved here belongs to another checkout, and is made anew.
ifeq ($(shell grep -sF '$(CURDIR)/.venv/bin/' .venv/bin/pip),)
.PHONY: .venv/bin/pip .venv/.runtime .venv/.dev .venv/.bench .venv/.fuzz
endif

.venv/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo 'netd: needs Python 3.11 or later, and $(PYTHON) is not: make PYTHON=python3.12' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || \
		tests/packaging/apt-install "$$($(PYTHON) -c 'import sys; print("python3.%d-venv" % sys.version_info[1])')"
	$(SAY) 'making .venv' >&2
	@$(PYTHON) -m venv --clear .venv

# A stamp for each lock file whose packages are in .venv, and this checkout with them, editable.
.venv/.runtime: requirements.lock
.venv/.dev: requirements-dev.lock
.venv/.bench: requirements-bench.lock
.venv/.fuzz: requirements-fuzz.lock
.venv/.runtime .venv/.dev .venv/.bench .venv/.fuzz: pyproject.toml twistd_plugins/netd_plugin.py | .venv/bin/pip
	$(SAY) 'installing $(filter %.lock,$^)' >&2
	@$(PIP) install --no-compile --require-hashes --requirement $(filter %.lock,$^)
	@$(PIP) install --no-index --no-deps --no-build-isolation --editable .
	@.venv/bin/twistd --help | grep '^ *netd ' >/dev/null || { echo 'netd: twistd does not find the plug-in' >&2; exit 1; }
	@touch .venv/.runtime $@

tools:
	@missing=; for tool in $(TOOLS); do \
		$(SYSTEM_PATH) command -v "$${tool%=*}" >/dev/null || [ -e "$${tool%=*}" ] || missing="$$missing $${tool#*=}"; \
	done; [ -z "$$missing" ] || tests/packaging/apt-install $$missing
