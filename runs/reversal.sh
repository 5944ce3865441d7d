#!/usr/bin/env bash
# The reversal experiment (Section 3.3 of the paper), from a clean start: LLaDA and the autoregressive
# baseline learn couplets in one direction, are tuned to answer "what is the next line?" and "what is
# the line before?" on some of them, and are asked about the others.
#
#   runs/reversal.sh [FOLDER]
#
# FOLDER is for data and runs [default: runs/out/reversal]. LLADA names the program, SEEDS the seeds
# [default: "1 2 3"]. Finished runs are not repeated, so that the script can be started again.
#
# Tested are the 469 records of the official evaluation, with its prompts and settings (28 tokens and
# steps, no end of text, right if the line occurs in the answer). They are part of the running text,
# first line before second, and never of the instruction tuning. "Infilling" gives a model the couplet
# with one line masked, which a left-to-right model cannot be given.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)/reversal"
out="${1:-runs/out/reversal}" llada="${LLADA:-llada}" seeds="${SEEDS:-1 2 3}"
mkdir -p "$out"

# Rows from couplets: the text, and the questions.
poems() { awk -F'\t' '{ printf "{\"prompt\": \"诗\", \"response\": \"%s，%s。\"}\n", $1, $2 }' "$@"; }
questions() {
  awk -F'\t' '{
    ask = "是什么？ 直接输出句子即可。"
    printf "{\"prompt\": \"%s的下一句%s\", \"response\": \"%s\"}\n", $1, ask, $2
    printf "{\"prompt\": \"%s的上一句%s\", \"response\": \"%s\"}\n", $2, ask, $1
  }' "$1"
}
# Each character is three bytes, and one token.
holes() {
  LC_ALL=C awk -F'\t' -v side="$1" '{
    if (side == "second") printf "{\"text\": \"诗%s，{{hole:%d}}。\"}\n", $1, length($2) / 3
    else printf "{\"text\": \"诗{{hole:%d}}，%s。\"}\n", length($1) / 3, $2
  }' "$here/official.tsv"
}

poems "$here/official.tsv" "$here/couplets.tsv" > "$out/poems.jsonl"
{ questions "$here/couplets.tsv"; cat "$out/poems.jsonl"; } > "$out/tune.jsonl"
awk -F'\t' '{ printf "{\"first\": \"%s\", \"second\": \"%s\"}\n", $1, $2 }' "$here/official.tsv" > "$out/official.jsonl"
for side in first second; do holes "$side" > "$out/holes-$side.jsonl"; done
awk -F'\t' '{ printf "诗%s，%s。\n", $1, $2 }' "$here/official.tsv" > "$out/whole.txt"
cat "$out/poems.jsonl" "$out/tune.jsonl" | tr -d '{}"' > "$out/text.txt"
[ -d "$out/tokenizer" ] || "$llada" tokenizer train "$out/text.txt" --kind char -o "$out/tokenizer" -q
[ -d "$out/data" ] || "$llada" data prepare "$out/text.txt" -t "$out/tokenizer" -o "$out/data" -q

# The last checkpoint of a finished run; trains it first where there is none.
trained() { # VERB RECIPE RUN OVERRIDES…
  local verb="$1" recipe="$2" run="$3"
  shift 3
  if [ ! -f "$run/finished" ]; then
    rm -rf "$run"
    "$llada" "$verb" "$here/$recipe.toml" --out "$run" -q "$@" >&2
    touch "$run/finished"
  fi
  echo "$run/checkpoints/$(ls "$run/checkpoints" | sort -V | tail -n 1)"
}
# Per cent of the official records that a task finds.
asked() { # TASK MODEL
  "$llada" eval run "$here/$1.toml" --model "$2" --data "$out" --json -q |
    sed -n 's/.*"exact_match,contains": *\([0-9.e-]*\).*/\1/p' | awk 'NR == 1 { printf "%.1f", 100 * $1 }'
}
infilled() { # SIDE MODEL
  "$llada" infill --model "$2" --file "$out/holes-$1.jsonl" --json -q |
    sed 's/.*"text": *"\([^"]*\)".*/\1/' |
    paste -d'\t' - "$out/whole.txt" | awk -F'\t' '$1 == $2 { n++ } END { printf "%.1f", 100 * n / NR }'
}

rows="$out/results.tsv"
touch "$rows"
for seed in $seeds; do
  for objective in diffusion autoregressive; do
    key="$objective"$'\t'"$seed"
    grep -q "^$key"$'\t' "$rows" && continue
    run="$out/$objective-$seed"
    fresh=$(trained train model "$run/model" data.path="$out/data" train.seed="$seed" train.objective=$objective)
    text=$(trained sft poems "$run/poems" model.init_from="$fresh" data.path="$out/poems.jsonl" \
      train.seed="$seed" train.objective=$objective)
    tuned=$(trained sft tune "$run/tune" model.init_from="$text" data.path="$out/tune.jsonl" \
      train.seed="$seed" train.objective=$objective)
    fill=$'–\t–'
    [ $objective = diffusion ] && fill="$(infilled second "$tuned")"$'\t'"$(infilled first "$tuned")"
    printf '%s\t%s\t%s\t%s\n' "$key" "$(asked next "$tuned")" "$(asked previous "$tuned")" "$fill" >> "$rows"
  done
done

echo "| model | forward | backward | forward by infilling | backward by infilling |"
echo "|---|---|---|---|---|"
for objective in diffusion autoregressive; do
  # Mean and standard deviation over the seeds.
  awk -F'\t' -v objective=$objective -v name="$([ $objective = diffusion ] && echo LLaDA || echo baseline)" '
    $1 == objective { n++; for (i = 3; i <= 6; i++) { sum[i] += $i; square[i] += $i * $i; text[i] = $i } }
    END {
      printf "| %s |", name
      for (i = 3; i <= 6; i++) {
        mean = sum[i] / n; variance = n > 1 ? (square[i] - n * mean * mean) / (n - 1) : 0
        if (text[i] == "–") printf " – |"
        else printf " %.1f ± %.1f |", mean, (variance > 0 ? sqrt(variance) : 0)
      }
      print ""
    }' "$rows"
done
