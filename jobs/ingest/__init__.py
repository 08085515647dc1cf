"""Catalog files in, a photometry store out."""
