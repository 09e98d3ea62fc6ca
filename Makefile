# Every target sets up all it needs in $(VENV); a second call reuses it.
#     make demo PYTHON=python3.12      another Python (3.11 to 3.13)
#     make notebooks NB=03             only the notebooks whose names begin so
#     make test-like CPU=avx2 THREADS=2     as on another machine: default, avx2 or avx512
PYTHON ?= python3
VENV ?= .venv
LOWEST ?= .venv-lowest
NEWEST ?= .venv-newest
NB ?=
CPU ?= avx2
THREADS ?= 1
PORT ?= 8000
MINUTES ?= 60
SEED ?= 0
# Threads that wait spinning slow each other down where the cores are shared, as by two notebooks
# under test. The demo spins a little.
export OMP_WAIT_POLICY ?= passive
PARTS := settings.ini setup.py pyproject.toml constraints.txt

.PHONY: help demo test test-like test-lowest test-newest
.PHONY: torture docs docs-serve notebooks slides students clean FORCE
help:
	@echo 'make demo        train a small MPNet on the text that Python carries, without network'
	@echo '                 and GPU; replaces an earlier demo'
	@echo 'make test        run every notebook and every test; check that package, README and'
	@echo '                 notebooks are in step'
	@echo 'make test-like   the same with the instruction set and the threads of another machine'
	@echo '                 (CPU=avx2 THREADS=1)'
	@echo 'make test-lowest run the tests on the lowest versions that settings.ini allows'
	@echo '                 (Python 3.11)'
	@echo 'make test-newest run all on the newest versions of everything'
	@echo 'make torture     end runs in every way that we know of, resume them, compare them'
	@echo '                 (MINUTES=60)'
	@echo 'make notebooks   export, run and clean the notebooks, then write README.md and the'
	@echo '                 pages of docs/ that come from them'
	@echo 'make docs        build the website in _docs; `make docs-serve` builds and shows it'
	@echo '                 (PORT=8000)'
	@echo 'make slides      slides of lessons 00 to 06, and a sheet of all figures, in _slides'
	@echo '                 (SLIDES="07 12" for others)'
	@echo 'make students    the lessons without their solutions, in _students'
	@echo 'make clean       remove what was built (not $(VENV), not checkpoints)'

demo: export GOMP_SPINCOUNT ?= 20000
demo: $(VENV)/.ready-demo
	@$(VENV)/bin/pretrain-mpnet --demo --overwrite

test: $(VENV)/.ready-dev
	@$(VENV)/bin/python tools/run_tests.py

test-like: $(VENV)/.ready-dev
	@$(VENV)/bin/python tools/run_tests.py --cpu $(CPU) --threads $(THREADS)

test-lowest: $(LOWEST)/.ready-lowest
	@$(LOWEST)/bin/python tools/run_tests.py tests

test-newest: $(NEWEST)/.ready-newest
	@$(NEWEST)/bin/python tools/run_tests.py

notebooks: $(VENV)/.ready-dev
	@$(VENV)/bin/python tools/run_notebooks.py $(NB)

torture: $(VENV)/.ready-dev
	@$(VENV)/bin/python tools/torture.py --minutes $(MINUTES) --seed $(SEED)

docs: $(VENV)/.ready-dev
	@$(VENV)/bin/python tools/build_docs.py

docs-serve: docs
	@$(VENV)/bin/python tools/serve_docs.py --port $(PORT)

slides: $(VENV)/.ready-dev
	@$(VENV)/bin/python tools/make_slides.py $(SLIDES)

students: $(VENV)/.ready-dev
	@$(VENV)/bin/python tools/course.py students _students

clean:
	rm -rf _docs _proc _slides _students build dist *.egg-info .pytest_cache .hypothesis .mypy_cache .ruff_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -not -path './.venv*' -prune -exec rm -rf {} +

# The demo needs the package alone, everything else its `dev` extra, which includes that.
$(VENV)/.ready-demo: $(PARTS)
	@sh tools/install.sh '$(PYTHON)' '$(VENV)' demo
$(VENV)/.ready-dev: $(PARTS)
	@sh tools/install.sh '$(PYTHON)' '$(VENV)' dev
$(LOWEST)/.ready-lowest: settings.ini setup.py pyproject.toml constraints-lowest.txt
	@sh tools/install.sh '$(PYTHON)' '$(LOWEST)' lowest
$(NEWEST)/.ready-newest: settings.ini setup.py pyproject.toml
	@sh tools/install.sh '$(PYTHON)' '$(NEWEST)' newest

# An environment does not survive a move of the folder that it is in.
ifneq ($(shell cat '$(VENV)/.made-in' 2>/dev/null),$(CURDIR))
$(VENV)/.ready-demo $(VENV)/.ready-dev: FORCE
endif
ifneq ($(shell cat '$(LOWEST)/.made-in' 2>/dev/null),$(CURDIR))
$(LOWEST)/.ready-lowest: FORCE
endif
ifneq ($(shell cat '$(NEWEST)/.made-in' 2>/dev/null),$(CURDIR))
$(NEWEST)/.ready-newest: FORCE
endif
