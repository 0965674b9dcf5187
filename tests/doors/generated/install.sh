#!/usr/bin/env bash
# Installs the generators of clients that tests/doors/test_generated_clients.py tries, into .venv/generators.
set -euo pipefail
cd "$(dirname "$0")"
into=../../../.venv/generators
mkdir -p "$into"
cp package.json "$into/"
npm install --prefix "$into" --no-audit --no-fund --no-package-lock --silent
../../../.venv/bin/python -m venv "$into/python"
"$into/python/bin/pip" install -q --disable-pip-version-check -r requirements.txt
