"""Studies on a SLURM cluster: their runs as a graph of jobs, and the state of these jobs."""
