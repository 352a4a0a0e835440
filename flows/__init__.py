"""What Prefect runs, and nothing else."""
