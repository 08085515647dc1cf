"""The trained flow: features of photometry, families of flows and their inverse, training, support."""

from sedflow_dist.flow import maf_flow as maf_flow  # registers the family "maf"
