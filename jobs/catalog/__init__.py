"""What is asked of a finished catalog: draws, other priors, whether it is whole."""
