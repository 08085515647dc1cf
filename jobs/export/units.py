"""Units of a catalog as astropy's, which knows how each container writes them."""

from __future__ import annotations

import astropy.units as u

from jobs.export.rows import Column

_UNITS = {
    "log10(Msun)": u.dex(u.solMass), "log10(Msun/yr)": u.dex(u.solMass / u.yr), "log10(1)": u.dex(u.one), "Gyr": u.Gyr,
    "mag": u.mag, "deg": u.deg,
}  # fmt: skip


def unit_of(column: Column) -> u.UnitBase | u.FunctionUnitBase | None:
    """Return a column's unit, or None where it has none."""
    return _UNITS.get(column.unit)
