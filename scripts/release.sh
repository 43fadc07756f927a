#!/bin/sh
# Build wheel and sdist, and train the demo from each, in an empty environment and an empty folder.
#
#   make release [DEMO_MINUTES=0.5]
#
# PYTHON: the interpreter. DIST: where both files are left. DEMO_MINUTES: of the demo's training.
set -eu
PYTHON=${PYTHON:-python3}
root=$(cd "$(dirname "$0")/.." && pwd)
dist=$root/${DIST:-build/dist}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# An environment, and what pip is to install into it.
environment() {
    "$PYTHON" -m venv "$1"
    "$1/bin/python" -m pip install --quiet --disable-pip-version-check "$2"
}

rm -rf "$dist"
environment "$work/build" build
"$work/build/bin/python" -m build --quiet --outdir "$dist" "$root"
ls -l "$dist"

for file in "$dist"/*.whl "$dist"/*.tar.gz; do
    echo "== $(basename "$file")"
    rm -rf "$work/venv" "$work/run" && mkdir "$work/run"
    # First, so that pip takes the CPU build where one is offered.
    environment "$work/venv" torch==2.13.0
    "$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
        -c "$root/constraints.txt" "vqkit[train] @ file://$file"
    # From a folder without the sources, so that nothing but what was installed is there.
    cd "$work/run"
    "$work/venv/bin/vqkit" --version
    "$work/venv/bin/vqkit" train emoji --recipe emoji --out demo \
        ${DEMO_MINUTES:+--minutes "$DEMO_MINUTES"}
    "$work/venv/bin/vqkit" evaluate demo emoji --json demo/evaluation.json
    "$work/venv/bin/vqkit" info demo >info.txt
    test -s demo/report.html
    cd "$root"
done
echo "Both work: $dist"
