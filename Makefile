# Everything a newcomer needs: `make demo` runs it end to end, `make test` proves it. Both set up by themselves.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
EXTRAS := cpu,openvino,export,bench,rtx,train,package,docs,dev
READY  := $(VENV)/.ready
TORCH  := $(shell grep '^torch==' constraints.txt)
# Modules are compiled when they are first imported, which most never are.
INSTALL := install --disable-pip-version-check --quiet --no-compile

.PHONY: wheel cuda native environments possible-environments demo report table7 networks measure ladder train-small score-small measure-stream bench-smoke test-fast demo-scenes picture docs test lint typecheck check clean help
help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

$(READY): pyproject.toml constraints.txt
	@echo "Set-up: a virtual environment in $(VENV), once. It downloads about 3 GB of Python packages, most of it PyTorch,"
	@echo "whose build for Linux in the package index brings CUDA's libraries; a build for the CPU alone is taken where the"
	@echo "index has one and there is no NVIDIA driver here."
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@command -v nvidia-smi > /dev/null || $(BIN)/pip $(INSTALL) $(TORCH)+cpu 2> /dev/null \
	    || echo "The index has no $(TORCH)+cpu."
	$(BIN)/pip $(INSTALL) -c constraints.txt -e '.[$(EXTRAS)]'
	touch $@

# The system's nvcc, or the one that `make cuda` fetches; tests and builds find both on PATH.
NVCC := $(shell command -v "$${CUDACXX:-nvcc}" || ls /usr/local/cuda/bin/nvcc 2> /dev/null)
CUDA := .environments/cuda
export PATH := $(PATH):$(if $(NVCC),$(dir $(NVCC)),$(CURDIR)/$(CUDA)/bin)
cuda: $(if $(NVCC),,$(CUDA)/.ready)  ## fetch nvcc, which compiles the kernels, where no CUDA toolkit is installed (320 MB on disk)
	@nvcc --version | sed -n 's/.*release/nvcc/p'
$(CUDA)/.ready: scripts/cuda-toolkit.sh | $(READY)
	$< $(@D)
	touch $@

# The native parts, for this checkout: runtime/lib. Where a compiler is missing, a record there says so.
NATIVE := runtime/lib/native.json
$(NATIVE): $(READY) CMakeLists.txt $(shell find runtime/native cmake -type f) $(wildcard $(CUDA)/.ready)
	PATH="$(CURDIR)/$(BIN):$$PATH" cmake -S . -B build/native -G Ninja
	$(BIN)/cmake --build build/native
	$(BIN)/cmake --install build/native --prefix .
	touch $@

wheel:  ## a wheel and an sdist in dist/, looked at by auditwheel and tried in an empty environment
	rm -rf dist build/wheel && $(PYTHON) -m venv build/wheel
	build/wheel/bin/pip $(INSTALL) auditwheel build
	build/wheel/bin/python -m build --sdist --wheel -o dist .
	build/wheel/bin/auditwheel show dist/avsbg-*.whl
	build/wheel/bin/pip $(INSTALL) "$$(echo dist/avsbg-*.whl)[cpu]"
	cd build && env -u PYTHONPATH wheel/bin/avsbg doctor

native: $(NATIVE)  ## build the native parts: the operator for ONNX Runtime, the TensorRT plugin

# Programs that tests start and whose needs contradict those of the rest, each in an environment of its own. Where one
# cannot be made, its tests are skipped, which CI does not allow of all.
possible-environments: $(READY)
	$(MAKE) -k environments || echo "NOT MADE: an environment that tests start servers in; they are skipped."
environments: .environments/triton/.ready .environments/services/.ready .environments/aarch64/.ready  ## make the environments of servers that tests start, and for aarch64
.environments/%/.ready: tests/environments/%.txt pyproject.toml
	rm -rf $(@D) && $(PYTHON) -m venv $(@D)
	sed -n 's/^# install: //p' $< | xargs -t $(@D)/bin/pip $(INSTALL) -c $<
	touch $@
.environments/aarch64/.ready: scripts/aarch64-root.sh $(READY)
	$< $(@D)
	touch $@

