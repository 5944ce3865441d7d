#!/usr/bin/env bash
# LLaDA against the autoregressive baseline under repeated data: the same number of tokens, of which
# 1/1 to 1/32 are different ones, so that the model sees them 1 to 32 times. Prints the held-out loss.
#
# Both start from the same 200 steps of next-token prediction on the same tokens: a diffusion model this
# small spends its first thousand steps at the entropy of single characters, where nothing can be seen.
#
#   runs/repetition.sh TEXT [FOLDER]
#
# TEXT is plain text of 3 MB or more, documents separated by `<|endoftext|>`; FOLDER is for data and
# runs [default: runs/out/repetition]. LLADA names the program, SEED the seed. Finished runs are not
# repeated, so that the script can be interrupted and started again.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
text="${1:?give a text file}" out="${2:-runs/out/repetition}" seed="${SEED:-1}"
llada="${LLADA:-llada}" tokens=2621440

mkdir -p "$out"
[ -d "$out/tokenizer" ] || "$llada" tokenizer train "$text" --kind char --min-count 100 -o "$out/tokenizer"
[ -d "$out/data" ] || "$llada" data prepare "$text" -t "$out/tokenizer" -o "$out/data" --validation 0.03

# Trains unless it is done: RUN STEPS OVERRIDES…
train() {
  local run="$1" steps="$2"
  shift 2
  [ -d "$run/checkpoints/step-$steps" ] && return
  rm -rf "$run"
  "$llada" train "$here/repetition.toml" --out "$run" -q data.path="$out/data" train.seed="$seed" train.steps="$steps" "$@"
}

for epochs in 1 2 4 8 16 32; do
  unique="data.unique_tokens=$((tokens / epochs))"
  warm="$out/warm-$epochs-seed$seed"
  train "$warm" 200 train.objective=autoregressive optim.decay_fraction=0.0 eval.every=0 $unique
  for objective in diffusion autoregressive; do
    train "$out/$objective-$epochs-seed$seed" 1280 train.objective=$objective \
      model.init_from="$warm/checkpoints/step-200" $unique
  done
done

echo "| epochs | unique tokens | LLaDA, last (best) | baseline, last (best) |"
echo "|---|---|---|---|"
# The held-out losses of a run: the last one, and the lowest on the way.
losses() {
  sed -n 's/.*"kind":"validation","step":[0-9]*,"nll":\([0-9.]*\).*/\1/p' "$out/$1-$2-seed$seed/metrics.jsonl" |
    awk 'NR == 1 || $1 < best { best = $1 } { last = $1 } END { printf "%.3f (%.3f)", last, best }'
}
for epochs in 1 2 4 8 16 32; do
  echo "| $epochs | $((tokens / epochs)) | $(losses diffusion $epochs) | $(losses autoregressive $epochs) |"
done
