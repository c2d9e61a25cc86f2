#!/usr/bin/env bash
# An experiment or a study under SLURM, in as many jobs as it needs:
#
#   sbatch --gres=gpu:1 --time=24:00:00 experiments/slurm.sh experiments/phase8.toml --data mt30.zarr
#
# What follows the script's name is given to `fmbpo run`. Five minutes before the time limit it is
# told to save and leaves with status 75; the job is then queued again and continues.
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
