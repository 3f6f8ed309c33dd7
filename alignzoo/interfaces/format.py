"""The base class of formats: what a record of a file or a dataset means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer

from alignzoo.interfaces.rows import Row, Skipped


class Format(BaseModel):
    """What a record means. Subclass it, give it a `name` and `row`, and return it from `register_formats`.

    A format knows nothing of where records come from: every one works with files, saved datasets and the hub.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: ClassVar[str]

    def row(self, id: str, record: Mapping[str, Any], where: str) -> Row | Skipped:
        """A row from one record; `id` is unique in the source, `where` is the place for errors.

        What can't be used is a `Skipped`; what is no such record (a missing field, a wrong type) raises UserError.
        """
        raise NotImplementedError(f"{type(self).__name__} has no row")

    @model_serializer(mode="wrap")
    def _with_name(self, fields: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """As a recipe writes it: it stands within its source's fields, where the name would else be lost."""
        return {"name": self.name, **fields(self)}
