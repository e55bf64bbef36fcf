# femur3d: `make` prints what there is. Every target sets up what it needs, a virtual environment in .venv included.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
DATASET ?= data/phantom
RUN ?= runs/$(notdir $(basename $(EXPERIMENT)))
# A folder with a trained model; empty: the one that comes with femur3d
MODEL ?=
SCAN ?= $(DATASET)/imagesTr
OUT ?= out
REFERENCES ?= $(DATASET)/labelsTr
EXPERIMENT ?= experiments/hip_t1.py
# Settings of an experiment, e.g. SET="training.steps=500 network.initialisation=he"
SET ?=
# Of the ablation: where the transfer arm's encoder starts, and trainings an arm.
WEIGHTS ?= data/c3d_encoder.h5
SEEDS ?= 3
# Filters of the surrogate as a part of C3D's
WIDTH ?= 0.25
# Further flags of femur3d.infer, e.g. FLAGS="--fast --surface stl"
FLAGS ?=
LOGDIR ?= runs
# Tests that run side by side, with one thread each
WORKERS ?= 2
# The clone on Python's path: otherwise, in the folder above, a clone called femur3d is taken for the package.
EDITABLE = --config-settings editable_mode=compat
SETTINGS = $(foreach s,$(SET),--set '$(s)')

# Whether SCAN= was given
OWN_SCAN = $(filter command environment,$(word 1,$(origin SCAN)))

BIN := .venv/bin
READY := .venv/ready

.PHONY: help setup test test-all coverage lint demo phantom c3d train-transfer train-scratch train-hip finetune cross-validate quality surrogate ablation infer evaluate tensorboard bench docs clean

help:  ## print this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):[^#]*## (.*)/  make \1|\2/' | column -t -s '|'
	@echo
	@echo '  Variables: DATASET=$(DATASET) RUN=runs/NAME SCAN=PATH OUT=$(OUT) FLAGS="--fast ..." SET="section.field=value ..."'
	@echo '             LOGDIR=$(LOGDIR) WORKERS=$(WORKERS) PYTHON=$(PYTHON)'

setup: $(READY)  ## make the virtual environment .venv and install femur3d with its tools

$(READY): setup.py pyproject.toml
	@$(PYTHON) -c 'import sys; ok = (3, 11) <= sys.version_info[:2] <= (3, 13); sys.exit(not ok and f"femur3d needs Python 3.11 to 3.13, {sys.executable} is {sys.version.split()[0]}.\nName another one: make PYTHON=python3.12 ...")'
	@echo 'Setting up .venv (a few minutes, once) ...'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]' $(EDITABLE)
	@touch $@

test: $(READY)  ## run the tests, but for the slow ones
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m 'not slow'

test-all: $(READY)  ## run all tests, those of whole studies, benchmarks and killed processes included
	@$(BIN)/python -m pytest -n $(WORKERS)

coverage: $(READY)  ## run the tests as `make test` does, and print which lines of femur3d/ they miss
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m 'not slow' --cov=femur3d --cov-report=term-missing:skip-covered

lint: $(READY)  ## ruff (rules and format) and mypy
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

demo: $(READY)  ## phantoms, training, segmentation, evaluation, picture: the whole path; then the shipped model; SCAN=
	@rm -rf demo
	@echo '1/6  Synthetic hip scans: 7 to train on, 1 to validate, 2 that the network never sees'
	@$(BIN)/python tools/make_phantom.py -o demo/data --cases 8 --val_cases 1 --size 110,85,90
	@$(BIN)/python tools/make_phantom.py -o demo/unseen --cases 2 --val_cases 1 --seed 1000 --size 110,85,90
	@echo '2/6  Packing'
	@$(BIN)/python -m femur3d.pack --experiment experiments/demo.py --dataset demo/data -o demo/packed.h5
	@echo '3/6  Training'
	@$(BIN)/python -m femur3d.train --experiment experiments/demo.py --dataset demo/packed.h5 --run demo/run
	@echo '4/6  Segmenting the unseen scans'
	@$(BIN)/python -m femur3d.infer -i demo/unseen/imagesTr -o demo/out --model demo/run/model
	@echo '5/6  Evaluating'
	@$(BIN)/python -m femur3d.evaluate --predictions demo/out --references demo/unseen/labelsTr \
	  -o demo/evaluation --images demo/unseen/imagesTr
	@echo 'Contours over slices: demo/evaluation/phantom_000.png'
	@echo '6/6  The model that comes with femur3d, made for coronal T1 scans, on two synthetic ones$(if $(OWN_SCAN), and on $(SCAN))'
	@$(BIN)/python tools/make_phantom.py -o demo/coronal --cases 2 --val_cases 1 --side both --size 200,33,90 --seed 2000
	@$(BIN)/python -m femur3d.infer -i demo/coronal/imagesTr $(if $(OWN_SCAN),'$(SCAN)') -o demo/shipped --preview
	@$(BIN)/python -m femur3d.evaluate --predictions demo/shipped --references demo/coronal/labelsTr -o demo/shipped/evaluation
	@echo 'Pictures: demo/shipped/*_preview.png'

