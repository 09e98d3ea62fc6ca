#!/bin/sh
# Set up the virtual environment: tools/install.sh PYTHON VENV demo|dev|lowest|newest
set -eu
python=$1 venv=$2 what=$3
die() { printf '%s\n' "$*" >&2; exit 1; }
constraints=constraints.txt newest=13 pythons='3.11, 3.12 or 3.13'
case $what in
    demo) target=. size='1.6 GB, about two minutes' ;;
    dev) target=.[dev] size='2.2 GB, about three minutes' ;;
    # Some of the lowest versions have no wheel for a newer Python.
    lowest) target=.[tests] size='7 GB, about four minutes' constraints=constraints-lowest.txt newest=11 pythons=3.11 ;;
    newest) target=.[dev] size='7 GB, about four minutes' constraints=/dev/null newest=14 pythons='3.11 to 3.14' ;;
    *) die "install.sh: '$what' is none of demo, dev, lowest and newest" ;;
esac
in_range="import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, $newest))"
version='import platform; print(platform.python_version())'

if [ -e "$venv/.made-in" ] && [ "$(cat "$venv/.made-in")" != "$PWD" ]; then
    echo "$venv was made in $(cat "$venv/.made-in"): making it anew"
    rm -rf "$venv"
fi
if [ -x "$venv/bin/python" ] && "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    "$venv/bin/python" -c "$in_range" ||
        die "$venv has Python $("$venv/bin/python" -c "$version"), and 'make' needs $pythons here. Remove $venv and try again."
else
    command -v "$python" >/dev/null || die "There is no '$python' here. Name a Python $pythons: make PYTHON=python3.11 ..."
    "$python" -c "$in_range" ||
        die "'$python' is Python $("$python" -c "$version"), and 'make' needs $pythons here. Name another: make PYTHON=python3.11 ..."
    "$python" -m venv "$venv" || die "Could not make $venv. On Debian and Ubuntu: apt-get install python3-venv"
fi

case $what in newest) which='the newest versions' ;; *) which="the versions of $constraints" ;; esac
echo "Installing what 'make' needs in $venv, with $which ($size; more where torch comes with CUDA)"
started=$(date +%s)
if ! "$venv/bin/python" -m pip install --disable-pip-version-check --no-input --progress-bar off -c "$constraints" -e "$target" \
    </dev/null >"$venv/install.log" 2>&1; then
    tail -n 5 "$venv/install.log" >&2
    die "The installation failed; the whole story is in $venv/install.log"
fi
printf '%s\n' "$PWD" >"$venv/.made-in"
touch "$venv/.ready-demo" "$venv/.ready-$what"
echo "Installed in $(($(date +%s) - started)) s"
