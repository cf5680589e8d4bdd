# Everything a newcomer needs: `make demo` shows the road, `make test` proves it. Both set up by themselves.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
EXTRAS := cpu,export,bench,rtx,train,dev
READY  := $(VENV)/.ready

.PHONY: demo measure test lint typecheck check clean help
help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

# An editable install knows the modules that were there when it was made: a new one asks for a new install.
MODULES := build/modules.txt
$(shell mkdir -p build && find avsbg model export runtime benchmarks -name '*.py' | sort > $(MODULES).new; \
    cmp -s $(MODULES).new $(MODULES) && rm $(MODULES).new || mv $(MODULES).new $(MODULES))

$(READY): $(MODULES) pyproject.toml constraints.txt CMakeLists.txt $(shell find runtime/native cmake -type f 2>/dev/null)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --disable-pip-version-check --quiet -c constraints.txt -e '.[$(EXTRAS)]'
	touch $@

# The main job on real input. Weights are random (from a seed): see the README.
DEMO := out/demo
demo: $(READY)  ## export, verify, run on a real video, compare
	$(BIN)/avsbg export avs-bg --seed 2 -o $(DEMO)/avs-bg --force
	$(BIN)/avsbg export avs-bg --seed 2 --audio embedding -o $(DEMO)/avs-bg-embedding --force
	$(BIN)/avsbg export avsbench --seed 2 --audio embedding -o $(DEMO)/avsbench-embedding --force
	$(BIN)/avsbg verify $(DEMO)/avs-bg
	$(BIN)/avsbg verify $(DEMO)/avs-bg-embedding
	$(BIN)/avsbg verify $(DEMO)/avsbench-embedding
	$(BIN)/avsbg run $(DEMO)/avs-bg "$$($(BIN)/python scripts/sample_video.py)" -o $(DEMO)/run --force
	$(BIN)/avsbg bench $(DEMO)/avs-bg-embedding $(DEMO)/avsbench-embedding --backend onnxruntime --backend torch \
	    --samples 10 --allow-unstable -o $(DEMO)/bench --force
	@echo
	@echo "Look at $(DEMO)/run/overlay.png and $(DEMO)/run/overlay.mp4; the bundles and the measured rows lie in $(DEMO)."

TABLE7 := out/table7
measure: $(READY)  ## measure the networks against each other (a quiet machine!) and renew the README's table
	$(BIN)/avsbg export avs-bg --seed 2 --audio embedding -o $(TABLE7)/avs-bg --force
	$(BIN)/avsbg export avsbench --seed 2 --audio embedding -o $(TABLE7)/avsbench --force
	$(BIN)/avsbg bench $(TABLE7)/avs-bg $(TABLE7)/avsbench --backend torch --backend onnxruntime \
	    --form published --form efficient --operator function --operator native --samples 30 -o $(TABLE7)/rows --force
	cp $(TABLE7)/rows/rows.jsonl benchmarks/results/table7.jsonl
	$(BIN)/python -m avsbg.benchmarks.readme

lint: $(READY)  ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# mypy does not follow the editable install's import hook: show it the installed layout through links.
typecheck: $(READY)  ## mypy --strict
	@mkdir -p build/typing/avsbg
	@for f in avsbg/*; do ln -sfn "$(CURDIR)/$$f" build/typing/avsbg/; done
	@for d in model export runtime benchmarks; do ln -sfn "$(CURDIR)/$$d" build/typing/avsbg/; done
	MYPYPATH=build/typing $(BIN)/mypy -p avsbg

test: $(READY)  ## the test suite
	$(BIN)/python -m pytest -m "not gpu" --durations=15

check: lint typecheck test  ## what CI runs

clean:  ## remove what the build made (not the virtual environment)
	rm -rf build out dist .pytest_cache .mypy_cache .ruff_cache
