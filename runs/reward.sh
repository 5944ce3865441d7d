#!/usr/bin/env bash
# Reinforcement learning of a small model on 4x4 Sudoku: it is fine-tuned on a few puzzles with their
# solutions, and goes on with ESPO, diffu-GRPO and GDSD on puzzles without. Prints the share of the empty cells
# that are filled correctly, and of the puzzles solved, on puzzles of grids that neither has seen.
#
#   runs/reward.sh [FOLDER]
#
# FOLDER is for data and runs [default: runs/out/reward]; the curves are in the `report.html` of each run. LLADA
# names the program, SEEDS the seeds, TUNING and STEPS the steps of fine-tuning and of reinforcement
# learning, TRAIN the puzzles of each. Finished runs are not repeated, so that the script can be interrupted and started again.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
out="${1:-runs/out/reward}" llada="${LLADA:-llada}" seeds="${SEEDS:-1 2 3}"
tuning="${TUNING:-2000}" steps="${STEPS:-1600}" train="${TRAIN:-4000}"
algorithms="${ALGORITHMS:-espo diffu-grpo gdsd}"

mkdir -p "$out/train" "$out/test"
# All 288 grids, every fourth of them for the test; of each puzzle 6 to 10 cells are empty.
if [ ! -f "$out/test/puzzles.jsonl" ]; then
  awk -v train="$train" -v out="$out" '
    function fits(at, digit,   i, row, column) {
      row = int(at / 4); column = at % 4
      for (i = 0; i < at; i++)
        if (cell[i] == digit && (int(i / 4) == row || i % 4 == column ||
            (int(int(i / 4) / 2) == int(row / 2) && int((i % 4) / 2) == int(column / 2)))) return 0
      return 1
    }
    function fill(at,   digit, i, grid) {
      if (at == 16) { grid = ""; for (i = 0; i < 16; i++) grid = grid cell[i]; grids[count++] = grid; return }
      for (digit = 1; digit <= 4; digit++)
        if (fits(at, digit)) { cell[at] = digit; fill(at + 1) }
    }
    function puzzle(grid,   empty, at, made) {
      made = grid
      for (empty = 6 + int(rand() * 5); empty > 0;) {
        at = 1 + int(rand() * 16)
        if (substr(made, at, 1) != "0") { made = substr(made, 1, at - 1) "0" substr(made, at + 1); empty-- }
      }
      return made
    }
    function put(file, grid) {
      printf "{\"puzzle\": \"%s\", \"solution\": \"%s\"}\n", puzzle(grid), grid > file
    }
    BEGIN {
      srand(1); fill(0)
      for (i = 0; i < train; i++) {
        at = int(rand() * count); if (at % 4 == 0) { i--; continue }
        put(out "/train/puzzles.jsonl", grids[at])
      }
      for (i = 0; i < 256; i++) put(out "/test/puzzles.jsonl", grids[4 * int(rand() * count / 4)])
    }'
fi
# Fine-tuning has a tenth of the puzzles.
head -n "$((train / 10))" "$out/train/puzzles.jsonl" |
  sed 's/"puzzle": "\([0-4]*\)", "solution": \("[1-4]*"\)/"prompt": "\1=", "response": \2/' > "$out/solved.jsonl"
sed 's/.*"prompt": "\([0-4]*=\)", "response": "\([1-4]*\)".*/\1\2<|endoftext|>/' "$out/solved.jsonl" > "$out/text.txt"
[ -d "$out/tokenizer" ] || "$llada" tokenizer train "$out/text.txt" --kind char -o "$out/tokenizer"
[ -d "$out/data" ] || "$llada" data prepare "$out/text.txt" -t "$out/tokenizer" -o "$out/data" --validation 0.1

# Trains unless it is done: RUN STEPS RECIPE-OR-VERB…
run() {
  local run="$1" steps="$2" verb="$3" recipe="$4"
  shift 4
  [ -d "$run/checkpoints/step-$steps" ] && return
  rm -rf "$run"
  "$llada" "$verb" "$here/$recipe" --out "$run" -q train.steps="$steps" "$@"
}

for seed in $seeds; do
  base="$out/base-seed$seed" tuned="$out/tuned-seed$seed"
  run "$base" 1 train reward/base.toml data.path="$out/data" train.seed="$seed"
  run "$tuned" "$tuning" sft reward/tuned.toml model.init_from="$base/checkpoints/step-1" \
    data.path="$out/solved.jsonl" train.seed="$seed"
  for algorithm in $algorithms; do
    run "$out/$algorithm-seed$seed" "$steps" train reward/reward.toml reward.algorithm="$algorithm" \
      reward.task="$here/reward/sudoku.toml" model.init_from="$tuned/checkpoints/step-$tuning" \
      data.path="$out/train" data.validation="$out/test" train.seed="$seed"
  done
done

# Cells and puzzles of a checkpoint: MODEL.
scores() {
  "$llada" eval run -m "$1" "$here/reward/sudoku.toml" --data "$out/test" -q --json |
    sed -n 's/.*"\(cell_accuracy\|exact_match\),none": \([0-9.]*\).*/\1 \2/p' |
    awk '{ found[$1] = $2 } END { print found["cell_accuracy"], found["exact_match"] }'
}
# Mean and standard deviation over the seeds: NAME STEPS.
row() {
  for seed in $seeds; do scores "$out/$1-seed$seed/checkpoints/step-$2"; done | awk -v name="$1" '
    { for (i = 1; i <= 2; i++) { sum[i] += $i; squares[i] += $i * $i }; n++ }
    END {
      for (i = 1; i <= 2; i++) {
        mean[i] = sum[i] / n; spread[i] = n > 1 ? sqrt(((squares[i] - n * mean[i] ^ 2) / (n - 1)) + 1e-12) : 0
      }
      printf "| %s | %.3f ± %.3f | %.3f ± %.3f |\n", name, mean[1], spread[1], mean[2], spread[2]
    }'
}
echo "| model | cells | puzzles |"
echo "|---|---|---|"
row tuned "$tuning"
for algorithm in $algorithms; do row "$algorithm" "$steps"; done
