# make demo and make test need nothing but Python 3.11+ and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
VIEWER := medssl/web/vendor/niivue.umd.js
BENCHMARKS := limits views batch_views crops losses attention step finetune_step windows predict estimate loop ranks intervals serve
# The trainings of the tests are too small for a second thread; a second process halves their time.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

.PHONY: install viewer demo test test-kill test-long check audit bench hippocampus figshare alzheimer tumour_types progression clean

install: $(INSTALLED)

$(INSTALLED): setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "error: Python 3.11 or newer is needed, found %d.%d" % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt setuptools
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --editable ".[dev,onnx,web]"
	@if command -v npm >/dev/null; then $(MAKE) --silent viewer || echo "no viewer for the web page: npm could not fetch it"; fi
	@touch $@

# NiiVue for `medssl serve`, of the version and hash in the table beside it; without it the page shows slices.
viewer: $(VIEWER)

$(VIEWER): medssl/web/vendor/README.md
	npm pack --silent --pack-destination $(VENV) @niivue/niivue@$$(sed -n 's/.*WebGL 2 | \([0-9.]*\) .*/\1/p' $<)
	tar -xOf $(VENV)/niivue-niivue-*.tgz package/dist/niivue.umd.js > $(VENV)/niivue.umd.js
	$(PYTHON) -c 'import hashlib, sys; sys.exit(hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest() not in open(sys.argv[2]).read())' $(VENV)/niivue.umd.js $<
	mv $(VENV)/niivue.umd.js $@

demo: $(INSTALLED)
	$(BIN)/medssl synth runs/demo/data
	$(BIN)/medssl check runs/demo/data/split.json
	$(BIN)/python ssl_pretrain.py demo_pretrain --resume
	$(BIN)/python ssl_finetune.py demo_finetune out=runs/demo/random encoder=none --resume
	$(BIN)/python ssl_finetune.py demo_finetune out=runs/demo/pretrained encoder=runs/demo/pretrain --resume
	$(BIN)/medssl report runs/demo

test: $(INSTALLED)
	$(PYTEST)

# Every kind of network as ONNX, and what else takes minutes.
test-long: $(INSTALLED)
	$(PYTEST) -m long

# The long proof that a killed run loses nothing: kill -9 at every kind of moment, about 20 minutes on two cores.
test-kill: $(INSTALLED)
	$(PYTEST) -m kill tests/medssl/kill

check: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(PYTEST) -m 'not slow'

# Known vulnerabilities in the pinned versions; asks a service on the network, and fails where it can't.
audit: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt "$$(sed -n 's/^ *\(pip-audit.*\)/\1/p' setup.cfg)"
	$(BIN)/pip-audit --strict --no-deps --disable-pip --requirement constraints.txt

# Every benchmark beside what a user would run instead, about an hour on two quiet cores; tables and JSON in runs/bench.
bench: $(INSTALLED)
	@mkdir -p runs/bench
	@set -e; for name in $(BENCHMARKS); do echo; echo "## $$name"; \
		$(BIN)/python benchmarks/$$name.py --json runs/bench/$$name.json > runs/bench/$$name.md || { cat runs/bench/$$name.md; exit 1; }; \
		cat runs/bench/$$name.md; done

# The study of docs/results.md 1, more than two hours on two cores: make hippocampus DATA=.../Task04_Hippocampus
hippocampus: $(INSTALLED) json_splits/hippocampus.json
	$(BIN)/medssl study hippocampus --set data_root=$(abspath $(DATA)) --jobs 2

json_splits/hippocampus.json: | $(INSTALLED)
	$(BIN)/python json_splits/make_hippocampus.py $(DATA) $@

# Half an hour to an hour each on two cores: make figshare DATA=.mat-files; make alzheimer DATA="alzheimer-folder
# .mat-files"; make tumour_types DATA=.mat-files; make progression DATA=folders-of-patients
figshare: $(INSTALLED)
	$(BIN)/python benchmarks/figshare.py $(DATA) --jobs 2

alzheimer: $(INSTALLED)
	$(BIN)/python benchmarks/alzheimer.py $(DATA) --jobs 2

tumour_types: $(INSTALLED)
	$(BIN)/python benchmarks/tumour_types.py $(DATA) --jobs 2

progression: $(INSTALLED)
	$(BIN)/python benchmarks/progression.py $(DATA) --jobs 2

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache
