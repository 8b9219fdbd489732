# The commands that people use. `make` alone lists them.

.DEFAULT_GOAL := help
VENV := .venv
BIN := $(VENV)/bin
MANAGE := $(BIN)/python manage.py
# Prints each package as it is collected, because the whole takes a minute; pip's full output only if it fails.
define INSTALL
@echo "Installing $<"
@{ $(BIN)/python -m pip install --disable-pip-version-check --progress-bar off -r $< 2>&1 || echo FAILED; } | \
	tee $(VENV)/install.log | awk '/^Collecting/ { printf "  %s\n", $$2; fflush() } \
	/^Installing collected/ { print "  (unpacking)"; fflush() } /^FAILED$$/ { failed = 1 } END { exit failed }' || \
	{ cat $(VENV)/install.log >&2; exit 1; }
endef
UV_COMPILE := $(BIN)/uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --no-config \
	--no-emit-index-url --no-emit-find-links --generate-hashes --no-strip-extras --custom-compile-command "make requirements"
CODE := alerts common devices edge_agent exports ingest ingestcloud insights tenants
ARGS ?=
# Tests mostly wait. Each worker has its own servers, or one of those in REDIS_URL.
comma := ,
TEST_WORKERS := --dist worksteal --numprocesses $(if $(DATABASE_URL),$(words $(subst $(comma), ,$(REDIS_URL))),4)
ROUNDS ?= 200
FUZZ ?= 20
PORT ?= 8000
export PORT

# The environment for the checks, in place of this machine's and .env.
CHECK_ENV := env SECRET_KEY=only-for-checks-0123456789-abcdefghijklmnopqrstuvwxyz-ABCDEFGHIJ ALLOWED_HOSTS=example.org \
	DEBUG=false HTTPS=true DATABASE_URL=sqlite://:memory: REDIS_URL= WEB_CONCURRENCY=1 \
	DEMO_DEVICE_KEY= DEMO_ADMIN_PASSWORD=

.PHONY: help
help: ## list these commands
	@sed -n 's/^\([a-z]*\):.*## /  make \1	/p' $(MAKEFILE_LIST) | expand -t 22

.PHONY: run
run: export WEB_CONCURRENCY := 1
run: free-port $(VENV)/.demo ## set up whatever is missing and serve a demo on http://127.0.0.1:8000 (PORT=…)
	@$(BIN)/python ingestcloud/write_env.py
	@$(MANAGE) migrate --verbosity 0
	@$(MAKE) --no-print-directory staticfiles/staticfiles.json
	@$(MANAGE) setup_demo --port $(PORT)
	@HOST=127.0.0.1 exec $(BIN)/python -m ingestcloud.server --access-log

.PHONY: free-port
free-port: | $(VENV)/.made
	@$(BIN)/python ingestcloud/check_port.py $(PORT)

.PHONY: serve
serve: $(VENV)/.runtime ## the production server, from the environment (docs/operations.md)
	@$(MANAGE) check --deploy --fail-level ERROR
	@$(MANAGE) migrate --check || { echo "Not started: the database does not answer, or it lacks the migrations \
	named above. Apply them with: $(MANAGE) migrate" >&2; exit 1; }
	@$(MAKE) --no-print-directory staticfiles/staticfiles.json
	@exec $(BIN)/python -m ingestcloud.server

.PHONY: test
test: $(VENV)/.dev ## all tests, on PostgreSQL and Redis, then embedded; or on DATABASE_URL and REDIS_URL (ARGS=…)
	TEST_STACK=servers $(BIN)/python -m pytest $(TEST_WORKERS) $(ARGS)
	@if [ -n "$$DATABASE_URL" ] && [ -n "$$REDIS_URL" ]; then exit; fi; set -x; \
		TEST_STACK=embedded $(BIN)/python -m pytest $(TEST_WORKERS) -m "not once" $(ARGS)

