"""Photometry as a survey gives it: its columns, calibration, noise, flags and duplicates."""
