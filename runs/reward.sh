#!/usr/bin/env bash
# Reinforcement learning of a small model on puzzles: it is fine-tuned on some with their solutions, and goes
# on with ESPO, diffu-GRPO and GDSD on others without. Prints the share of the puzzles that each solves, on
# puzzles that it has never seen, and what the reward was at first and at last, as mean and standard deviation over the seeds.
#
#   runs/reward.sh sudoku|countdown [FOLDER]
#
# FOLDER is for data and runs [default: runs/out/reward/PUZZLE]; the curves are in the `report.html` of each run.
# LLADA names the program, TEST a file of puzzles for the test (d1's 4x4_test_sudoku.csv or countdown_cd3_test.jsonl) in
# place of 256 made here, SEEDS and ALGORITHMS what is run, TUNING and STEPS the steps of fine-tuning and of reinforcement
# learning, TUNED and TRAIN the puzzles of each, METRICS of which the reward is the mean. Runs that are finished are not repeated.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)/reward"
puzzle="${1:?sudoku or countdown}" out="${2:-runs/out/reward/$1}"
llada="${LLADA:-llada}" seeds="${SEEDS:-1 2 3}" algorithms="${ALGORITHMS:-espo diffu-grpo gdsd}"
case "$puzzle" in
  sudoku) tuned="${TUNED:-400}" tuning="${TUNING:-1000}" metrics="${METRICS:-cell_accuracy}" solved="exact_match"
    tokens="--kind char" length=16 ;;
  # A number is one token: a small model of characters does not learn to copy numbers.
  countdown) tuned="${TUNED:-30000}" tuning="${TUNING:-1500}" metrics="${METRICS:-solved,uses_numbers}" solved="solved"
    tokens="--kind bpe --vocab-size 380" length=6 ;;
  *) echo "no puzzle '$puzzle': sudoku or countdown" >&2; exit 2 ;;
esac
steps="${STEPS:-1000}" task="$here/$puzzle.toml"

if [ ! -d "$out/data" ]; then
  rm -rf "$out/train" "$out/test" "$out/tokenizer"
  mkdir -p "$out/train" "$out/test"
  awk -v puzzle="$puzzle" -v tuned="$tuned" -v train="${TRAIN:-20000}" -v test=256 -v out="$out" \
    -f "$here/puzzles.awk" "${TEST:-/dev/null}"
  [ -z "${TEST:-}" ] || cp "$TEST" "$out/test/"
  sed 's/.*"prompt": "\([^"]*\)", "response": "\([^"]*\)".*/\1\2<|endoftext|>/' "$out/tuned.jsonl" > "$out/text.txt"
  "$llada" tokenizer train "$out/text.txt" $tokens -o "$out/tokenizer" -q
  "$llada" data prepare "$out/text.txt" -t "$out/tokenizer" -o "$out/data" --validation 0.1 -q
fi

# Trains unless it is done: RUN STEPS VERB RECIPE OVERRIDES…
run() {
  local run="$1" last="$2" verb="$3" recipe="$4"
  shift 4
  [ -d "$run/checkpoints/step-$last" ] && return
  rm -rf "$run"
  "$llada" "$verb" "$here/$recipe" --out "$run" -q train.steps="$last" "$@"
}

for seed in $seeds; do
  run "$out/base-seed$seed" 1 train base.toml data.path="$out/data" train.seed="$seed"
  run "$out/tuned-seed$seed" "$tuning" sft tuned.toml data.path="$out/tuned.jsonl" train.seed="$seed" \
    model.init_from="$out/base-seed$seed/checkpoints/step-1"
  for algorithm in $algorithms; do
    run "$out/$algorithm-seed$seed" "$steps" train reward.toml reward.algorithm="$algorithm" reward.task="$task" \
      reward.metrics="$metrics" reward.gen_length="$length" data.path="$out/train" data.validation="$out/test" train.seed="$seed" \
      model.init_from="$out/tuned-seed$seed/checkpoints/step-$tuning"
  done
done

# The share of the puzzles that a checkpoint solves.
solves() {
  "$llada" eval run -m "$1" "$task" --data "$out/test" -q --json | tr ',' '\n' |
    sed -n "s/.*\"$solved\": *\([0-9.e-]*\).*/\1/p" | head -n 1
}
# The mean reward of sampled completions at the first or last of a run's steps: RUN head|tail.
reward() {
  grep -h '"kind":"train"' "$1/metrics.jsonl" | "$2" -n 5 | sed -n 's/.*"reward": *\([0-9.e-]*\).*/\1/p' |
    awk '{ sum += $1 } END { print NR ? sum / NR : "nan" }'
}
spread() {
  awk '{ sum += $1; squares += $1 * $1 } END {
    mean = sum / NR; rest = NR > 1 ? (squares - NR * mean * mean) / (NR - 1) : 0
    printf "%.3f ± %.3f", mean, sqrt(rest > 0 ? rest : 0) }'
}

echo "| model | puzzles solved | reward, first steps | last steps |"
echo "|---|---|---|---|"
found=$(for seed in $seeds; do solves "$out/tuned-seed$seed/checkpoints/step-$tuning"; done | spread)
echo "| fine-tuned | $found | | |"
for algorithm in $algorithms; do
  found=$(for seed in $seeds; do solves "$out/$algorithm-seed$seed/checkpoints/step-$steps"; done | spread)
  first=$(for seed in $seeds; do reward "$out/$algorithm-seed$seed" head; done | spread)
  last=$(for seed in $seeds; do reward "$out/$algorithm-seed$seed" tail; done | spread)
  echo "| $algorithm | $found | $first | $last |"
done
