"""What no piece of an input can tell alone: vectors of one length, cuts and counts in one unit."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny
from astropy.table import Table

from jobs.containers.formats import open_catalog
from jobs.ingest import agreement, calibrated
from sedflow_dist.photometry.cuts import Cut
from sedflow_dist.photometry.survey import Survey

BANDS = "gri"


def survey(**changes):
    declared = {
        "name": "test", "bands": [f"sdss2010-{b}" for b in BANDS], "labels": list(BANDS), "flux": [f"F_{b}" for b in BANDS],
        "error": [f"E_{b}" for b in BANDS], "error_kind": "sigma", "model_error": 0.0, "ra": None, "dec": None,
    }  # fmt: skip
    return Survey.model_validate(declared | changes)


def columns(n=4):
    return {"Z": np.full(n, 0.1), **{f"{x}_{b}": np.ones(n) for x in "FE" for b in BANDS}}


def require(declared, *paths, rows_per_piece=100):
    """Read files in pieces, and compare what they say."""
    found = []
    for path in paths:
        place = tiny.location(path)
        with open_catalog(place) as catalog:
            n = catalog.n_rows
        for start in range(0, n, rows_per_piece):
            rows = slice(start, min(start + rows_per_piece, n))
            found.append((place, calibrated.read(place, rows, declared, {})[2]))
    agreement.require(found)


def vectors(path, *lengths):
    table = {name: values for name, values in columns(len(lengths)).items() if not name.startswith("F_")}
    found = pa.array([None if n is None else np.arange(n) + 1.0 for n in lengths], pa.list_(pa.float64()))
    pq.write_table(pa.table({**table, "F": found}), path)
    return path


VECTORS = survey(flux=["F[0]", "F[1]", "F[2]"])


def test_the_third_of_five_is_not_the_third_of_seven(tmp_path):
    """Whether they are in one piece, in several, or in several files."""
    both = vectors(tmp_path / "both.parquet", 5, 5, 7, 7)
    with pytest.raises(ValueError, match="different lengths"):
        require(VECTORS, both)
    with pytest.raises(
        ValueError, match=r"both\.parquet: the number of entries per row of F is 7, and 5 in other rows"
    ):
        require(VECTORS, both, rows_per_piece=2)
    five, seven = vectors(tmp_path / "5.parquet", 5, 5), vectors(tmp_path / "7.parquet", 7)
    with pytest.raises(ValueError, match=r"7\.parquet: the number of entries per row of F is 7, and 5 in .*5\.parquet"):
        require(VECTORS, five, seven)
    require(VECTORS, vectors(tmp_path / "nulls.parquet", None, None), five, five)


def with_unit(path, column, unit):
    table = Table({**columns(), "R": np.ones(4)})
    table[column].unit = unit
    table.write(path, overwrite=True)
    return path


CUT = {"cuts": {"large": Cut(column="R", above=3)}}


@pytest.mark.parametrize(
    ("declared", "column", "units", "message"),
    [
        (CUT, "R", ("arcsec", "arcmin"), "the unit of R is arcmin, and arcsec in .*0.ecsv"),
        (CUT, "R", ("arcsec", None), "the unit of R is not stated, and arcsec"),
        (CUT, "R", ("arcsec", "arcsec"), None), (CUT, "R", (None, None), None), (CUT, "R", ("furlong", "furlong"), None),
        (CUT | {"units": {"R": "arcsec"}}, "R", ("arcsec", None), None),
        ({"cuts": {"six": Cut(column="R", classes=(6,))}}, "R", ("arcsec", "arcmin"), None),
        ({"cuts": {"bright": Cut(column="f_g", above=9)}}, "F_g", ("nmgy", "nJy"), None),  # converted
        ({"zero_point": 22.5}, "F_g", ("adu", "electron"), "what F_g counts is electron, and adu"),
        ({"zero_point": 22.5}, "F_g", ("ct", "ct / s"), "what F_g counts is ct / s, and ct"),
        ({"zero_point": 22.5}, "F_g", ("adu", "1e3 DN"), None), ({"zero_point": 22.5}, "F_g", ("ct", "nmgy"), None),
    ],
)  # fmt: skip
def test_cuts_and_counts_are_in_one_unit_in_all_files(declared, column, units, message, tmp_path):
    paths = [with_unit(tmp_path / f"{i}.ecsv", column, unit) for i, unit in enumerate(units)]
    if message is None:
        require(survey(**declared), *paths)
        return
    with pytest.raises(ValueError, match=message):
        require(survey(**declared), *paths)
