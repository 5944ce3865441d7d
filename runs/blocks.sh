#!/usr/bin/env bash
# Full diffusion against block diffusion: models of storyteller's sizes, trained on the same windows of the
# same text for as many steps from the same 400 steps of next-token prediction. Prints the held-out
# bound of each, and of the beginnings in PROMPTS continued by 64 tokens: tokens for each forward pass, tokens a
# second, the nats per token that an autoregressive model finds in them, and the share of distinct runs of
# three tokens, which loops lower.
#
#   runs/blocks.sh TEXT [FOLDER]
#
# TEXT is plain text, documents separated by `<|endoftext|>`, such as storyteller's (its README says how it is
# made); FOLDER is for data and runs [default: runs/out/blocks]. LLADA names the program, STEPS the steps of
# each model, RECIPE another recipe, PROMPTS a file of beginnings, one a line. Runs that are finished are not repeated, and those
# that were stopped go on.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
text="${1:?give a text file}" out="${2:-runs/out/blocks}"
llada="${LLADA:-llada}" steps="${STEPS:-4000}" recipe="${RECIPE:-$here/blocks.toml}"

mkdir -p "$out"
[ -d "$out/tokenizer" ] || "$llada" tokenizer train "$text" --kind bpe --vocab-size 2048 -o "$out/tokenizer" -q
[ -d "$out/data" ] || "$llada" data prepare "$text" -t "$out/tokenizer" -o "$out/data" --validation 0.03 -q
prompts="${PROMPTS:-$out/prompts.txt}"
[ -f "$prompts" ] || printf '%s\n' "Once upon a time" "The king said" "There was once a" "The wolf" \
  "In the forest" "The princess" "One day the" "The old woman" > "$prompts"

# Trains unless it is done: RUN STEPS OVERRIDES…
train() {
  local run="$out/$1" last="$2"
  shift 2
  [ -d "$run/checkpoints/step-$last" ] && return
  if [ -d "$run/checkpoints" ]; then
    "$llada" train --resume --out "$run" -q
  else
    rm -rf "$run"
    "$llada" train "$recipe" --out "$run" -q data.path="$out/data" train.steps="$last" "$@"
  fi
}

warm="model.init_from=$out/warm/checkpoints/step-$((steps / 10))"
train warm $((steps / 10)) train.objective=autoregressive optim.schedule=constant eval.every=0
train judge "$steps" train.objective=autoregressive "$warm"
train full "$steps" "$warm"
for length in 4 16; do
  train "bd3lm-$length" "$steps" "$warm" block.length=$length
done
train llada2-16 "$steps" "$warm" block.preset=llada2 block.length=16
train cap-16 "$steps" "$warm" block.preset=llada2 block.length=16 block.cap_weight=2
# Short blocks, long ones, and back to those of the finished model.
train schedule-16 "$steps" "$warm" block.length=1,4,16,128,16 \
  block.from_step=0,$((steps / 20)),$((steps / 10)),$((steps / 5)),$((steps * 7 / 10))
train converted-16 $((steps / 4)) block.length=16 model.init_from="$out/full/checkpoints/step-$steps"

# The number behind a key of a line of JSON.
number() { sed -n "s/.*\"$1\": *\([0-9.e+-]*\).*/\1/p"; }

bound() { grep '"kind":"validation"' "$out/$1/metrics.jsonl" | tail -1 | number nll; }

# What MODEL makes of the beginnings, as cells of a table.
generate() {
  local answers="$out/answers/$1.jsonl"
  mkdir -p "$out/answers"
  [ -s "$answers" ] || "$llada" run -m "$out/$1" --prompts "$prompts" -n 64 --temperature 0.6 --seed 1 \
    --transfer threshold=0.9 -q "${@:2}" > "$answers"
  local per_forward per_second nats distinct
  per_forward=$(number tokens_per_forward < "$answers" | awk '{ s += $1 } END { printf "%.2f", s / NR }')
  per_second=$(number useful_tokens_per_second < "$answers" | awk '{ s += $1 } END { printf "%.0f", s / NR }')
  nats=$("$llada" score -m "$out/judge" --perplexity "$answers" --json -q | tr -d '\n' | number nats_per_token |
    awk '{ printf "%.3f", $1 }')
  distinct=$(sed -n 's/.*"tokens": *\[\([0-9, ]*\)\].*/\1/p' "$answers" | tr -d ' ' |
    awk -F, '{ for (i = 3; i <= NF; i++) { n++; if (!seen[NR, $(i-2), $(i-1), $i]++) d++ } }
      END { printf "%.0f %%", 100 * d / n }')
  echo "$per_forward | $per_second | $nats | $distinct"
}

echo "| model | held-out nats per token | tokens per forward | tokens/s | judge's nats per token | distinct |"
echo "|---|---|---|---|---|---|"
for model in full bd3lm-4 bd3lm-16 llada2-16 cap-16 schedule-16 converted-16; do
  flags=()
  [ "$model" = full ] && flags=(--block-length 16)
  echo "| $model | $(bound $model | cut -c1-5) | $(generate $model ${flags[@]+"${flags[@]}"}) |"
done
