"""Coverage tests of posteriors, and figures."""
