"""Stellar population synthesis: parameters and a redshift in, spectra and fluxes out."""
