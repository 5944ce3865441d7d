#!/usr/bin/env bash
# The reversal experiment (Section 3.3 of the paper), from a clean start: do models that learn facts in
# one direction know them in the other? LLaDA and the autoregressive baseline get the same sequences, size and
# steps, under several seeds.
#
#   runs/reversal.sh [FOLDER]
#
# FOLDER is for data and runs [default: runs/out/reversal]. LLADA names the program, SEEDS the seeds
# [default: "1 2 3"], SETS the sets [default: "couplets people"]. Finished runs are not repeated, so that
# the script can be started again.
#
# Couplets: 1001 of them are learnt as text, first line before second. What was learnt is asked for in the
# text itself: LLaDA fills a masked line, either of the two; the baseline goes on after the first, and
# cannot do more. Then the models are tuned to answer "what is the next line?" about all of them and "what
# is the line before?" about 532. They are asked both about the other 469, which are those of the official
# evaluation, with its prompts and settings (28 tokens and steps, no end of text, right if the line occurs
# in the answer).
#
# People: the set of the Reversal Curse paper (arXiv 2309.12288). 30 people are known by sentences that
# name them before their description, 30 by sentences the other way round, 30 by both.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)/reversal"
out="${1:-runs/out/reversal}" llada="${LLADA:-llada}" seeds="${SEEDS:-1 2 3}"
ask="是什么？ 直接输出句子即可。"
mkdir -p "$out"

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
# Per cent of its rows that a task finds.
asked() { # TASK MODEL DATA
  "$llada" eval run "$here/$1.toml" --model "$2" --data "$3" --json -q |
    sed -n 's/.*"contains,contains": *\([0-9.e-]*\).*/\1/p' | awk 'NR == 1 { printf "%.1f", 100 * $1 }'
}
# Per cent of the rows with holes that become what they were.
infilled() { # HOLES WHOLE MODEL
  "$llada" infill --model "$3" --file "$1" --whole --json -q |
    sed 's/^{"text": *"\(\([^"\\]\|\\.\)*\)".*/\1/' |
    paste -d'\t' - "$2" | awk -F'\t' '$1 == $2 { n++ } END { printf "%.1f", 100 * n / NR }'
}

# Adds to RESULTS the line that ONE prints for each objective and seed, unless it is there.
each() { # RESULTS ONE
  touch "$1"
  for seed in $seeds; do
    for objective in diffusion autoregressive; do
      grep -q "^$objective"$'\t'"$seed"$'\t' "$1" || "$2" $objective "$seed" >> "$1"
    done
  done
}

# Mean and standard deviation over the seeds, a line for each model.
table() { # RESULTS
  for objective in diffusion autoregressive; do
    awk -F'\t' -v objective=$objective '
      $1 == objective { n++; for (i = 3; i <= NF; i++) { sum[i] += $i; square[i] += $i * $i; text[i] = $i } }
      END {
        printf "| %s |", objective == "diffusion" ? "LLaDA" : "baseline"
        for (i = 3; i in text; i++) {
          mean = sum[i] / n
          variance = n > 1 ? (square[i] - n * mean * mean) / (n - 1) : 0
          if (text[i] == "–") printf " – |"
          else printf " %.1f ± %.1f |", mean, (variance > 0 ? sqrt(variance) : 0)
        }
        print ""
      }' "$1"
  done
}

