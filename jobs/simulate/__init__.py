"""SSP tables and training sets, by the galaxy model or by FSPS itself, on Ray actors."""
