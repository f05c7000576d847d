# Everything lives in .venv, made by whichever Python PYTHON names. `make demo` and `make test` need nothing done before.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed

# Matrices here are small: a second thread of NumPy's waits in a loop and takes its core from others.
export OPENBLAS_NUM_THREADS ?= 1

# Tests are compiled once, as the loops are, whatever the environment says.
unexport PYTHONDONTWRITEBYTECODE

# program:Debian package that brings it; what Apache Kafka (fetched by Maven), Redis 7 and foreign clients run on, then
# containers without an engine, and what fetches the schema of compose files
SERVERS := java:default-jre-headless mvn:maven redis-server:redis-server promtool:prometheus
SERVERS += node:nodejs npm:npm kcat:kcat
SERVERS += ip:iproute2 curl:curl openssl:openssl go:golang-go

# Debian packages: installed where that is allowed, else the command that is missing is named.
define get
{ if [ "$$(id -u)" = 0 ]; \
	then apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $(1); \
	else echo "something is not installed; run: sudo apt-get install -y --no-install-recommends $(1)" >&2; false; \
fi || exit 1; }
endef

# Tests that start no server: as many side by side as there are cores. Of the others two files are run side by side,
# each with servers of its own: most of their time they wait.
ALONE := not kafka and not embedded and not redis and not charts

.PHONY: install demo test prove charts quick lint bench clean servers

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Marquee needs Python 3.11 or later; set PYTHON to one" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || $(call get,python3-venv)
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[cpu,learner,demo,boards,test]'
	$(BIN)/python -m streams.lab.warm
	@touch $@

demo: install
	$(BIN)/marquee demo

test: lint servers
	$(BIN)/python -m streams.lab.warm
	REQUIRE_SERVERS=1 $(BIN)/pytest -n logical --maxprocesses 4 --dist worksteal -m '$(ALONE)'
	REQUIRE_SERVERS=1 $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder -m 'not ($(ALONE)) and not charts'

# The same scenarios at full length: outages of two minutes in every phase, 100,000 inputs for every decoder, a day of
# two hundred campaigns with workers killed and Redis restarted, containers with loops for the image's kind of CPU.
prove: install servers charts
	REQUIRE_SERVERS=1 OUTAGE_S=120 \
		$(BIN)/pytest -rP --timeout 7200 tests/connected/test_outages.py
	REQUIRE_SERVERS=1 COMPILE_LOOPS=1 $(BIN)/pytest tests/deploy/test_containers.py
	REQUIRE_SERVERS=1 EXAMPLES=100000 $(BIN)/pytest -rP --timeout 7200 -k fuzz
	REQUIRE_SERVERS=1 CAMPAIGNS=200 $(BIN)/pytest -rP --timeout 7200 tests/streams/lab/test_ad_simulation.py

# The chart, rendered for every file of values and held to the schemas of Kubernetes and of others' resources. Helm is
# built from its Go module the first time, which takes minutes and a Go of this year.
charts: install servers
	REQUIRE_SERVERS=1 $(BIN)/pytest -m charts

# On up to four cores, with fewer examples of every property: `make test` looks closer.
quick: install
	EXAMPLES=20 $(BIN)/pytest -n logical --maxprocesses 4 --dist worksteal \
		-m '$(ALONE) and not slow' -k 'not fuzz'

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: install
	$(BIN)/marquee bench ingest
	$(BIN)/marquee bench slates

# What the tests run on; a service that came with it is not left running.
servers:
	@missing=; for need in $(SERVERS); do \
		command -v $${need%%:*} >/dev/null || missing="$$missing $${need##*:}"; \
	done; \
	test -z "$$missing" || $(call get,$$missing); \
	for service in redis-server prometheus; do case "$$missing" in *$$service*) \
		test ! -d /run/systemd/system || systemctl disable --quiet --now $$service;; \
	esac; done

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache marquee-report
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
