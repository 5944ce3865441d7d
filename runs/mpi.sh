#!/usr/bin/env bash
# Trains on several ranks of this machine, or of those in the hostfile of mpirun.
#
#   runs/mpi.sh RECIPE.toml [KEY=VALUE…] --out RUN
#
# All arguments go to `llada train`, which is to be built with `--features mpi`. RANKS is their number
# [default: 2], THREADS those of each [default: 1], MPIRUN the launcher with flags of its own: in a container,
# as root, on fewer cores than ranks, `MPIRUN="mpirun --allow-run-as-root --oversubscribe"`.
set -euo pipefail
llada="${LLADA:-llada}" ranks="${RANKS:-2}" threads="${THREADS:-1}"
read -ra mpirun <<<"${MPIRUN:-mpirun}"
# The program's threads are not tied to the one core that mpirun would give a rank.
exec "${mpirun[@]}" -n "$ranks" --bind-to none "$llada" train "$@" --threads "$threads"
