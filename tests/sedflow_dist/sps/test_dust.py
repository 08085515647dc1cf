"""Attenuation curves against the formulas, written out once more."""

import numpy as np
import pytest
import torch

from sedflow_dist.parameters import Values
from sedflow_dist.sps import compiled_light
from sedflow_dist.sps.compiled_light import Dimming
from sedflow_dist.sps.dust import CALZETTI_BREAKS_A, BirthCloud, KriekConroy, SmallMagellanicCloud

WAVELENGTHS = torch.tensor([1000.0, 1500.0, 2175.0, 3000.0, 5500.0, 6299.0, 6300.0, 8000.0, 22_000.0, 40_000.0])


def pieces(lam):
    return torch.bucketize(lam.double(), torch.tensor(CALZETTI_BREAKS_A, dtype=torch.float64), right=True)


class Given(Values):
    """Parameters of which no space is told."""

    def __init__(self, **values):
        self._values = values

    def __getitem__(self, name):
        return self._values[name]


def diffuse_curves(lam, piece=None):
    found = KriekConroy().curves(lam.double(), pieces(lam) if piece is None else piece)
    return tuple(curve.to(lam.dtype) for curve in found)


def diffuse(lam, tau, n):
    return KriekConroy().transmission(Given(tau_ism=tau, n_dust=n), diffuse_curves(lam))


def clouds(lam, tau):
    found = BirthCloud().curves(lam.double(), pieces(lam))
    return BirthCloud().transmission(Given(tau_bc=tau), tuple(curve.to(lam.dtype) for curve in found))


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
    found = diffuse(WAVELENGTHS.double(), *torch.tensor([tau, n_dust], dtype=torch.float64))
    expected = [np.exp(-tau * curve(lam, n_dust)) for lam in WAVELENGTHS.tolist()]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)


def test_birth_clouds_are_a_power_law():
    found = clouds(WAVELENGTHS.double(), torch.tensor([0.0, 1.5]).double())
    np.testing.assert_allclose(found[0].numpy(), 1.0)
    np.testing.assert_allclose(found[1].numpy(), np.exp(-1.5 * 5500 / WAVELENGTHS.numpy()), rtol=1e-6)


def test_the_curve_is_nearly_one_at_the_reference_wavelength():
    """tau_ism is the optical depth at 5500 A: Calzetti's curve is 1.0 there to 1 %, the bump adds little."""
    found = diffuse(torch.tensor([5500.0]), torch.tensor(1.0), torch.tensor(0.85 / 1.9))
    assert float(-torch.log(found)) == pytest.approx(1.0, abs=0.01)


def test_calzettis_infrared_never_brightens():
    infrared = torch.linspace(25_000, 56_000, 100)
    assert float(diffuse_curves(infrared)[0].min()) == 0.0
    assert diffuse_curves(torch.tensor([CALZETTI_BREAKS_A[1]]))[0].item() == pytest.approx(0, abs=1e-6)
    assert bool((diffuse(infrared, torch.tensor(3.0), torch.tensor(-2.0)) <= 1).all())


def test_the_side_of_the_break_can_be_chosen():
    """Both formulas near 6300 A; they do not quite meet, so the choice matters."""
    lam = torch.tensor([CALZETTI_BREAKS_A[0]] * 2).double()
    blue, red = diffuse_curves(lam, torch.tensor([0, 1]))[0].tolist()
    assert diffuse_curves(lam)[0].tolist() == [red, red]
    assert 1e-4 < abs(blue / red - 1) < 0.05


def test_batches_broadcast_and_keep_their_dtype():
    tau, n = torch.rand(4, 3), torch.rand(4, 3)
    together = diffuse(WAVELENGTHS, tau, n)
    assert together.shape == (4, 3, len(WAVELENGTHS))
    assert together.dtype == torch.float32
    assert torch.allclose(together[2, 1], diffuse(WAVELENGTHS, tau[2, 1], n[2, 1]))
    exact = diffuse(WAVELENGTHS.double(), tau.double(), n.double())
    assert torch.allclose(together.double(), exact, atol=1e-6)


