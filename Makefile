# Everything a newcomer needs: `make demo` runs it end to end, `make test` proves it. Both set up by themselves.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
EXTRAS := cpu,openvino,export,bench,rtx,train,package,dev
READY  := $(VENV)/.ready

.PHONY: native environments demo demo-trained report table7 networks measure ladder train-small score-small measure-stream bench-smoke test-fast test lint typecheck check clean help
help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --disable-pip-version-check --quiet -c constraints.txt -e '.[$(EXTRAS)]'
	touch $@

# The native parts, for this checkout: runtime/lib. Where a compiler is missing, a record there says so.
NATIVE := runtime/lib/native.json
$(NATIVE): $(READY) CMakeLists.txt $(shell find runtime/native cmake -type f)
	PATH="$(CURDIR)/$(BIN):$$PATH" cmake -S . -B build/native -G Ninja
	$(BIN)/cmake --build build/native
	$(BIN)/cmake --install build/native --prefix .
	touch $@

native: $(NATIVE)  ## build the native parts: the operator for ONNX Runtime, the TensorRT plugin

# Programs that tests start and whose needs contradict those of the rest, each in an environment of its own. Where one
# cannot be made, its tests are skipped, which CI does not allow.
environments: .environments/triton/.ready .environments/services/.ready  ## make the environments of the servers that tests start
.environments/%/.ready: tests/environments/%.txt
	rm -rf $(@D) && $(PYTHON) -m venv $(@D)
	sed -n 's/^# install: //p' $< | xargs -t $(@D)/bin/pip install --disable-pip-version-check --quiet -c $<
	touch $@

# The main job on real input. Weights are random (from a seed): see the README.
DEMO := out/demo
demo: $(NATIVE)  ## export, verify, run on a real video, compare
	$(BIN)/avsbg export avs-bg --seed 2 -o $(DEMO)/avs-bg --overwrite
	$(BIN)/avsbg export avs-bg --seed 2 --audio embedding -o $(DEMO)/avs-bg-embedding --overwrite
	$(BIN)/avsbg export avsbench --seed 2 --audio embedding -o $(DEMO)/avsbench-embedding --overwrite
	$(BIN)/avsbg verify $(DEMO)/avs-bg
	$(BIN)/avsbg verify $(DEMO)/avs-bg-embedding
	$(BIN)/avsbg verify $(DEMO)/avsbench-embedding
	$(BIN)/avsbg run $(DEMO)/avs-bg "$$($(BIN)/python scripts/sample_video.py)" -o $(DEMO)/run --overwrite
	$(BIN)/avsbg bench run $(DEMO)/avs-bg-embedding $(DEMO)/avsbench-embedding --backend onnxruntime --backend torch \
	    --samples 10 --allow-unstable -o $(DEMO)/bench --overwrite
	@mkdir -p out; scripts/stamps_media.sh out/media > out/media.options; status=$$?; \
	if [ $$status -eq 0 ]; then $(MAKE) demo-trained; \
	elif [ $$status -eq 3 ]; then echo "NOT SHOWN: the trained network (make demo-trained), for want of its clips' media."; \
	else exit $$status; fi
	@echo
	@echo "Look at $(DEMO)/run/overlay.png and $(DEMO)/run/overlay.mp4; the bundles and the measured rows lie in $(DEMO)."

# The trained network on clips that no training saw, composed at a size that is good to look at.
SMALL := model/trained/s4-small
demo-trained: $(NATIVE)  ## the trained network on sounding stamps: which object sounds
	mkdir -p out && scripts/stamps_media.sh out/media > out/media.options
	rm -rf $(DEMO)/stamps $(DEMO)/clips
	$(BIN)/avsbg data sounding-stamps $(DEMO)/stamps --task s4 --split-sizes 1 1 6 --size 384 --seed 7 $$(cat out/media.options)
	$(BIN)/avsbg data video $(DEMO)/stamps --task s4 --split test -o $(DEMO)/clips
	$(BIN)/avsbg export $(SMALL) --audio waveform --stream -o $(DEMO)/small --overwrite
	$(BIN)/avsbg verify $(DEMO)/small
	$(BIN)/avsbg run $(DEMO)/small $(DEMO)/clips -o $(DEMO)/trained --overwrite
	$(BIN)/avsbg data show $(DEMO)/stamps --task s4 --split test --limit 6 --picture $(DEMO)/trained/truth.png
	@echo "Look at $(DEMO)/trained/*/overlay.png, and at $(DEMO)/trained/truth.png for what really sounds."

