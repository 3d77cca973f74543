PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DREAM ?= dreams/coffee.png

.DEFAULT_GOAL := help

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

.PHONY: dream
dream: $(VENV)/installed ## Set up, and dream a photograph
	@mkdir -p $(dir $(DREAM))
	@$(BIN)/phosphene dream sample:coffee -o $(DREAM) --overwrite
	@echo "The dream is in $(abspath $(DREAM))"

.PHONY: study
study: $(VENV)/installed-dev ## Compare six networks on three sample photographs, into docs/study; hours, and it goes on where it stopped
	$(BIN)/phosphene compare sample:chelsea sample:coffee sample:rocket -o docs/study --weights both --modes octaves --size 480 --enlarge \
		--models keras/inception_v3,keras/vgg19,keras/resnet50,efficientnet_lite0,efficientnet_lite1,efficientnet_lite2

.PHONY: test
test: $(VENV)/installed-dev lint ## Set up, then lint, check types and run all tests
	$(BIN)/pytest -n 2

.PHONY: soak
soak: $(VENV)/installed-dev ## Kill, fill, damage and mutate for MINUTES (30) from SEED (0), and count what came out
	PYTHONPATH=tests $(BIN)/python -m soak --minutes $(or $(MINUTES),30) --seed $(or $(SEED),0)

.PHONY: test-wheel
test-wheel: $(VENV)/installed-dev ## Build the wheel and the sdist, and dream with each in an empty environment
	$(BIN)/python scripts/packages.py

.PHONY: test-oldest
test-oldest: ## Run the quick tests on the oldest versions that are allowed, in an environment of their own
	$(PYTHON) -m venv .venv-oldest
	$(PYTHON) scripts/oldest.py > .venv-oldest/constraints.txt
	.venv-oldest/bin/python -m pip install --quiet --constraint .venv-oldest/constraints.txt --editable '.[dev]'
	.venv-oldest/bin/pytest -n 2 -m 'not slow' -W default

.PHONY: lint
lint: $(VENV)/installed-dev ## Check style and types
	$(BIN)/ruff check src tests scripts benchmarks
	$(BIN)/ruff format --check src tests scripts benchmarks
	$(BIN)/mypy

.PHONY: format
format: $(VENV)/installed-dev ## Put the code into its style
	$(BIN)/ruff check --fix src tests scripts benchmarks
	$(BIN)/ruff format src tests scripts benchmarks

.PHONY: gallery
gallery: $(VENV)/installed ## Make the documentation's pictures
	$(BIN)/python scripts/gallery.py docs/pictures

.PHONY: loop
loop: $(VENV)/installed-dev ## Make the loop at the top of the README
	$(BIN)/python scripts/loop.py docs/pictures

.PHONY: screenshots
screenshots: $(VENV)/installed-dev ## Make the pictures of the studio in docs/studio; needs chromium
	$(BIN)/python scripts/screenshots.py docs/studio

.PHONY: thumbnails
thumbnails: $(VENV)/installed-dev ## Dream the thumbnails of the studio's looks and layers again
	$(BIN)/python -m phosphene.studio.thumbnails

.PHONY: bench
bench: $(VENV)/installed-dev ## Measure the speed of a step against others, into docs/performance.json and .svg
	$(BIN)/python benchmarks/speed.py docs/performance

.PHONY: licences
licences: $(VENV)/installed-dev ## Write the tables of licences from what is installed
	$(BIN)/python scripts/licences.py docs/licences.md

.PHONY: sbom
sbom: $(VENV)/installed-dev ## Write a bill of materials of what is installed (CycloneDX), into build/sbom.json
	@mkdir -p build
	$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible -o build/sbom.json $(BIN)/python

.PHONY: studio
studio: $(VENV)/installed-dev ## Open the studio
	$(BIN)/phosphene studio --open

.PHONY: docs
docs: $(VENV)/installed-dev ## Build the documentation's site into build/docs, running its gallery
	$(BIN)/python -m sphinx -W --keep-going -q -c docs/site -d build/doctrees docs build/docs
	@echo "The site is in $(abspath build/docs/site/index.html)"

.PHONY: clean
clean: ## Remove what the other targets made
	rm -rf $(VENV) .venv-oldest .venv-keras dreams .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/installed-dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@ $(VENV)/installed
