"""The parameters of PROVABGS's galaxy model, which most tests use."""

from sedflow_dist.sps.components import Composition

SPACE = Composition.of().space
PARAMETERS = SPACE.names
COORDINATES = SPACE.coordinates
N_SHAPE = len(SPACE.shapes)