.PHONY: quick
quick: $(VENV)/.dev ## the tests that need no server and no browser, in half a minute (ARGS=…)
	TEST_STACK=embedded $(BIN)/python -m pytest --numprocesses 3 --dist worksteal --quiet \
		-m "not server and not browser and not outage and not real_client and not exhaustive and not slow" $(ARGS)

.PHONY: coverage
coverage: $(VENV)/.dev ## all tests, then the lines of our code that no test runs
	$(BIN)/coverage erase
	TEST_STACK=servers $(BIN)/python -m pytest $(TEST_WORKERS) --cov --cov-report= $(ARGS)
	TEST_STACK=embedded $(BIN)/python -m pytest $(TEST_WORKERS) -m "not once" --cov --cov-append --cov-report= $(ARGS)
	$(BIN)/coverage report

.PHONY: torture
torture: $(VENV)/.dev ## kill processes and cut connections under load, and check that nothing is lost (ROUNDS=…)
	$(BIN)/python -m tools.torture $(ROUNDS)

.PHONY: fuzz
fuzz: $(VENV)/.dev ## the hypothesis and schemathesis tests, with many more examples (FUZZ=…)
	FUZZ=$(FUZZ) $(BIN)/python -m pytest tests/test_decoder.py tests/test_openapi.py $(ARGS)

.PHONY: lint
lint: $(VENV)/.dev ## formatting, lint, types, templates, security, migrations, deployment
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	@$(CHECK_ENV) $(BIN)/mypy $(CODE)
	@if [ -x $(BIN)/biome ]; then $(BIN)/biome check --error-on-warnings .; \
		else echo "JavaScript and CSS are not checked: Biome's wheel is only for Linux on x86-64"; fi
	$(BIN)/djlint --quiet --lint templates alerts/templates
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive --severity-level medium $(CODE)  # ruff covers the low ones
	@$(CHECK_ENV) $(MANAGE) makemigrations --check --dry-run
	@$(CHECK_ENV) $(MANAGE) check --deploy --fail-level WARNING

.PHONY: audit
audit: $(VENV)/.dev ## check the pinned packages for known vulnerabilities
	$(BIN)/python -m tools.audit

.PHONY: check
check: lint audit test ## everything that must pass

.PHONY: bench
bench: $(VENV)/.dev staticfiles/staticfiles.json ## run the benchmarks and print their ratios (ARGS=…)
	$(BIN)/python -m benchmarks $(ARGS)

.PHONY: requirements
requirements: $(VENV)/.dev ## compile the pinned requirements from pyproject.toml
	$(UV_COMPILE) --output-file requirements.txt
	$(UV_COMPILE) --extra demo --constraints requirements.txt --output-file requirements-demo.txt
	$(UV_COMPILE) --extra demo --extra dev --constraints requirements-demo.txt --output-file requirements-dev.txt

# Compressing takes about ten seconds, so it is done only if a file or a package may have changed.
staticfiles/staticfiles.json: $(VENV)/.runtime $(shell find $(CODE) -path '*/static/*' -type f)
	@echo "Collecting static files"
	@$(MANAGE) collectstatic --noinput --verbosity 0
	@touch $@

# Empty files in .venv record what was done; make compares their ages.
$(VENV)/.made:
	@for python in $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11); do \
		"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
		"$$python" -c 'import ensurepip, venv' 2>/dev/null || { echo "$$python has no venv module. Install it; \
	on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }; \
		echo "Making $(VENV) with $$("$$python" --version)"; \
		"$$python" -m venv $(VENV) && touch $@; exit; \
	done; \
	echo "IngestCloud needs Python 3.11 or newer, and $(or $(PYTHON),python3) is not. Install one, \
	or name it: make run PYTHON=/path/to/python3" >&2; exit 1

$(VENV)/.runtime: requirements.txt | $(VENV)/.made
	$(INSTALL)
	@touch $@

$(VENV)/.demo: requirements-demo.txt | $(VENV)/.made
	$(INSTALL)
	@touch $@ $(VENV)/.runtime

$(VENV)/.dev: requirements-dev.txt | $(VENV)/.made
	$(INSTALL)
	@touch $@
