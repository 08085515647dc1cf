"""How to get a Ray or a Dask cluster: on this machine or at an address."""
