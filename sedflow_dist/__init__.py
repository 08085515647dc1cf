"""Posteriors of galaxies from photometry: the science, as functions on arrays."""

from sedflow_dist.flow.trained_model import TrainedModel
from sedflow_dist.notebook import load_model
from sedflow_dist.parameters import ParameterSpace
from sedflow_dist.photometry.photometry import Photometry
from sedflow_dist.photometry.survey import Survey
from sedflow_dist.sps.galaxy_model import GalaxyModel

__all__ = ["GalaxyModel", "ParameterSpace", "Photometry", "Survey", "TrainedModel", "load_model"]
