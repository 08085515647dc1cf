"""Simulated galaxies: draws from the prior and mock observations of them."""
