"""Coefficients of Galactic extinction that surveys declare, against a dust law integrated over their filters."""

import astropy.units as u
import numpy as np
import pytest
from dust_extinction.parameter_averages import F99
from speclite.filters import load_filter

from sedflow_dist.photometry.surveys import SURVEYS

#: A at 1 um per E(B-V) of Schlegel et al. 1998, as Schlafly & Finkbeiner 2011 (section 5) recalibrate it.
AT_ONE_MICRON = 0.78 * 1.32


def per_ebv(band, ebv=0.1):
    """A / E(B-V) of a source of 7000 K behind the law of Fitzpatrick 1999, R_V = 3.1."""
    law, one = load_filter(band), F99(Rv=3.1)
    wavelength = law.wavelength
    extinction = AT_ONE_MICRON * ebv * one(1e4 / wavelength / u.micron) / one(1 / u.micron)
    photons = law.response * wavelength**-4 / np.expm1(1.4388e8 / wavelength / 7000)
    seen, there = (np.trapezoid(photons * factor, wavelength) for factor in (10 ** (-0.4 * extinction), 1.0))
    return -2.5 * np.log10(seen / there) / ebv


@pytest.mark.parametrize("band", range(6))
def test_rubins_coefficients_are_those_of_its_filters(band):
    """To 1.5 %, which is how much the filters' curves changed since Schlafly & Finkbeiner: 2 mmag at E(B-V) = 0.04."""
    survey = SURVEYS["rubin"]
    assert survey.extinction_per_ebv[band] == pytest.approx(per_ebv(survey.bands[band]), rel=0.015)