TABLE7 := out/table7
# AVS-BG and AVSBench, with PVT-v2-b5 and ResNet-50, as bundles that take audio embeddings.
NETWORKS := avs-bg avsbench avs-bg-resnet50 avsbench-resnet50
BENCH := --backend torch:published --backend torch:efficient --backend onnxruntime:native
SAMPLES := 12
# Rounds before the first that counts, and how many may follow while a row still drifts or varies.
BENCH_OPTIONS := --samples $(SAMPLES) --warmup 5 --patience 12 --interval 0.05 --budget 900 --allow-unstable --overwrite
$(TABLE7)/%/manifest.json: | $(NATIVE)
	$(BIN)/avsbg export $* --seed 2 --audio embedding -o $(TABLE7)/$* --overwrite

report: $(NATIVE) $(NETWORKS:%=$(TABLE7)/%/manifest.json)  ## export, measure and profile four networks, make the page (no GPU needed)
	$(BIN)/avsbg bench run $(NETWORKS:%=$(TABLE7)/%) $(BENCH) $(BENCH_OPTIONS) --profile \
	    -o $(TABLE7)/rows
	$(BIN)/avsbg bench report $(TABLE7)/rows -o $(TABLE7)/report --overwrite
	@echo "Look at $(TABLE7)/report/report.html."

table7: $(NATIVE) $(NETWORKS:%=$(TABLE7)/%/manifest.json)  ## the rows of make report; run again, it adds rounds to them
	$(BIN)/avsbg bench run $(NETWORKS:%=$(TABLE7)/%) $(BENCH) $(BENCH_OPTIONS:--overwrite=--resume) -o $(TABLE7)/rows
	$(BIN)/python -m tools.docs_tables --show table7 $(TABLE7)/rows/rows.jsonl

# Every network beside AVS-BG in one run, then an engine of each, which is slower; both write the same file.
networks: $(NATIVE)  ## measure all networks (a quiet machine!), build their engines, renew the tables of networks
	$(BIN)/python -m avsbg.benchmarks networks -o out/networks/rows.jsonl
	$(BIN)/python -m avsbg.benchmarks network-engines -o out/networks/rows.jsonl
	cp out/networks/rows.jsonl benchmarks/results/networks.jsonl
	$(BIN)/python -m tools.docs_tables --page README.md --page docs/networks.md

measure: report  ## make report on a quiet machine, and renew the README's table from its rows
	cp $(TABLE7)/rows/rows.jsonl benchmarks/results/table7.jsonl
	$(BIN)/python -m tools.docs_tables

# Step by step from the network as published to the fastest, in one run; with a head that is fitted, so that a reduced
# precision's masks can be held to the threshold. Another bundle: make ladder LADDER_BUNDLE=... CALIBRATION=FOLDER
LADDER := $(TABLE7)/ladder
LADDER_BUNDLE := $(TABLE7)/fitted
$(TABLE7)/fitted.safetensors: | $(NATIVE)
	mkdir -p $(@D) && $(BIN)/python -m tools.fit_head --seed 2 -o $@
$(TABLE7)/fitted/manifest.json: $(TABLE7)/fitted.safetensors
	$(BIN)/avsbg export avs-bg --checkpoint $< --audio embedding -o $(@D) --overwrite
CALIBRATION := vectors
STEPS := torch:published torch:efficient torch:bf16 onnxruntime:plain onnxruntime:function onnxruntime:native \
    openvino openvino:bf16 openvino:int8 openvino:rest-bf16:int8
$(LADDER_BUNDLE)/clip.int8.onnx: $(LADDER_BUNDLE)/manifest.json
	$(BIN)/avsbg quantize $(LADDER_BUNDLE) --precision int8 --calibrate $(CALIBRATION) --min-miou 0.99

ladder: $(NATIVE) $(LADDER_BUNDLE)/clip.int8.onnx  ## measure each step of docs/speed.md
	$(BIN)/avsbg bench run $(LADDER_BUNDLE) $(STEPS:%=--backend %) $(BENCH_OPTIONS) -o $(LADDER)
	$(BIN)/python -m tools.docs_tables --show speed $(LADDER)/rows.jsonl

