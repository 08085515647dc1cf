"""Rows to Parquet and CSV, a row group or block at a time.

Parquet files carry a VOTable without data (the VOParquet convention of the IVOA: units, UCDs, meanings) beside each field's own
metadata.
"""

from __future__ import annotations

import io
import re
import warnings

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from astropy.io.votable import tree
from astropy.io.votable.exceptions import W03

from jobs.export.rows import Column, Rows
from jobs.export.units import unit_of
from jobs.export.whole import Destination, whole_file

#: What spreadsheets take for a formula, also behind blanks and in full width; and what is a number all the same.
_FORMULA = re.compile(r"[\t\r\n]|\s*[=+\-@＝＋－＠]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_VOTABLE_TYPES = {
    "b1": "boolean", "u1": "unsignedByte", "i2": "short", "i4": "int", "u4": "long", "i8": "long", "u8": "long",
    "f4": "float", "f8": "double",
}  # fmt: skip


def write_parquet(rows: Rows, out: Destination) -> None:
    """Write one Parquet file; a block is a row group."""
    fields = schema(rows)
    with whole_file(out) as file, pyarrow.parquet.ParquetWriter(file, fields) as writer:
        for block in rows.blocks():
            writer.write_table(table(block, fields))


def write_csv(rows: Rows, out: Destination) -> None:
    """Write one CSV file; a number that is not there is nan, an identifier that is missing is empty.

    Text that a spreadsheet would take for a formula has an apostrophe before it.
    """
    fields = schema(rows)
    header = pa.schema([field.with_name(harmless(field.name)) for field in fields])
    special = any(set(',"\r\n') & set(name) for name in header.names)
    options = pyarrow.csv.WriteOptions(quoting_header="needed" if special else "none")
    with whole_file(out) as file, pyarrow.csv.CSVWriter(file, header, write_options=options) as writer:
        for block in rows.blocks():
            content = table(block, fields)
            columns = [_harmless_column(column) for column in content.columns]
            writer.write_table(pa.Table.from_arrays(columns, schema=header))


def schema(rows: Rows) -> pa.Schema:
    """Return the Arrow schema with the metadata of columns and table."""
    about = {**rows.metadata, "IVOA.VOTable-Parquet.version": "1.0", "IVOA.VOTable-Parquet.content": _votable(rows)}
    return pa.schema([_field(column) for column in rows.columns], metadata=about)


def table(block: dict[str, np.ndarray], fields: pa.Schema) -> pa.Table:
    """Return a block as an Arrow table; what is masked is null."""
    arrays = [
        pa.array(block[f.name].tolist(), pa.string()) if f.type == pa.string() else pa.array(block[f.name], f.type)
        for f in fields
    ]
    return pa.Table.from_arrays(arrays, schema=fields)


def harmless(text: str) -> str:
    """Return text with an apostrophe before it where a spreadsheet would run it as a formula; a number is none.

    >>> harmless("=1+1"), harmless("-12"), harmless("M 31")
    ("'=1+1", '-12', 'M 31')
    """
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def _harmless_column(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if column.type != pa.string():
        return column
    return pa.chunked_array([[None if x is None else harmless(x) for x in column.to_pylist()]], pa.string())


def _field(column: Column) -> pa.Field:
    kind = pa.string() if column.is_text else pa.from_numpy_dtype(column.dtype)
    about = {"unit": str(unit_of(column) or ""), "description": column.description}
    return pa.field(column.name, kind, metadata={key: text for key, text in about.items() if text} or None)


def _votable(rows: Rows) -> str:
    """The VOTable of the columns; version 1.3, whose units know logarithms."""
    file = tree.VOTableFile(version="1.3")
    resource, content = tree.Resource(), tree.TableElement(file)
    file.resources.append(resource)
    resource.tables.append(content)
    for name, value in rows.metadata.items():
        content.params.append(tree.Param(file, name=name, datatype="char", arraysize="*", value=value))
    widths = rows.text_widths()
    for column in rows.columns:
        if column.is_text:
            kind = {"datatype": "char", "arraysize": str(widths[column.name])}
        else:
            kind = {"datatype": _VOTABLE_TYPES[np.dtype(column.dtype).str[1:]]}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", W03)  # the name stays; only XML's identifier of the field differs from it
            field = tree.Field(file, name=column.name, ucd=column.ucd or None, unit=unit_of(column), **kind)
        field.description = column.description or None
        content.fields.append(field)
    text = io.BytesIO()
    file.to_xml(text)
    return text.getvalue().decode()
