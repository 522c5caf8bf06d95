# Everything a fresh machine needs: Python 3.11 or newer with pip and venv, and make.
PYTHON ?= python3
VENV ?= .venv
BENCH_VENV ?= .venv-bench
# Optional folder with benchmark data (posteriordb, binarised MNIST, ...); tests that need it are skipped without it.
JENSEN_DATA ?= $(wildcard ../shared/data)
export JENSEN_DATA
BIN = $(VENV)/bin
# Not another worker for one that crashed: pytest-xdist 3.8 then waits for ever at the end (its issue 1323)
PYTEST = $(BIN)/python -m pytest -n 2 --dist loadgroup --max-worker-restart 0
ROUNDS ?= 5
SEEDS ?= 0 1 2
# bench-posteriors and bench-starved: the I-th of N parts, I/N
SHARD ?= 1/1

.PHONY: help demo test test-all lint types docs bench bench-posteriors bench-starved bench-constrained bench-peers bench-scaling clean

help:
	@echo "make demo              fit two models on real data and write their reports (creates $(VENV))"
	@echo "make test              all tests, the slow statistical ones sampled"
	@echo "make test-all          all tests, complete"
	@echo "make lint types        ruff and pyright"
	@echo "make docs              regenerate docs/validity.md, methods.md, checks.md, and the list of cells that tests cover"
	@echo "make bench             speed against other libraries (creates $(BENCH_VENV))"
	@echo "make bench-posteriors  quality on 287 posteriors (posteriordb's with JENSEN_DATA), beside NUTS; SHARD=1/4: a part"
	@echo "make bench-starved     the same at budgets too small for most: is any failure silent?"
	@echo "make bench-constrained of these, sixty whose means and sds are known exactly in the user's coordinates"
	@echo "make bench-peers       the same posteriors beside other libraries: speed and quality (creates $(BENCH_VENV))"
	@echo "make bench-scaling     time and memory against dimension, with docs/images/scaling.png"

$(VENV)/.ready: requirements-dev.txt requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

demo: $(VENV)/.ready
	$(BIN)/python examples/demo.py

test: $(VENV)/.ready
	$(BIN)/ruff check src tests benchmarks examples
	$(PYTEST)

test-all: $(VENV)/.ready
	$(PYTEST) --all

lint: $(VENV)/.ready
	$(BIN)/ruff check src tests benchmarks examples
	$(BIN)/ruff format --check src tests benchmarks examples

types: $(VENV)/.ready
	$(BIN)/pyright

docs: $(VENV)/.ready
	$(BIN)/python -m jensen.cells > docs/validity.md
	$(BIN)/python -m jensen.methods.page > docs/methods.md
	$(BIN)/python -m jensen.diagnostics.checks > docs/checks.md
	$(BIN)/python tests/conformance/cover.py

$(BENCH_VENV)/.ready: requirements-bench.txt requirements.txt
	$(PYTHON) -m venv $(BENCH_VENV)
	$(BENCH_VENV)/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BENCH_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-bench.txt
	$(BENCH_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BENCH_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

bench: $(BENCH_VENV)/.ready
	$(BENCH_VENV)/bin/python -m benchmarks.run logistic vae belief_net flows vcd uivi rbm --rounds $(ROUNDS) --out benchmarks/results/speed.jsonl \
		$(if $(JENSEN_DATA),--data $(JENSEN_DATA))

bench-posteriors: $(VENV)/.ready
	$(BIN)/python -m benchmarks.posteriors.run --fresh --seeds $(SEEDS) --out benchmarks/results/posteriors.jsonl \
		--beside nuts --shard $(SHARD) $(if $(JENSEN_DATA),--root $(JENSEN_DATA))

bench-starved: $(VENV)/.ready
	$(BIN)/python -m benchmarks.posteriors.run --once --starved --seeds $(SEEDS) --shard $(SHARD) \
		--out benchmarks/results/starved.jsonl $(if $(JENSEN_DATA),--root $(JENSEN_DATA))

bench-constrained: $(VENV)/.ready
	$(BIN)/python -m benchmarks.posteriors.run --once --group constrained --seeds $(SEEDS) \
		--out benchmarks/results/constrained.jsonl

bench-peers: $(BENCH_VENV)/.ready
	$(BENCH_VENV)/bin/python -m benchmarks.posteriors.peers --out benchmarks/results/peers.jsonl \
		$(if $(JENSEN_DATA),--root $(JENSEN_DATA))

bench-scaling: $(VENV)/.ready
	$(BIN)/python -m benchmarks.scaling --out benchmarks/results/scaling.jsonl
	$(BIN)/python -m benchmarks.scaling --plot benchmarks/results/scaling.jsonl

clean:
	rm -rf $(VENV) $(BENCH_VENV) demo-out