# The small network as it was trained, and its ablations; then, once its weights are committed, its scores with every
# backend and precision: rows name a commit. Both need the media of sounding stamps; EFFICIENTNET is the file of docs/training.md.
TRAIN := out/train
train-small: $(NATIVE)  ## train and ablate the small network; renew its weights and its table (hours)
	test -f "$(EFFICIENTNET)" || { echo "give EFFICIENTNET=FILE: docs/training.md says where it comes from"; exit 2; }
	mkdir -p out && scripts/stamps_media.sh out/media > out/media.options
	test -d $(TRAIN)/160 || $(BIN)/avsbg data sounding-stamps $(TRAIN)/160 --task s4 --split-sizes 2400 100 200 --size 160 $$(cat out/media.options)
	test -d $(TRAIN)/96 || $(BIN)/avsbg data sounding-stamps $(TRAIN)/96 --task s4 --split-sizes 2400 100 200 --size 96 $$(cat out/media.options)
	test -d $(TRAIN)/anew || $(BIN)/avsbg data sounding-stamps $(TRAIN)/anew --task s4 --split-sizes 1 1 200 --size 160 --seed 1 $$(cat out/media.options)
	$(BIN)/python -m tools.ablations --data $(TRAIN)/160 -o $(TRAIN)/small --encoder-weights $(EFFICIENTNET) \
	    --seed 0 --only full --only without-audio --also $(TRAIN)/anew
	$(BIN)/python -m tools.ablations --data $(TRAIN)/96 -o $(TRAIN)/ablations --encoder-weights $(EFFICIENTNET) \
	    --epochs 3
	$(BIN)/python -m tools.docs_tables --show ablations $(TRAIN)/ablations/rows.jsonl
	rm -rf $(SMALL).new && $(BIN)/python scripts/keep_trained.py $(TRAIN)/small/full-0 $(SMALL).new
	mv $(SMALL).new/* $(SMALL)/ && rmdir $(SMALL).new
	cp $(TRAIN)/small/rows.jsonl benchmarks/results/small.jsonl
	$(BIN)/python -m tools.docs_tables --page docs/training.md --page $(SMALL)/README.md
	@echo "Commit the weights, then score them: make score-small"

score-small: $(NATIVE)  ## score the kept small network through every backend, precision and stream
	$(BIN)/avsbg export $(SMALL) --audio log-mel --stream -o $(TRAIN)/bundle --overwrite
	$(BIN)/avsbg quantize $(TRAIN)/bundle --precision fp16 --accuracy $(TRAIN)/160:s4:val
	$(BIN)/avsbg quantize $(TRAIN)/bundle --precision int8 --calibrate $(TRAIN)/160:s4:val
	$(BIN)/python -m tools.accuracy $(TRAIN)/bundle --data $(TRAIN)/160 --task s4 \
	    -o benchmarks/results/accuracy.jsonl
	$(BIN)/python -m tools.docs_tables --page docs/training.md

STREAM := out/stream
measure-stream: $(NATIVE)  ## measure streaming (a quiet machine!) and renew docs/streaming.md
	$(BIN)/avsbg export avs-bg --seed 2 --stream -o $(STREAM)/avs-bg --overwrite
	$(BIN)/avsbg export avs-bg --seed 2 --stream --encoder pvt_v2_b0 --size 64 -o $(STREAM)/tiny --overwrite
	$(BIN)/avsbg bench stream $(STREAM)/avs-bg --backend onnxruntime:native --rows $(STREAM)/rows.jsonl --overwrite
	$(BIN)/avsbg bench stream $(STREAM)/tiny --backend onnxruntime:native --soak 3600 --rows $(STREAM)/rows.jsonl --append
	cp $(STREAM)/rows.jsonl benchmarks/results/streaming.jsonl
	$(BIN)/python -m tools.docs_tables --page docs/streaming.md

lint: $(READY)  ## ruff, and that the tables of README and docs are those of the committed rows
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m tools.docs_tables --check

typecheck: $(READY)  ## mypy --strict
	$(BIN)/mypy -p avsbg -p tools

# Files of tests are spread over two processes, the slowest first; threads of both together would be too many for two cores.
TESTS := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder
test-fast: $(NATIVE)  ## every verb once, and all tests that take a moment: two minutes
	$(TESTS) -m "not (gpu or slow or native or engine)"

test: $(NATIVE)  ## the test suite
	$(MAKE) -k environments || echo "NOT MADE: an environment that tests start servers in; they are skipped."
	$(TESTS) -m "not gpu" --durations=15

bench-smoke: $(NATIVE)  ## counts (nodes, operations, bytes, instructions) against the committed ones; needs valgrind
	$(BIN)/python -m avsbg.benchmarks counts

check: lint typecheck test bench-smoke  ## what CI runs

clean:  ## remove what the build made (not the virtual environment)
	rm -rf build out dist .pytest_cache .mypy_cache .ruff_cache
