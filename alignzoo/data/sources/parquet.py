"""Read records from Parquet files; columns of JSON text are parsed as in the `datasets` library."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from alignzoo.core.errors import UserError
from alignzoo.data.sources.optional import need

Decode = Callable[[Any], Any]


def parquet_records(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (number, record), counted from 1.

    Raises:
        UserError: The file is not Parquet, or a JSON column has text that is not JSON.
    """
    pyarrow = need("pyarrow.parquet", "Parquet files")
    from pyarrow import ArrowException

    try:
        table = pyarrow.ParquetFile(file)
        decoders = {field.name: decode for field in table.schema_arrow if (decode := _decoder(field)) is not None}
        number = 0
        for batch in table.iter_batches():
            for record in batch.to_pylist():
                number += 1
                yield number, _decoded(record, decoders, f"{file}: row {number}") if decoders else record
    except (ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"not a Parquet file: {error}", where=str(file)) from None


def _decoded(record: dict[str, Any], decoders: dict[str, Decode], where: str) -> dict[str, Any]:
    for name, decode in decoders.items():
        try:
            record[name] = decode(record[name])
        except (ValueError, RecursionError, TypeError) as error:
            raise UserError(f"{name}: invalid JSON: {error}", where=where, expected="JSON text") from None
    return record


def _decoder(field: Any) -> Decode | None:
    """Return a function that parses the JSON in values of an Arrow field, or None if the field has no JSON.

    JSON has Arrow's canonical extension type arrow.json. Versions of pyarrow without it leave its name in the field's
    metadata.
    """
    import pyarrow

    kind = field.type
    named = (field.metadata or {}).get(b"ARROW:extension:name", b"").decode()
    if getattr(kind, "extension_name", named) == "arrow.json":
        return lambda value: None if value is None else json.loads(value)
    if pyarrow.types.is_struct(kind):
        inside = {part.name: decode for part in kind if (decode := _decoder(part)) is not None}
        if inside:
            return lambda value: value and {k: inside[k](v) if k in inside else v for k, v in value.items()}
    elif pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind) or pyarrow.types.is_fixed_size_list(kind):
        item = _decoder(kind.value_field)
        if item is not None:
            return lambda value: value and [item(one) for one in value]
    return None