# The pretrained small network on real photographs with real sounds; the clip is described in NOTICE and tools/demo_clip.py.
DEMO := out/demo
SMALL := model/trained/s4-small
CLIP := docs/media/three-voices.mp4
step = @printf '\n== make demo, step $(1) of 5: $(2)\n'
demo: $(NATIVE)  ## the pretrained network finds what sounds: export, verify, run, time against PyTorch (3 minutes)
	$(call step,1,export the pretrained network to ONNX (about 40 s))
	$(BIN)/avsbg export $(SMALL) --audio waveform --stream -o $(DEMO)/small --overwrite
	$(call step,2,verify it: every graph against the outputs of PyTorch)
	$(BIN)/avsbg verify $(DEMO)/small
	$(call step,3,segment a clip in which a rooster then an elephant then a fire engine sounds)
	$(BIN)/avsbg run $(DEMO)/small $(CLIP) -o $(DEMO)/run --overwrite
	$(call step,4,segment scenes that the network was not trained on)
	@mkdir -p out; scripts/stamps_media.sh out/media > out/media.options; status=$$?; \
	if [ $$status -eq 0 ]; then $(MAKE) --no-print-directory demo-scenes; \
	elif [ $$status -eq 3 ]; then echo "Left out: the photos and recordings that they are composed of are not available."; \
	else exit $$status; fi
	$(call step,5,time it against PyTorch)
	$(BIN)/avsbg bench run $(DEMO)/small --scope end-to-end --video $(CLIP) --backend torch --backend onnxruntime \
	    --samples 10 --allow-unstable -o $(DEMO)/bench --overwrite
	@printf '\nLook at $(DEMO)/run/overlay.mp4, with its sound, and at $(DEMO)/run/overlay.png.\n'
	@test ! -d $(DEMO)/scenes || echo "More: $(DEMO)/scenes/*/overlay.png; $(DEMO)/scenes/truth.png outlines what really sounds."

# Scenes composed at a size that is good to look at.
demo-scenes:
	rm -rf $(DEMO)/stamps $(DEMO)/clips
	$(BIN)/avsbg data sounding-stamps $(DEMO)/stamps --task s4 --split-sizes 1 1 6 --size 384 --seed 7 $$(cat out/media.options)
	$(BIN)/avsbg data video $(DEMO)/stamps --task s4 --split test -o $(DEMO)/clips
	$(BIN)/avsbg run $(DEMO)/small $(DEMO)/clips -o $(DEMO)/scenes --overwrite
	$(BIN)/avsbg data show $(DEMO)/stamps --task s4 --split test --limit 6 --picture $(DEMO)/scenes/truth.png

# The moving picture of the README, from a run of the demo.
picture:
	$(BIN)/python -m tools.demo_clip picture $(DEMO)/run $(CLIP:.mp4=.png)

TABLE7 := out/table7
# AVS-BG and AVSBench, with PVT-v2-b5 and ResNet-50, as bundles that take audio embeddings.
NETWORKS := avs-bg avsbench avs-bg-resnet50 avsbench-resnet50
BENCH := --backend torch:published --backend torch:efficient --backend onnxruntime:native
SAMPLES := 12
# Rounds before the first that counts, and how many may follow while a row still drifts or varies.
BENCH_OPTIONS := --samples $(SAMPLES) --warmup 5 --extra-rounds 12 --interval 0.05 --budget 900 --allow-unstable --overwrite
$(TABLE7)/%/manifest.json: | $(NATIVE)
	$(BIN)/avsbg export $* --seed 2 --audio embedding -o $(TABLE7)/$* --overwrite

report: $(NATIVE) $(NETWORKS:%=$(TABLE7)/%/manifest.json)  ## export, measure and profile four networks, make the page (no GPU needed)
	$(BIN)/avsbg bench run $(NETWORKS:%=$(TABLE7)/%) $(BENCH) $(BENCH_OPTIONS) --profile \
	    -o $(TABLE7)/rows
	$(BIN)/avsbg bench report $(TABLE7)/rows -o $(TABLE7)/report --overwrite
	@echo "Look at $(TABLE7)/report/report.html."

table7: $(NATIVE)  ## AVS-BG against AVSBench at full size, PyTorch and ONNX Runtime (20 minutes); run again, it adds rounds
	@n=0; for network in $(NETWORKS); do n=$$((n + 1)); \
	    printf '\n== make table7, step %s of 5: export %s (2 minutes)\n' $$n $$network; \
	    $(MAKE) --no-print-directory $(TABLE7)/$$network/manifest.json || exit; done
	@printf '\n== make table7, step 5 of 5: measure (10 minutes)\n'
	$(BIN)/avsbg bench run $(NETWORKS:%=$(TABLE7)/%) $(BENCH) $(BENCH_OPTIONS:--overwrite=--resume) -o $(TABLE7)/rows
	$(BIN)/python -m tools.docs_tables --show table7 $(TABLE7)/rows/rows.jsonl

