"""YAML is read by the core schema of YAML 1.2, and what is written is read as it was."""

import math

import hypothesis.strategies as st
import pytest
import yaml
from hypothesis import given

from cluster import yaml_files

WORDS = {
    "on: ID": {"on": "ID"}, "[NO, yes, Off, y]": ["NO", "yes", "Off", "y"], "01:00:00": "01:00:00", "1:20": "1:20",
    "2026-11-26": "2026-11-26", "[true, False]": [True, False], "[~, null, ]": [None, None], "0127": 127, "[0o17, 0x1F]": [15, 31],
    "[1e6, .5, -2., 1E-3, -.inf]": [1e6, 0.5, -2.0, 1e-3, -math.inf], "1_000": "1_000", "0b1": "0b1", "'12'": "12", "=": "=",
    "{a: &x {b: 1}, c: {<<: *x}}": {"a": {"b": 1}, "c": {"b": 1}},
}  # fmt: skip


@pytest.mark.parametrize("text", WORDS)
def test_words_are_words_and_numbers_are_numbers(tmp_path, text):
    (tmp_path / "a.yaml").write_text(text)
    assert yaml_files.read(tmp_path / "a.yaml") == WORDS[text]


def test_a_word_that_is_no_number_stays_nan_where_it_is_one(tmp_path):
    (tmp_path / "a.yaml").write_text("[.nan, nan]")
    number, word = yaml_files.read(tmp_path / "a.yaml")
    assert math.isnan(number) and word == "nan"


_TEXT = st.one_of(
    st.sampled_from(["on", "no", "1e6", "0o7", "010", "1:20", "2026-11-26", "~", "", "=", "<<", "1_0", ".5", "+1", "0b1"]),
    st.text("0123456789.eE+-_:xobnyf~<= ", max_size=8),
    st.text(st.characters(codec="utf-8", exclude_categories=["C"]), max_size=8),
)  # fmt: skip
_VALUE = st.recursive(
    st.one_of(_TEXT, st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_TEXT, inner, max_size=3)),
    max_leaves=6,
)


@given(_VALUE)
def test_what_is_written_is_read_as_it_was_here_and_by_others(tmp_path_factory, value):
    file = tmp_path_factory.getbasetemp() / "written.yaml"
    file.write_text(yaml_files.dump(value))
    assert repr(yaml_files.read(file)) == repr(value)  # 1 is not True, and -0.0 is not 0.0
    assert repr(yaml.safe_load(file.read_text())) == repr(value)
