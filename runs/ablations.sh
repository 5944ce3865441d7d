#!/usr/bin/env bash
# The paper's ablations of sampling, on a task that a small model learns in minutes: sums worked out
# digit by digit (`cargo run --example additions`), right or wrong.
#
#   runs/ablations.sh train|remasking|samplers|steps|length|guidance|all [FOLDER]
#
# FOLDER is for data and runs [default: runs/out/additions]. LLADA names the program, ADDITIONS the
# example. What was measured before is not measured again; `train` is done where it is needed.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)/additions"
study="${1:?give a study: train, remasking, samplers, steps, length, guidance or all}"
out="${2:-runs/out/additions}" llada="${LLADA:-llada}"
additions="${ADDITIONS:-cargo run -q --release -p llada --example additions --}"
mkdir -p "$out"

train() {
  [ -f "$out/model/finished" ] && return
  $additions 20000 1 text > "$out/text.txt"
  $additions 20000 2 > "$out/train.jsonl"
  $additions 300 4 > "$out/test.jsonl"
  [ -d "$out/tokenizer" ] || "$llada" tokenizer train "$out/text.txt" --kind char -o "$out/tokenizer" -q
  [ -d "$out/data" ] || "$llada" data prepare "$out/text.txt" -t "$out/tokenizer" -o "$out/data" -q
  rm -rf "$out/base" "$out/model"
  "$llada" train "$here/pretrain.toml" --out "$out/base" -q data.path="$out/data"
  "$llada" sft "$here/tune.toml" --out "$out/model" -q data.path="$out/train.jsonl" \
    model.init_from="$out/base/checkpoints/step-1500"
  touch "$out/model/finished"
}

# Per cent of right results, with the standard error, under some flags of the sampler.
score() { # FLAGS…
  local file="$out/scores/$(echo "$*" | tr ' ' '_').json"
  if [ ! -s "$file" ]; then
    mkdir -p "$out/scores"
    "$llada" eval run "$here/task.toml" --model "$out"/model/checkpoints/step-* --data "$out" \
      --json -q "$@" > "$file.part"
    mv "$file.part" "$file"
  fi
  awk '/"exact_match,result":/ { gsub(/[^0-9.e-]/, "", $2); v = $2 }
    /"exact_match_stderr,result":/ { gsub(/[^0-9.e-]/, "", $2); s = $2 }
    END { printf "%.1f ± %.1f", 100 * v, 100 * s }' "$file"
}

remasking() {
  echo "| remasking | 12 steps | 24 steps | 48 steps |"
  echo "|---|---|---|---|"
  for who in low-confidence random; do
    echo "| $who | $(score -n 48 --steps 12 --remasking $who) | $(score -n 48 --steps 24 --remasking $who) |" \
      "$(score -n 48 --steps 48 --remasking $who) |"
  done
}
samplers() {
  echo "| sampler | block 4 | block 8 | block 16 | block 48 |"
  echo "|---|---|---|---|---|"
  echo "| autoregressive (block 1) | $(score -n 48 --blocks autoregressive) | | | |"
  for layout in block-diffusion semi-autoregressive; do
    row="| $layout |"
    for block in 4 8 16; do row="$row $(score -n 48 --steps 48 --blocks $layout --block-length $block) |"; done
    echo "$row |"
  done
  echo "| pure | | | | $(score -n 48 --steps 48 --blocks pure) |"
}
steps() {
  echo "| steps for 48 tokens | pure | semi-autoregressive, block 16 |"
  echo "|---|---|---|"
  for n in 3 6 12 24 48; do
    echo "| $n | $(score -n 48 --steps $n --blocks pure) | $(score -n 48 --steps $n --block-length 16) |"
  done
}
length() {
  echo "| answer length | one step for each token |"
  echo "|---|---|"
  for n in 36 48 64 96; do echo "| $n | $(score -n $n --steps $n --blocks pure) |"; done
}
guidance() {
  echo "| cfg_scale | 12 steps | 48 steps |"
  echo "|---|---|---|"
  for w in 0 0.5 1 1.5 2; do
    echo "| $w | $(score -n 48 --steps 12 --cfg-scale $w) | $(score -n 48 --steps 48 --cfg-scale $w) |"
  done
}

train
case "$study" in
  train) ;;
  remasking | samplers | steps | length | guidance) "$study" ;;
  all) for s in remasking samplers steps length guidance; do "$s"; echo; done ;;
  *) echo "unknown study: $study" >&2; exit 2 ;;
esac
