"""How to get a Ray or a Dask cluster: on this machine, at an address, on Slurm or on Kubernetes."""
