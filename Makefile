# make finetune   set up what is missing, then fine-tune the embedded model on the embedded data
# make dashboard  set up what is missing, then open the ZenML dashboard on the newest run
# make test       set up what is missing, then lint, type-check and test
# make test-long  the tests that are left out there, 20 minutes: before a release
# make test-quick likewise, without the tests that train or start a run: for a change of a line
# make test-gpu   the tests that need an NVIDIA GPU, 3 minutes on an H200
# make test-fresh make finetune and make test on a bare Debian of their own; needs root, debootstrap
# make mutants    change the code that the claims rest on in every small way; the tests must notice each
# make setup-launcher    set up what --target sagemaker needs, 51 MB; alone, on a fresh host, without PyTorch
# make setup-sagemaker   set up AWS's whole SDK too, which tests compare with, 740 MB
# make gguf-converter    set up what export.gguf needs, 77 MB fetched and 2 MB kept
# make gguf-quantiser    and what its k-quants need, 11 MB fetched by npm and 6 MB kept
# make docs     the pages as a site in site/, checked strictly; sets up what that needs, 28 MB fetched
# make image IMAGE=NAME  build the image that a ZenML stack's pods run; BUILD=cpu without CUDA; needs Docker
# make setup      only set up: .poetry (Poetry itself), .venv (everything else), models/

POETRY_VERSION := 2.5.1
MIRROR_PLUGIN_VERSION := 0.6.5
MODEL := models/SmolLM2-135M-Instruct
POETRY := .poetry/bin/poetry
# Poetry asks PyPI's JSON interface, which mirrors often lack; the plugin makes it use pip's index.
WITH_PIP_SETTINGS := tools/with_pip_settings.sh

# Scripts name the folder that they were installed in: after a move they call what is not there.
MOVED := $(shell for script in .venv/bin/zenml .poetry/bin/poetry; do \
  test ! -e $$script || head -n 3 $$script | grep -qF '$(CURDIR)/' || echo $$script; done)
ifneq ($(MOVED),)
ifeq ($(filter clean help,$(MAKECMDGOALS)),)
$(error set-up: this folder was moved or copied, and $(firstword $(MOVED)) still calls where it was: \
  run `make clean`, then this again; schedules: tools/run.py --schedules says what to do)
endif
endif

.PHONY: docs gguf-converter gguf-quantiser help image setup setup-launcher setup-sagemaker model finetune dashboard test test-quick \
  test-fresh test-gpu test-long lint types mutants clean
.DELETE_ON_ERROR:

help:
	@sed -n 's/^# make/make/p' $(MAKEFILE_LIST)

finetune: setup
	$(POETRY) run python tools/run.py --finetune

dashboard: setup
	$(POETRY) run python tools/run.py --dashboard

test: setup .venv/.sagemaker lint types
	.venv/bin/python -m pytest -n auto --dist worksteal -m "not long"

test-long: setup .venv/.sagemaker
	.venv/bin/python -m pytest -n auto --dist worksteal -m long

test-quick: setup lint types
	.venv/bin/python -m pytest -n auto --dist worksteal -m "not slow and not long"

test-gpu: setup
	.venv/bin/python -m pytest -n4 -m gpu tests/gpu

docs: .venv/.docs
	.venv/bin/mkdocs build --strict

test-fresh:
	tests/fresh_machine/run.sh --write

lint: .venv/.installed
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/lint-imports --no-logo

types: .venv/.installed
	.venv/bin/mypy

# tests/mutants/check.py says of which modules, tests/MUTANTS.md what was found.
mutants: .mutmut/.installed
	.venv/bin/python tests/mutants/check.py $(ONLY)

.mutmut/.installed: tests/mutants-requirements.txt | .venv/.installed
	@rm -rf .mutmut
	@$(WITH_PIP_SETTINGS) .venv/bin/python -m pip install --quiet --disable-pip-version-check \
	  --no-deps --target .mutmut -r tests/mutants-requirements.txt
	@touch $@

setup: .venv/.installed $(MODEL)/model.safetensors

setup-launcher: .venv/.launcher

setup-sagemaker: setup .venv/.sagemaker

model: $(MODEL)/model.safetensors

gguf-converter: .gguf-converter/convert_hf_to_gguf.py

gguf-quantiser: gguf-converter tools/get_gguf_quantiser.py
	.venv/bin/python tools/get_gguf_quantiser.py

.gguf-converter/convert_hf_to_gguf.py: tools/get_gguf_converter.py | .venv/.installed
	$(WITH_PIP_SETTINGS) .venv/bin/python tools/get_gguf_converter.py

# A problem is told in one line of make's own: nothing has been done yet that a trace could explain.
.poetry/.installed: Makefile tools/find_python.sh tools/check_host.py llm_engineering/planning/host_memory.py
	$(eval FOUND := $(shell PYTHON='$(PYTHON)' tools/find_python.sh))
	$(if $(filter set-up:,$(firstword $(FOUND))),$(error $(FOUND)))
	$(eval MISSING := $(shell '$(FOUND)' tools/check_host.py))
	$(if $(MISSING),$(error $(MISSING)))
	@'$(FOUND)' -m venv --clear .poetry
	@$(WITH_PIP_SETTINGS) .poetry/bin/python -m pip install --quiet --disable-pip-version-check \
	  poetry==$(POETRY_VERSION) poetry-plugin-pypi-mirror==$(MIRROR_PLUGIN_VERSION)
	@touch $@

.venv/.installed: .poetry/.installed pyproject.toml poetry.lock tools/install_training.py \
  tools/poetry_install.sh tools/with_pip_settings.sh \
  tools/torch-cpu-requirements.txt llm_engineering/requirements.py
	@tools/poetry_install.sh
	@$(WITH_PIP_SETTINGS) .poetry/bin/python tools/install_training.py
	@# ZenML makes its local store once, in some ten seconds: now rather than in the first run.
	@ZENML_ANALYTICS_OPT_IN=false .venv/bin/zenml stack list >/dev/null 2>&1 || \
	  echo "note: ZenML's store could not be made yet; the first run will try again"
	@touch $@

.venv/.sagemaker: .venv/.installed
	@tools/poetry_install.sh --with sagemaker
	@touch $@

.venv/.docs: .venv/.installed
	@tools/poetry_install.sh --with docs
	@touch $@

# A host that has the rest already keeps it.
.venv/.launcher: .poetry/.installed pyproject.toml poetry.lock tools/install_launcher.py \
  tools/poetry_install.sh tools/with_pip_settings.sh llm_engineering/requirements.py
	@test -e .venv/.installed || tools/poetry_install.sh --only main
	@$(WITH_PIP_SETTINGS) .poetry/bin/python tools/install_launcher.py
	@touch $@

$(MODEL)/model.safetensors: | .venv/.installed
	@$(WITH_PIP_SETTINGS) .venv/bin/python tools/make_embedded_model.py $(MODEL)

IMAGE ?= llm-engineering-finetuning
BUILD ?= cuda

image:
	docker build --build-arg BUILD=$(BUILD) --tag $(IMAGE) .

clean:
	rm -rf .poetry .venv .mypy_cache .ruff_cache .import_linter_cache .pytest_cache .mutmut mutants
