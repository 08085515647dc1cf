"""Inference: likelihood, importance weights, the fallback cascade from flow to MCMC, other priors."""
