"""Attenuation curves against the formulas, written out once more."""

import numpy as np
import pytest
import torch

from sedflow_dist.sps.dust import CALZETTI_BREAKS_A, DustCurves

WAVELENGTHS = torch.tensor([1000.0, 1500.0, 2175.0, 3000.0, 5500.0, 6299.0, 6300.0, 8000.0, 22_000.0, 40_000.0])


def curve(lam, n):
    """k(lambda) / 1 of Kriek & Conroy 2013, normalised as FSPS's dust_type=4."""
    um = lam / 1e4
    if um < 0.63:
        calzetti = 1.17 * (-2.156 + 1.509 / um - 0.198 / um**2 + 0.011 / um**3) + 1.78
    else:
        calzetti = 1.17 * (-1.857 + 1.04 / um) + 1.78
    drude = (0.85 - 1.9 * n) * (350 * lam) ** 2 / ((lam**2 - 2175**2) ** 2 + (350 * lam) ** 2)
    return (max(calzetti, 0.0) / (0.44 * 4.05) + drude / 4.05) * (lam / 5500) ** n


@pytest.mark.parametrize("n_dust", [-2.0, -0.7, 0.0, 0.45, 1.0])
@pytest.mark.parametrize("tau", [0.0, 0.3, 3.0])
def test_diffuse_dust_is_the_formula(n_dust, tau):
    found = DustCurves.at(WAVELENGTHS.double()).diffuse(*torch.tensor([tau, n_dust], dtype=torch.float64))
    expected = [np.exp(-tau * curve(lam, n_dust)) for lam in WAVELENGTHS.tolist()]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)


def test_birth_clouds_are_a_power_law():
    found = DustCurves.at(WAVELENGTHS.double()).clouds(torch.tensor([0.0, 1.5]).double())
    np.testing.assert_allclose(found[0].numpy(), 1.0)
    np.testing.assert_allclose(found[1].numpy(), np.exp(-1.5 * 5500 / WAVELENGTHS.numpy()), rtol=1e-6)


def test_the_curve_is_nearly_one_at_the_reference_wavelength():
    """tau_ism is the optical depth at 5500 A: Calzetti's curve is 1.0 there to 1 %, the bump adds little."""
    found = DustCurves.at(torch.tensor([5500.0])).diffuse(torch.tensor(1.0), torch.tensor(0.85 / 1.9))
    assert float(-torch.log(found)) == pytest.approx(1.0, abs=0.01)


def test_calzettis_infrared_never_brightens():
    curves = DustCurves.at(torch.linspace(25_000, 56_000, 100))
    assert float(curves.calzetti.min()) == 0.0
    assert DustCurves.at(torch.tensor([CALZETTI_BREAKS_A[1]])).calzetti.item() == pytest.approx(0, abs=1e-6)
    assert bool((curves.diffuse(torch.tensor(3.0), torch.tensor(-2.0)) <= 1).all())


def test_the_side_of_the_break_can_be_chosen():
    """Both formulas near 6300 A; they do not quite meet, so the choice matters."""
    lam = torch.tensor([CALZETTI_BREAKS_A[0]] * 2).double()
    blue, red = DustCurves.at(lam, torch.tensor([0, 1])).calzetti.tolist()
    assert DustCurves.at(lam).calzetti.tolist() == [red, red]
    assert 1e-4 < abs(blue / red - 1) < 0.05


def test_batches_broadcast_and_keep_their_dtype():
    curves = DustCurves.at(WAVELENGTHS)
    tau, n = torch.rand(4, 3), torch.rand(4, 3)
    together = curves.diffuse(tau, n)
    assert together.shape == (4, 3, len(WAVELENGTHS))
    assert together.dtype == torch.float32
    assert torch.allclose(together[2, 1], curves.diffuse(tau[2, 1], n[2, 1]))
    exact = DustCurves.at(WAVELENGTHS.double()).diffuse(tau.double(), n.double())
    assert torch.allclose(together.double(), exact, atol=1e-6)


def test_inputs_are_not_changed():
    tau, n = torch.rand(5), torch.rand(5)
    before = tau.clone(), n.clone()
    curves = DustCurves.at(WAVELENGTHS)
    calzetti = curves.calzetti.clone()
    curves.diffuse(tau, n)
    curves.clouds(tau)
    assert torch.equal(tau, before[0])
    assert torch.equal(n, before[1])
    assert torch.equal(curves.calzetti, calzetti)
