#!/usr/bin/env bash
# Makes the Python environment of the peers, beside this file, and the peers that are programs.
set -euo pipefail
cd "$(dirname "$0")"
python3 -m venv venv
venv/bin/pip install --quiet torch numpy tensorboard gguf xllamacpp transformers peft
CARGO_TARGET_DIR=candle/target cargo build --release --manifest-path candle/Cargo.toml
