"""Posteriors of galaxies from photometry: the science, as functions on arrays."""

from sedflow_dist.flow import Flow
from sedflow_dist.galaxy import ForwardModel
from sedflow_dist.prior import Prior
from sedflow_dist.surveys import Survey

__all__ = ["Flow", "ForwardModel", "Prior", "Survey"]