phantom: $(READY)  ## write 20 synthetic hip scans with exact labels to data/phantom
	@$(BIN)/python tools/make_phantom.py -o data/phantom --cases 20 --seed 0

c3d: $(READY)  ## download C3D's weights (320 MB, CC BY-NC 3.0) and port them into data/c3d_encoder.h5
	@$(BIN)/python tools/fetch_c3d.py -o data/conv3d_deepnetA_sport1m_iter_1900000
	@$(BIN)/python tools/port_c3d.py --weights data/conv3d_deepnetA_sport1m_iter_1900000 -o data/c3d_encoder.h5

train-transfer: EXPERIMENT = experiments/transfer.py
train-transfer: $(READY)  ## the paper's experiment: the encoder starts from C3D weights; DATASET= RUN= SET=
	@$(BIN)/python -m femur3d.train --experiment $(EXPERIMENT) --dataset $(DATASET) --run $(RUN) $(SETTINGS)

train-scratch: EXPERIMENT = experiments/scratch.py
train-scratch: $(READY)  ## the paper's ablation: everything starts from N(0, 0.01); DATASET= RUN= SET=
	@$(BIN)/python -m femur3d.train --experiment $(EXPERIMENT) --dataset $(DATASET) --run $(RUN) $(SETTINGS)

train-hip: EXPERIMENT = experiments/hip_t1.py
train-hip: $(READY)  ## the recipe of the shipped model, forty minutes on two CPU cores; DATASET= RUN= SET=
	@$(BIN)/python -m femur3d.train --experiment $(EXPERIMENT) --dataset $(DATASET) --run $(RUN) $(SETTINGS)

finetune: EXPERIMENT = experiments/finetune.py
finetune: $(READY)  ## a trained model (MODEL=, or the shipped one) learns your own scans too; DATASET= RUN= SET=
	@$(BIN)/python -m femur3d.train --experiment $(EXPERIMENT) --dataset $(DATASET) --run $(RUN) \
	  $(if $(MODEL),--initial_weights '$(MODEL)') $(SETTINGS)

cross-validate: RUN = runs/cv
cross-validate: $(READY)  ## EXPERIMENT= by patient, every one held out once, then on all; DATASET= RUN= SET=
	@$(BIN)/python -m experiments.studies.cross_validate --dataset $(DATASET) --experiment $(EXPERIMENT) -o $(RUN) $(SETTINGS)

quality: RUN = runs/cv
quality: $(READY)  ## limits of the quality flags for the model of a finished cross-validate; DATASET= RUN=
	@$(BIN)/python -m experiments.studies.learn_quality --dataset $(DATASET) --cv $(RUN) --quality $(RUN)/all/model \
	  -o $(RUN)/quality.txt

surrogate: $(READY)  ## a stand-in for C3D, trained on procedural clips, into data/surrogate_encoder.h5; WIDTH=
	@$(BIN)/python -m experiments.surrogate.pretrain -o data/surrogate_weights --width $(WIDTH)
	@$(BIN)/python tools/port_c3d.py --weights data/surrogate_weights -o data/surrogate_encoder.h5

ablation: EXPERIMENT = experiments/scratch.py
ablation: RUN = runs/ablation
ablation: $(READY)  ## the paper's Table 2: transfer, scratch, no deep supervision; DATASET= WEIGHTS= SEEDS= RUN= SET=
	@$(BIN)/python -m experiments.studies.run_ablation --dataset $(DATASET) --experiment $(EXPERIMENT) --weights $(WEIGHTS) \
	  --seeds $(SEEDS) -o $(RUN) $(SETTINGS)

infer: $(READY)  ## segment SCAN= (a file, a DICOM folder, a folder of scans) with MODEL= into OUT=; FLAGS=
	@$(BIN)/python -m femur3d.infer -i '$(SCAN)' -o '$(OUT)' $(if $(MODEL),--model '$(MODEL)') --preview $(FLAGS)

evaluate: $(READY)  ## compare the label maps in OUT= with REFERENCES=
	@$(BIN)/python -m femur3d.evaluate --predictions '$(OUT)' --references '$(REFERENCES)' -o '$(OUT)/evaluation'

tensorboard: $(READY)  ## serve the training curves in LOGDIR= on this machine
	@TF_CPP_MIN_LOG_LEVEL=3 $(BIN)/tensorboard --logdir '$(LOGDIR)' --load_fast=false \
	  2> >(grep --line-buffered -v -e 'absl::InitializeLog' -e '^I0000' >&2)  # TensorFlow's start

bench: $(READY)  ## time the network (against PyTorch where it is installed) and the patch pipeline
	@$(BIN)/python -m benchmarks.network
	@$(BIN)/python -m benchmarks.pipeline

docs: $(READY)  ## build the pages of docs/ and the API reference into site/
	@test -x $(BIN)/mkdocs || $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]' $(EDITABLE)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo 'Open site/index.html'

clean:  ## remove the virtual environment and caches; runs/ and data/ stay
	@rm -rf .venv site .mypy_cache .ruff_cache .pytest_cache *.egg-info