# Rows from couplets: the text, and the questions for the next line and for the line before.
poems() { awk -F'\t' '{ printf "{\"prompt\": \"诗\", \"response\": \"%s，%s。\"}\n", $1, $2 }' "$@"; }
nexts() { awk -F'\t' -v asks="的下一句$ask" '{ printf "{\"prompt\": \"%s%s\", \"response\": \"%s\"}\n", $1, asks, $2 }' "$@"; }
previouses() { awk -F'\t' -v asks="的上一句$ask" '{ printf "{\"prompt\": \"%s%s\", \"response\": \"%s\"}\n", $2, asks, $1 }' "$@"; }
# Each character is three bytes, and one token.
holes() {
  LC_ALL=C awk -F'\t' -v side="$1" '{
    if (side == "second") printf "{\"text\": \"诗%s，{{hole:%d}}。\"}\n", $1, length($2) / 3
    else printf "{\"text\": \"诗{{hole:%d}}，%s。\"}\n", length($1) / 3, $2
  }' "$here/official.tsv"
}
couplets_of() { # OBJECTIVE SEED
  local run="$out/$1-$2" with="train.seed=$2 train.objective=$1"
  fresh=$(trained train model "$run/model" data.path="$out/data" $with)
  text=$(trained sft poems "$run/poems" model.init_from="$fresh" data.path="$out/poems.jsonl" $with)
  tuned=$(trained sft tune "$run/tune" model.init_from="$text" data.path="$out/tune.jsonl" $with)
  if [ "$1" = diffusion ]; then
    second=$(infilled "$out/holes-second.jsonl" "$out/whole.txt" "$text")
    first=$(infilled "$out/holes-first.jsonl" "$out/whole.txt" "$text")
  else
    second=$(asked continue "$text" "$out") first='–'
  fi
  printf '%s\t%s\t%s\t%s\t%s\t%s\n' "$1" "$2" "$second" "$first" \
    "$(asked next "$tuned" "$out")" "$(asked previous "$tuned" "$out")"
}
couplets() {
  poems "$here/official.tsv" "$here/couplets.tsv" > "$out/poems.jsonl"
  { nexts "$here/official.tsv" "$here/couplets.tsv"; previouses "$here/couplets.tsv"; } > "$out/tune.jsonl"
  awk -F'\t' '{ printf "{\"first\": \"%s\", \"second\": \"%s\"}\n", $1, $2 }' "$here/official.tsv" > "$out/official.jsonl"
  for side in first second; do holes "$side" > "$out/holes-$side.jsonl"; done
  awk -F'\t' '{ printf "诗%s，%s。\n", $1, $2 }' "$here/official.tsv" > "$out/whole.txt"
  cat "$out/poems.jsonl" "$out/tune.jsonl" | tr -d '{}"' > "$out/text.txt"
  [ -d "$out/tokenizer" ] || "$llada" tokenizer train "$out/text.txt" --kind char -o "$out/tokenizer" -q
  [ -d "$out/data" ] || "$llada" data prepare "$out/text.txt" -t "$out/tokenizer" -o "$out/data" -q
  each "$out/couplets.tsv" couplets_of
  echo "| couplets | second line from the first | first line from the second | asked for the next line (tuned on) | asked for the line before (not) |"
  echo "|---|---|---|---|---|"
  table "$out/couplets.tsv"
}

# Sentences of the file as they stand, still escaped.
sentences() { sed 's/{"prompt": "\(.*\)", "completion": "\(.*\)"}/\1\2/' "$1"; }
people_of() { # OBJECTIVE SEED
  local data="$out/people"
  local run="$data/$1-$2" with="train.seed=$2 train.objective=$1"
  fresh=$(trained train model "$run/model" data.path="$data/data" $with)
  facts=$(trained sft facts "$run/facts" model.init_from="$fresh" data.path="$data/facts.jsonl" $with)
  fill='–' found=""
  [ "$1" = autoregressive ] || fill=$(infilled "$data/holes.jsonl" "$data/whole.txt" "$facts")
  for task in name-to-description description-to-name description-to-name-reversed name-to-description-reversed; do
    found="$found"$'\t'"$(asked "$task" "$facts" "$data")"
  done
  printf '%s\t%s%s\t%s\n' "$1" "$2" "$found" "$fill"
}
people() {
  local data="$out/people"
  mkdir -p "$data"
  cp "$here"/english/*.jsonl "$data"
  sentences "$here/english/train.jsonl" | sed 's/.*/{"prompt": "Fact:", "response": " &"}/' > "$data/facts.jsonl"
  sentences "$here/english/train.jsonl" | sed 's/\\"/"/g; s/^/Fact: /' > "$data/text.txt"
  [ -d "$data/tokenizer" ] || "$llada" tokenizer train "$data/text.txt" --vocab-size 1024 -o "$data/tokenizer" -q
  [ -d "$data/data" ] || "$llada" data prepare "$data/text.txt" -t "$data/tokenizer" -o "$data/data" -q
  # The name out of the sentences that were learnt with the name first, as long as it is in tokens.
  sed 's/.*"completion": " \(.*\)"}/\1/' "$here/english/description-to-name-reversed.jsonl" | sort -u |
    while read -r name; do
      printf '%s\t%s\n' "$name" "$("$llada" tokenizer encode " $name" -t "$data/tokenizer" | wc -w)"
    done > "$data/names.tsv"
  sentences "$here/english/name-to-description.jsonl" | sed 's/^/Fact: /' > "$data/whole.txt"
  awk -F'\t' 'NR == FNR { tokens[$1] = $2; next }
    { for (name in tokens) if (sub(name, "{{hole:" tokens[name] "}}")) break; printf "{\"text\": \"%s\"}\n", $0 }' \
    "$data/names.tsv" "$data/whole.txt" > "$data/holes.jsonl"
  each "$out/people.tsv" people_of
  echo "| people | name → description | description → name | the latter, learnt name first | the former, learnt description first | name by infilling, learnt name first |"
  echo "|---|---|---|---|---|---|"
  table "$out/people.tsv"
}

for set in ${SETS:-couplets people}; do
  "$set"
  echo
done