# Every network beside AVS-BG in one run, then an engine of each, which is slower; both write the same file.
networks: $(NATIVE)  ## measure all networks (a quiet machine!), build their engines, renew the tables of networks
	$(BIN)/python -m avsbg.benchmarks networks -o out/networks/rows.jsonl
	$(BIN)/python -m avsbg.benchmarks network-engines -o out/networks/rows.jsonl
	cp out/networks/rows.jsonl benchmarks/results/networks.jsonl
	$(BIN)/python -m tools.docs_tables --page README.md --page docs/networks.md --page docs/speed.md

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
	$(BIN)/python -m tools.docs_tables --page docs/accuracy.md --page $(SMALL)/README.md
	@echo "Commit the weights, then score them: make score-small"

score-small: $(NATIVE)  ## score the kept small network through every backend, precision and stream
	$(BIN)/avsbg export $(SMALL) --audio log-mel --stream -o $(TRAIN)/bundle --overwrite
	$(BIN)/avsbg quantize $(TRAIN)/bundle --precision fp16 --accuracy $(TRAIN)/160:s4:val
	$(BIN)/avsbg quantize $(TRAIN)/bundle --precision int8 --calibrate $(TRAIN)/160:s4:val
	$(BIN)/python -m tools.accuracy $(TRAIN)/bundle --data $(TRAIN)/160 --task s4 \
	    -o benchmarks/results/accuracy.jsonl
	$(BIN)/python -m tools.docs_tables --page docs/accuracy.md

STREAM := out/stream
RATES := --fps 1 --fps 5 --fps 10 --fps max --duration 20
measure-stream: $(NATIVE)  ## measure streaming (a quiet machine!) and renew docs/speed-streams.md (20 minutes)
	$(BIN)/avsbg export avs-bg --seed 2 --stream -o $(STREAM)/avs-bg --overwrite
	$(BIN)/avsbg export $(SMALL) --audio waveform --stream -o $(STREAM)/small --overwrite
	$(BIN)/avsbg export avs-bg --seed 2 --stream --encoder pvt_v2_b0 --size 64 -o $(STREAM)/tiny --overwrite
	rm -f $(STREAM)/rows.jsonl
	for network in avs-bg small; do for backend in onnxruntime:native openvino; do \
	    $(BIN)/avsbg bench stream $(STREAM)/$$network --backend $$backend $(RATES) --rows $(STREAM)/rows.jsonl --append \
	    || exit; done; done
	$(BIN)/avsbg bench stream $(STREAM)/tiny --backend onnxruntime:native --soak 3600 --rows $(STREAM)/rows.jsonl --append
	$(BIN)/python -m tools.stream_profile $(STREAM)/avs-bg $(STREAM)/small
	cp $(STREAM)/rows.jsonl benchmarks/results/streaming.jsonl
	$(BIN)/python -m tools.docs_tables --page docs/speed-streams.md

lint: $(READY)  ## ruff, that tables of README and docs are those of the committed rows, and that the site's links lead somewhere
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m tools.docs_tables --check
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

docs: $(READY)  ## the documentation as a site in build/site; a broken link is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build
	@echo "Look at build/site/index.html."

typecheck: $(READY)  ## mypy --strict
	$(BIN)/mypy -p avsbg -p tools

# Files of tests are spread over two processes, the slowest first; threads of both together would be too many for two cores.
TESTS := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder
test-fast: $(NATIVE)  ## every verb once, and all tests that take a moment: two minutes
	$(TESTS) -m "not (gpu or slow or native or engine)"

test: $(NATIVE) possible-environments  ## the test suite
	$(TESTS) -m "not gpu" --durations=15

bench-smoke: $(NATIVE)  ## counts (nodes, operations, bytes, instructions) against the committed ones; needs valgrind
	$(BIN)/python -m avsbg.benchmarks counts $(COUNTS)

check: lint typecheck test bench-smoke  ## what CI runs

clean:  ## remove what the build made (not the virtual environment)
	rm -rf build out dist .pytest_cache .mypy_cache .ruff_cache
