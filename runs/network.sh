#!/usr/bin/env bash
# What a network costs a step: ranks as hosts, each in a network namespace of its own whose link to the others has the
# rate that `tc` gives it in both directions. Prints the seconds of a step, those of them in which the first rank exchanged or waited,
# and what the bytes alone would take.
#
#   runs/network.sh [FOLDER]          as root, with iproute2 and Open MPI
#
# LLADA names the program, built with `--features mpi`; RANKS is their number [default: 2], RATES the rates of the links, as tc
# writes them [default: "10gbit 1gbit 300mbit 100mbit"], STEPS how many steps are made with each [default: 12], WIDTH the width of the model
# [default: 256, of 6 layers: 4.8 million parameters]. FOLDER is for data and runs [default: runs/out/network].
set -euo pipefail
out="$(realpath -m "${1:-runs/out/network}")" llada="$(realpath "$(command -v "${LLADA:-llada}")")"
ranks="${RANKS:-2}" rates="${RATES:-10gbit 1gbit 300mbit 100mbit}" steps="${STEPS:-12}" width="${WIDTH:-256}"
net="llada$$"

hosts=""
clean() {
  for host in $(seq "$ranks"); do ip netns del "$net-$host" 2>/dev/null || true; done
  ip link del "$net" 2>/dev/null || true
}
trap clean EXIT
ip link add "$net" type bridge
ip addr add 10.77.0.254/24 dev "$net"
ip link set "$net" up
for host in $(seq "$ranks"); do
  ip netns add "$net-$host"
  ip link add "l$$-$host" type veth peer name eth0 netns "$net-$host"
  ip link set "l$$-$host" master "$net" up
  ip -n "$net-$host" addr add "10.77.0.$host/24" dev eth0
  ip -n "$net-$host" link set eth0 up
  ip -n "$net-$host" link set lo up
  hosts+="${hosts:+,}10.77.0.$host:1"
done

rm -rf "$out"
mkdir -p "$out"
# What mpirun calls as it would ssh: HOST COMMAND…
cat > "$out/agent" <<AGENT
#!/bin/sh
host="\${1##*.}"
shift
exec ip netns exec "$net-\$host" unshare --uts sh -c "hostname host\$host; \$*"
AGENT
chmod +x "$out/agent"
awk 'BEGIN { srand(1); for (i = 0; i < 4000; i++) { for (j = 0; j < 12; j++) printf "%s ", substr("catdogfoxowlantbeeelk", 1 + 3 * int(7 * rand()), 3); print "." } }' > "$out/text.txt"
"$llada" tokenizer train "$out/text.txt" --kind char --out "$out/tokenizer" -q
"$llada" data prepare "$out/text.txt" --tokenizer "$out/tokenizer" --out "$out/data" -q
cat > "$out/recipe.toml" <<RECIPE
[model]
d_model = $width
n_layers = 6
n_heads = 4
[data]
path = "$out/data"
sequence_length = 64
[train]
steps = $steps
batch_size = $((4 * ranks))
checkpoint_every = 0
compute = "f32"
[eval]
every = 0
[log]
every = 1
sample_every = 0
tensorboard = false
RECIPE

# The median of a number that each step tells, after the first two: RUN KEY.
median() {
  grep '"kind":"train"' "$1/metrics.jsonl" | tail -n +3 | sed -n "s/.*\"$2\":\([0-9.e-]*\).*/\1/p" | sort -g |
    awk '{ value[NR] = $1 } END { printf "%.3f", NR ? value[int((NR + 1) / 2)] : 0 }'
}
parameters="$("$llada" train "$out/recipe.toml" --dry-run --out "$out/never" 2>&1 | sed -n 's/^trained *\([0-9,]*\) numbers.*/\1/p' | tr -d ,)"
echo "| rate of a link | seconds of a step | of it exchange and waiting | the bytes alone |"
echo "|---|---|---|---|"
for rate in $rates; do
  for host in $(seq "$ranks"); do
    # A queue of 20 ms, and bursts of no more than a millisecond or two.
    tc qdisc replace dev "l$$-$host" root tbf rate "$rate" burst 256kb latency 20ms
    tc -n "$net-$host" qdisc replace dev eth0 root tbf rate "$rate" burst 256kb latency 20ms
  done
  mpirun --allow-run-as-root -n "$ranks" -H "$hosts" --bind-to none --mca plm_rsh_agent "$out/agent" \
    --mca pml ob1 --mca btl tcp,self --mca btl_tcp_if_include 10.77.0.0/24 --mca oob_tcp_if_include 10.77.0.0/24 \
    "$llada" train "$out/recipe.toml" --out "$out/$rate" --threads 1 -q
  alone="$(awk -v p="$parameters" -v n="$ranks" -v rate="$rate" 'BEGIN {
    unit = rate ~ /gbit/ ? 1e9 : rate ~ /mbit/ ? 1e6 : 1; printf "%.3f", 8 * 8 * p * (n - 1) / n / (rate * unit) }')" # 8 bytes a parameter: gradients and weights
  echo "| $rate | $(median "$out/$rate" seconds) | $(median "$out/$rate" communication) | $alone |"
done
