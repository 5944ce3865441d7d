#!/usr/bin/env bash
# Training on four machines of a Slurm cluster. Not run by the project: no cluster was at hand.
#
#   sbatch deploy/ranks/slurm.sh RECIPE.toml --out RUN
#
# The program is built with `--features mpi` against the cluster's MPI; data and RUN are on a file system that
# all machines share. Two minutes before the time is up the run stops and writes a checkpoint; the job is then
# queued again, and goes on.
#SBATCH --job-name=llada
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=2
#SBATCH --cpus-per-task=32
#SBATCH --time=12:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
set -euo pipefail
out=""
for argument in "$@"; do
  [ "${previous:-}" = "--out" ] && out="$argument"
  previous="$argument"
done
arguments=("$@")
# A job that was queued again goes on.
if [ -n "$out" ] && compgen -G "$out/checkpoints/step-*" > /dev/null; then arguments=(--resume --out "$out"); fi
code=0
srun --mpi=pmix --cpu-bind=cores llada train "${arguments[@]}" --threads "$SLURM_CPUS_PER_TASK" || code=$?
# 130 is a run that stopped as it was asked to.
if [ "$code" -eq 130 ]; then scontrol requeue "$SLURM_JOB_ID"; else exit "$code"; fi
