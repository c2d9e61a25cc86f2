#!/usr/bin/env bash
# Runs an experiment or a study under SLURM, over several jobs if needed:
#
#   sbatch --gres=gpu:1 --time=24:00:00 experiments/slurm.sh experiments/phase8.toml --data mt30.zarr
#
# The script passes its arguments to `fmbpo run`. Five minutes before the time limit, SLURM signals the
# run, which saves and exits with status 75; the job is then requeued and continues.
#SBATCH --job-name=fmbpo
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=USR1@300

srun fmbpo run "$@"
status=$?
if [ "$status" -eq 75 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
