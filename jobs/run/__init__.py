"""Whole runs: plan, run, submit, status, reprocess, doctor."""
