#!/usr/bin/env bash
# Kills a rank, whichever and whenever, again and again, and goes on each time: the weights at the end are
# those of a run that nobody killed, bit for bit.
#
#   runs/mpi-kill.sh [FOLDER]
#
# LLADA names the program, built with `--features mpi`; KILLS how often at least [default: 20], RANKS how many
# there are [default: 2], STEPS how long the run is [default: 1000], MPIRUN the launcher, as in runs/mpi.sh; FOLDER is for data and runs
# [default: runs/out/mpi-kill].
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
out="${1:-runs/out/mpi-kill}" llada="${LLADA:-llada}" kills="${KILLS:-20}"
steps="${STEPS:-1000}"
rm -rf "$out"
mkdir -p "$out"
awk 'BEGIN { srand(1); for (i = 0; i < 3000; i++) { for (j = 0; j < 12; j++) printf "%s ", substr("catdogfoxowlantbeeelk", 1 + 3 * int(7 * rand()), 3); print "." } }' > "$out/text.txt"
"$llada" tokenizer train "$out/text.txt" --kind char --out "$out/tokenizer" -q
"$llada" data prepare "$out/text.txt" --tokenizer "$out/tokenizer" --out "$out/data" -q
cat > "$out/recipe.toml" <<RECIPE
[model]
d_model = 64
n_layers = 2
n_heads = 4
[data]
path = "$out/data"
sequence_length = 64
[train]
steps = $steps
batch_size = 8
checkpoint_every = 5
compute = "f32"
[eval]
every = 500
sequences = 8
[log]
sample_every = 0
RECIPE
"$here/mpi.sh" "$out/recipe.toml" --out "$out/whole" -q

killed=0 starts=0 resumed=0
done="$out/killed/checkpoints/step-$steps"
arguments=("$out/recipe.toml")
while [ ! -d "$done" ]; do
  setsid "$here/mpi.sh" "${arguments[@]}" --out "$out/killed" -q > "$out/log-$starts.txt" 2>&1 &
  launcher=$!
  starts=$((starts + 1))
  if [ "${arguments[0]}" = --resume ]; then resumed=$((resumed + 1)); fi
  if [ "$killed" -lt "$kills" ]; then
    sleep "$((RANDOM % 3)).$((RANDOM % 1000))"
    # One of the ranks, which are of the launcher's session.
    victim=$(pgrep -s "$launcher" -x "$(basename "$llada" | cut -c1-15)" | shuf -n 1 || true)
    if [ -n "$victim" ] && kill -9 "$victim" 2>/dev/null; then killed=$((killed + 1)); fi
  fi
  wait "$launcher" || true
  # Before its first checkpoint a run begins anew.
  arguments=("$out/recipe.toml")
  if compgen -G "$out/killed/checkpoints/step-*" > /dev/null; then arguments=(--resume); fi
done
cmp "$out/whole/checkpoints/step-$steps/model.safetensors" "$done/model.safetensors"
for share in "$out/whole/checkpoints/step-$steps"/optimizer*.safetensors; do cmp "$share" "$done/$(basename "$share")"; done
[ "$killed" -ge "$kills" ] || { echo "the run was done after $killed kills: raise STEPS" >&2; exit 1; }
echo "killed $killed times in $starts starts, $resumed of them from a checkpoint: the same weights and optimiser at step $steps"