def test_inputs_are_not_changed():
    tau, n = torch.rand(5), torch.rand(5)
    before = tau.clone(), n.clone()
    curves = diffuse_curves(WAVELENGTHS)
    copies = [curve.clone() for curve in curves]
    KriekConroy().transmission(Given(tau_ism=tau, n_dust=n), curves)
    clouds(WAVELENGTHS, tau)
    assert torch.equal(tau, before[0])
    assert torch.equal(n, before[1])
    assert all(torch.equal(curve, copy) for curve, copy in zip(curves, copies, strict=True))


#: Gordon et al. 2003 (ApJ 594, 279), SMC bar: A(lambda) / A(V) at wavelengths in Angstrom, table 4.
GORDON = {2960: 2.000, 3700: 1.672, 4400: 1.374, 5500: 1.000, 6500: 0.801, 8100: 0.567, 12_500: 0.25, 16_500: 0.169}


def test_the_small_clouds_curve_is_the_one_measured_later():
    """Pei's fit, six terms of a paper, against measurements of another: 7 % in the optical and near infrared."""
    lam = torch.tensor([float(at) for at in GORDON], dtype=torch.float64)
    (curve,) = SmallMagellanicCloud().curves(lam, pieces(lam))
    np.testing.assert_allclose(curve.numpy(), list(GORDON.values()), rtol=0.07)
    found = SmallMagellanicCloud().transmission(Given(tau_ism=torch.tensor(0.7)), (curve,))
    np.testing.assert_allclose(found, np.exp(-0.7 * curve.numpy()), rtol=1e-6)


@pytest.mark.parametrize("screen", [BirthCloud(), KriekConroy(), SmallMagellanicCloud()])
def test_zero_curves_transmit_everything(screen):
    """What screens leave alone, such as the surviving mass, has zeros for its curves."""
    curves = tuple(torch.zeros(3) for _ in screen.curves(WAVELENGTHS.double(), pieces(WAVELENGTHS)))
    values = Given(**{name: torch.tensor([0.7]) for name in ("tau_bc", "tau_ism", "n_dust")})
    assert torch.equal(screen.transmission(values, curves), torch.ones(1, 3))


@pytest.mark.parametrize("made", ["compiled", "operators"])
@pytest.mark.parametrize(
    "screen", [BirthCloud(), KriekConroy(), SmallMagellanicCloud()], ids=lambda screen: screen.name
)
@pytest.mark.parametrize("shape", [(5, 7), (3, 4)], ids=str)
def test_light_behind_a_screen_is_dimmed_in_place(screen, shape, made, monkeypatch):
    """Galaxies with one curve for all, and many draws of galaxies at redshifts of their own; exponents of 60 round by 4e-6."""
    if made == "operators":
        monkeypatch.setattr(compiled_light, "library_for", lambda *_: None)
    generator = torch.Generator().manual_seed(6)
    tau, n = 3 * torch.rand(shape, generator=generator), 3 * torch.rand(shape, generator=generator) - 2
    tau[0, 0] = 0.0
    values = Given(tau_bc=tau, tau_ism=tau, n_dust=n)
    for of_galaxies in (True, False):
        lam = WAVELENGTHS.repeat(2)[:17] * (torch.linspace(0.7, 1, shape[0]).view(-1, 1, 1) if of_galaxies else 1.0)
        curves = tuple(curve.float() for curve in screen.curves(lam.double(), pieces(lam)))
        light = torch.rand(*shape, 17, generator=generator)
        expected = light * screen.transmission(values, curves)
        known = compiled_light.dim(light.clone(), Dimming(screen.optical_depth(values), curves, of_clouds=False))
        assert known == (made == "compiled" and not of_galaxies)
        screen.dim(light, values, curves)
        torch.testing.assert_close(light, expected, rtol=1e-5, atol=1e-20)


def test_a_screen_without_curves_dims_nothing():
    """Bit by bit: the surviving mass goes through screens beside the light."""
    light = torch.rand(40, 3)
    before = light.clone()
    KriekConroy().dim(light, Given(tau_ism=torch.rand(40), n_dust=torch.rand(40)), (torch.zeros(3),) * 3)
    assert torch.equal(light, before)
