#!/usr/bin/env bash
# Makes the Python environment of the peers, beside this file.
set -euo pipefail
cd "$(dirname "$0")"
python3 -m venv venv
venv/bin/pip install --quiet torch numpy tensorboard gguf xllamacpp
