"""Columns declared once, and answers of several methods merged: each says what it says, and nothing else is touched."""

import dataclasses

import numpy as np
import pytest

from jobs.columns import INFERRED
from jobs.export.rows import CERTIFICATE
from sedflow_dist.inference.summary import COLUMNS, Answer, Method, Summary, latest
from sedflow_dist.photometry.flags import Flag
from sedflow_dist.photometry.photometry import Photometry
from storage_schemas.catalog import schema

SIZES = {"param": 2, "quantile": 5, "draw": 3, "coordinate": 11, "band": 4}
LOW, FAILED, EDGE = (np.uint32(int(f)) for f in (Flag.LOW_EFFECTIVE_FRACTION, Flag.FAILED, Flag.PRIOR_EDGE))


def answer(at, ok, flags, **columns):
    return Answer(np.array(at), np.array(ok), np.array(flags, np.uint32), {k: np.array(v) for k, v in columns.items()})


def merge(n, answers, flags=None):
    photometry = Photometry.of(np.ones((n, 4)), np.array([[1.0, 1, 1, 0]] * n))
    return Summary.of(photometry, np.zeros(n, np.uint32) if flags is None else flags, answers, SIZES)


def test_every_field_is_a_column_of_the_catalog_and_has_words():
    names = [field.name for field in dataclasses.fields(Summary)]
    assert [column.name for column in COLUMNS] == [name for name in names if name != "flags"]
    stored = {spec.name: spec for spec in schema.arrays(INFERRED, {})}
    assert len(stored) == len(schema.arrays(INFERRED, {}))  # no array is declared twice
    for column in COLUMNS:
        spec = stored[column.name]
        assert (spec.dims, spec.dtype, spec.units) == (("galaxy", *column.dims), column.dtype, column.unit)
        assert spec.long_name == column.meaning and column.meaning
        assert (column.name in CERTIFICATE) == (not column.dims)
    assert stored["flags"].dtype == "uint32"


def test_of_a_row_without_an_answer_nothing_is_known():
    found = merge(3, [])
    for column in COLUMNS:
        values = getattr(found, column.name)
        assert values.shape == (3, *(SIZES[d] for d in column.dims)) and values.dtype == column.dtype, column.name
        if values.dtype.kind == "f":
            assert np.isnan(values).all(), column.name
    assert found.method.tolist() == [Method.NONE] * 3
    assert found.n_bands.tolist() == [3] * 3  # what was measured is known


def test_the_later_answer_counts_and_says_only_what_it_says():
    flow = answer([0, 2], [True, True], [LOW, 0], chi2=[1.0, 2.0], pareto_k=[0.9, 0.1], method=[1, 2])
    chain = answer([0], [True], [EDGE], chi2=[3.0], rhat=[1.05], method=[5])
    found = merge(4, [flow, chain])
    np.testing.assert_array_equal(found.chi2, np.float32([3, np.nan, 2, np.nan]))
    np.testing.assert_array_equal(
        found.pareto_k, np.float32([0.9, np.nan, 0.1, np.nan])
    )  # the chain says nothing of it
    np.testing.assert_array_equal(found.rhat, np.float32([1.05, np.nan, np.nan, np.nan]))
    assert found.method.tolist() == [5, 0, 2, 0]
    assert found.flags.tolist() == [EDGE, 0, 0, 0]  # poor weights are no longer what the row is answered by


def test_a_method_without_an_answer_leaves_what_was_said_and_may_flag():
    before = np.array([int(Flag.NOVEL)] * 2, np.uint32)
    first = answer([0, 1], [True, False], [LOW, FAILED], mean=[[1, 2], [8, 9]], method=[1, 1])
    found = merge(2, [first, answer([0], [False], [0], mean=[[5, 6]], method=[5])], before)
    np.testing.assert_array_equal(found.mean, np.float32([[1, 2], [np.nan, np.nan]]))
    assert found.method.tolist() == [1, 0]
    assert found.flags.tolist() == [int(Flag.NOVEL) | LOW, int(Flag.NOVEL) | FAILED]
    assert before.tolist() == [int(Flag.NOVEL)] * 2  # the caller's flags are the caller's


def test_nothing_is_written_through_a_frozen_object():
    found = merge(1, [])
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.chi2 = np.ones(1)
    assert latest("chi2", 2, [answer([1], [True], [0], chi2=[4.0])]).tolist()[1] == 4
