"""The base class of formats, which turn a record of a file or a dataset into a row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import SerializerFunctionWrapHandler, model_serializer

from alignzoo.interfaces.component import Component
from alignzoo.interfaces.rows import Row, Skipped


class Format(Component):
    """Base class of formats: a subclass defines `name` and `row`.

    The hook `register_formats` returns the class. A format does not depend on where records come from: it works with
    files, saved datasets and the hub.
    """

    def row(self, id: str, record: Mapping[str, Any], where: str) -> Row | Skipped:
        """Return the row of one record, or a `Skipped` with the reason for an unusable record.

        Args:
            id: an id that is unique in the source.
            record: the fields of the record.
            where: the place of the record, for error messages.

        Raises:
            UserError: a field is missing or has the wrong type.
        """
        raise NotImplementedError(f"{type(self).__name__} has no row")

    @model_serializer(mode="wrap")
    def _with_name(self, fields: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Keep the name when a format is dumped as a field of its source."""
        return {"name": self.name, **fields(self)}
