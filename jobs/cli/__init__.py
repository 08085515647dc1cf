"""The command line ``sedflow``."""
