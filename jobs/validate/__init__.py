"""Coverage of a model's posteriors on simulated galaxies, comparison with chains, figures."""
