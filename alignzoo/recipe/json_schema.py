"""JSON Schema of recipes and of partial files, for editors and for other programs.

It says what a schema can: keys, types, bounds, options and the names of components. What needs more than one value, or
the data, is checked by `alignzoo validate`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any

from pydantic import BaseModel

from alignzoo.interfaces.component import Component, summary
from alignzoo.interfaces.hookspecs import KINDS
from alignzoo.recipe.components import DEFAULT, nested_kind
from alignzoo.recipe.rewards import FIELDS, Reward
from alignzoo.recipe.schema import Recipe
from alignzoo.recipe.validate import OPTIMIZERS
from alignzoo.registry.known_packages import PACKAGE_OF
from alignzoo.registry.lookup import Registry

DIALECT = "https://json-schema.org/draft/2020-12/schema"
OPTIMIZER = "optimizer"
"""Chosen by name as components are, and no kind of plugin."""
BASES = {base.partition(":")[2]: kind for kind, (_, base) in KINDS.items()}
"""Name of a base class of components -> its kind."""
FILLED_IN = ("name", "reporters")
"""Required fields of a recipe that the loader fills in."""
OF_TRAINING = ("objective", "train")
"""Required sections of a recipe that trains."""
UNNAMED = {"model source": "transformers", **DEFAULT}
"""Kind -> the component of a node without a name."""
BESIDE = {"objective": ("modifiers", "weight"), "judge": FIELDS}
"""Kind -> keys that a node of it may have beside the fields of its class."""
EXTENDS = "recipes that this one is merged on top of: paths, or names of shipped ones"
"""Description of the key `extends`, which is no field of a merged recipe."""
Schema = dict[str, Any]


def recipe_schema(known: Registry, partial: bool = False) -> Schema:
    """Return the JSON Schema of a recipe, or of a file that is merged on top of one.

    A file with `extends` may leave out what it inherits. Names are those that the registry knows and those of our
    other packages; a file with `plugins` may use any.

    Args:
        known: The components that have names.
        partial: The schema of a file for `--with`, in which nothing is required.
    """
    definitions: dict[str, Schema] = {}
    part = _Writer(known, definitions, partial=True).recipe()
    names = {"if": {"not": {"required": ["plugins"]}}, "then": _Names(known, definitions).recipe()}
    title = "alignzoo recipe, merged on top of another" if partial else "alignzoo recipe"
    if partial:
        content = part
    else:
        whole = _Writer(known, definitions, partial=False).recipe()
        content = {"if": {"required": ["extends"]}, "then": part, "else": whole}
    return {"$schema": DIALECT, "title": title, "type": "object", "allOf": [content, names], "$defs": definitions}


class _Writer:
    """Write definitions of sections and components, each once, and return references to them."""

    def __init__(self, known: Registry, definitions: dict[str, Schema], partial: bool) -> None:
        self.known, self.definitions, self.partial = known, definitions, partial

    def recipe(self) -> Schema:
        """Return the schema of a file, with the short spellings that the loader expands."""
        recipe = self._object(*_raw(Recipe), "")  # its definitions are found below by name
        fields = recipe["properties"]
        kind = {one: self.node(one) for one in ("metric", "judge", "reporter", "model source", "data source")}
        fields["extends"] = {
            **_or_list({"type": "string"}),
            "description": EXTENDS,
        }
        _set(fields, "objective", {"anyOf": [self.node("objective", ("modifiers",)), _list(self.node("objective"))]})
        _set(fields, "reporters", _or_list(kind["reporter"]))
        models = {"anyOf": [{"type": "string"}, kind["model source"]]}
        _set(fields, "references", {"type": "object", "additionalProperties": models})
        evaluation, train = self._fields_of("EvalConfig"), self._fields_of("TrainConfig")
        _set(evaluation, "metrics", _or_list(kind["metric"]))
        _set(evaluation, "judges", _or_list(kind["judge"]))
        sets = {"anyOf": [kind["data source"], {"type": "null"}]}
        _set(evaluation, "data", {"type": "object", "additionalProperties": sets})
        rewards = {"anyOf": [*_or_list(self.node("judge", FIELDS))["anyOf"], {"type": "null"}]}
        for section in ("RolloutConfig", "DrawConfig"):
            _set(self._fields_of(section), "rewards", rewards)
        critic = self._fields_of("CriticConfig")  # its fields stand beside those of its model
        critic.pop("model")
        critic |= {name: field for name, field in self._any_of("model source", ()).items() if name not in critic}
        self.definitions.pop(self._name("Reward"), None)  # a reward is a judge's node with further keys
        _set(train, "optimizer", self.node(OPTIMIZER))
        schedule = self._fields_of("Schedule")["name"]
        _set(train, "schedule", {"anyOf": [{"enum": schedule["enum"]}, self._ref("Schedule")]})
        recipe["required"] = [] if self.partial else [key for key in recipe["required"] if key not in FILLED_IN]
        if not self.partial:  # a recipe with `draw` has no objective, and no optimizer
            trains = [key for key in recipe["required"] if key in OF_TRAINING]
            recipe["required"] = [key for key in recipe["required"] if key not in OF_TRAINING]
            recipe["anyOf"] = [{"required": trains}, {"required": ["draw"]}]
        return recipe

    def node(self, kind: str, beside: tuple[str, ...] | None = None) -> Schema:
        """Return a reference to the schema of a name, or of {name: ..., fields, beside}."""
        beside = () if beside is None and kind == "judge" else BESIDE.get(kind, ()) if beside is None else beside
        key = "_".join([kind.replace(" ", "_"), *beside])
        return self._defined(key, lambda: self._node(kind, beside))

    def _node(self, kind: str, beside: tuple[str, ...]) -> Schema:
        classes = _classes(self.known, kind)
        names = {name: _spellings(self.known, name, cls) for name, cls in classes.items()}
        summaries = [{"const": name, "description": summary(cls)} for name, cls in classes.items()]
        name: Schema = {"anyOf": [*summaries, {"type": "string"}], "description": f"the {kind}"}
        cases = [
            {"if": {"properties": {"name": {"enum": names[key]}}, "required": ["name"]},
             "then": self._component(kind, cls, beside)}
            for key, cls in classes.items()
        ]  # fmt: skip
        default = UNNAMED.get(kind)
        if self.partial:
            cases.append({"if": {"not": {"required": ["name"]}}, "then": {"properties": self._any_of(kind, beside)}})
        elif default:
            unnamed = {"if": {"not": {"required": ["name"]}}, "then": self._component(kind, classes[default], beside)}
            cases.append(unnamed)
        required = [] if self.partial or default else ["name"]
        given = {"type": "object", "properties": {"name": name}, "required": required, "allOf": cases}
        if kind == "model source":
            return given
        alone = [] if self.partial else [name for key, cls in classes.items() if _required(cls) for name in names[key]]
        return {"anyOf": [{**name, "not": {"enum": alone}} if alone else name, given]}

    def _component(self, kind: str, cls: type[BaseModel], beside: tuple[str, ...]) -> Schema:
        """Return the fields of a class, closed: `name`, its own and those beside them."""
        fields = self._defined(
            _key(self.known, kind, cls), lambda: self._object(*_raw(cls), cls.__name__, closed=False)
        )
        names = [key for key in _raw(cls)[0].get("properties", {}) if key != "name"]
        return {
            "allOf": [fields],
            "properties": {"name": True, **dict.fromkeys(names, True), **self._beside(beside)},
            "additionalProperties": False,
            **({} if self.partial else {"required": _required(cls)}),
        }

    def _any_of(self, kind: str, beside: tuple[str, ...]) -> dict[str, Schema]:
        """Return the fields of every class of a kind, for a node that inherits its name."""
        found: dict[str, list[Schema]] = {}
        for cls in _classes(self.known, kind).values():
            self._component(kind, cls, beside)
            own = self.definitions[self._name(_key(self.known, kind, cls))]
            for key, value in own["properties"].items():
                schemas = found.setdefault(key, [])
                if key != "name" and value not in schemas:
                    schemas.append(value)
        several = {key: {"anyOf": some} if len(some) > 1 else some[0] for key, some in found.items() if some}
        return {**several, **self._beside(beside)}

    def _beside(self, keys: Iterable[str]) -> dict[str, Schema]:
        own = _raw(Reward)[0]["properties"]
        weight = {"type": "number", "exclusiveMinimum": 0, "description": "factor in the sum of objectives"}
        modifiers = {**_or_list(self.node("modifier")), "description": "modifiers, the innermost first"}
        terms = {"weight": weight, "modifiers": modifiers} if "modifiers" in keys else {}
        return {key: terms[key] if key in terms else _untitled(own[key]) for key in keys}

    def _object(self, raw: Schema, definitions: Mapping[str, Schema], owner: str, closed: bool = True) -> Schema:
        """Return an object's schema without titles, with references to our definitions.

        `owner` is the component that has the object, or "". One that is not closed is a part of another schema.
        """
        fields = {key: self._value(value, definitions, owner) for key, value in raw.get("properties", {}).items()}
        about = {"description": raw["description"]} if "description" in raw else {}
        ends = {"additionalProperties": False} if closed else {}
        required = {"required": raw.get("required", [])} if closed and not self.partial else {}
        return {"type": "object", **about, "properties": fields, **required, **ends}

    def _value(self, raw: Any, definitions: Mapping[str, Schema], owner: str) -> Any:
        if isinstance(raw, list):
            return [self._value(item, definitions, owner) for item in raw]
        if not isinstance(raw, dict):
            return raw
        if "$ref" in raw:
            name = raw["$ref"].rpartition("/")[2]
            about = {"description": raw["description"]} if "description" in raw else {}
            if name in BASES:
                return {**self.node(BASES[name]), **about}
            key = f"{owner}.{name}" if owner else name
            return {**self._defined(key, lambda: self._object(definitions[name], definitions, owner)), **about}
        return {key: value if key == "default" else self._value(value, definitions, owner)
                for key, value in raw.items() if key not in ("title", "discriminator")}  # fmt: skip

    def _fields_of(self, section: str) -> dict[str, Schema]:
        fields: dict[str, Schema] = self.definitions[self._name(section)]["properties"]
        return fields

    def _name(self, key: str) -> str:
        return f"partial.{key}" if self.partial else key

    def _ref(self, key: str) -> Schema:
        return {"$ref": f"#/$defs/{self._name(key)}"}

    def _defined(self, key: str, make: Callable[[], Schema]) -> Schema:
        name = self._name(key)
        if name not in self.definitions:
            self.definitions[name] = {}  # a mixture holds data sources
            self.definitions[name] = make()
        return self._ref(key)


class _Names:
    """Schemas that refuse unknown names of components, wherever a recipe has one."""

    def __init__(self, known: Registry, definitions: dict[str, Schema]) -> None:
        self.known, self.definitions = known, definitions

    def recipe(self) -> Schema:
        """Return the schema of a recipe's names."""
        kinds = {kind: self._kind(kind) for kind in (*KINDS, OPTIMIZER)}
        named = {kind: {"additionalProperties": kinds[kind]} for kind in ("model source", "data source")}
        evaluation = {"metrics": kinds["metric"], "judges": kinds["judge"], "data": named["data source"]}
        fields = {
            "objective": kinds["objective"], "model": kinds["model source"], "data": kinds["data source"],
            "references": {"additionalProperties": {"if": {"type": "object"}, "then": kinds["model source"]}},
            "reporters": kinds["reporter"], "eval": {"properties": evaluation},
            "rollout": {"properties": {"rewards": kinds["judge"]}},
            "draw": {"properties": {"rewards": kinds["judge"]}},
            "filter": {"properties": {"metric": kinds["metric"]}},
            "train": {"properties": {"optimizer": kinds[OPTIMIZER]}},
        }  # fmt: skip
        return {"properties": fields}

    def _kind(self, kind: str) -> Schema:
        key = f"known.{kind.replace(' ', '_')}"
        ref = {"$ref": f"#/$defs/{key}"}
        if key in self.definitions:
            return ref
        self.definitions[key] = {}
        classes = _classes(self.known, kind)
        names = [one for name, cls in classes.items() for one in _spellings(self.known, name, cls)]
        names += [one for name, package in PACKAGE_OF.get(kind, {}).items() for one in (name, f"{package}/{name}")]
        name = {"enum": sorted(set(names))}
        inner = {"modifiers": self._kind("modifier")} if kind == "objective" else {}
        fields = {"name", *BESIDE.get(kind, ())}
        for cls in classes.values():
            fields |= set(_raw(cls)[0].get("properties", {}))
            for field, info in cls.model_fields.items():
                if nested := nested_kind(info.annotation):
                    inner[info.alias or field] = self._kind(nested)
        unnamed = {"if": {"not": {"required": ["name"]}}, "then": {"propertyNames": {"enum": sorted(fields)}}}
        self.definitions[key] = {
            "if": {"type": "string"}, "then": name,
            "else": {
                "if": {"type": "array"}, "then": {"items": ref},
                "else": {"if": {"type": "object"}, "then": {"properties": {"name": name, **inner}, **unnamed}},
            },
        }  # fmt: skip
        return ref


def _classes(known: Registry, kind: str) -> Mapping[str, type[BaseModel]]:
    return OPTIMIZERS if kind == OPTIMIZER else known.known(kind)


def _key(known: Registry, kind: str, cls: type[BaseModel]) -> str:
    """Return the key of the definition of a class's fields."""
    name = known.spelling(cls).replace("/", ".") if issubclass(cls, Component) else cls.__name__
    return f"{kind.replace(' ', '_')}.{name}"


def _spellings(known: Registry, name: str, cls: type[BaseModel]) -> list[str]:
    """Return every name of a class in a recipe, with and without its package."""
    return list(
        dict.fromkeys([name, f"{known.origin(cls).package}/{cls.name}"] if issubclass(cls, Component) else [name])
    )


def _required(cls: type[BaseModel]) -> list[str]:
    return [info.alias or key for key, info in cls.model_fields.items() if info.is_required() and key != "name"]


@cache
def _raw(cls: type[BaseModel]) -> tuple[Schema, dict[str, Schema]]:
    """Return pydantic's schema of a class, and its definitions. Nobody changes them."""
    raw = cls.model_json_schema(mode="validation")
    return raw, raw.pop("$defs", {})


def _untitled(raw: Schema) -> Schema:
    return {key: value for key, value in raw.items() if key != "title"}


def _set(fields: dict[str, Schema], key: str, schema: Schema) -> None:
    """Replace a field's schema and keep its description."""
    about = {"description": fields[key]["description"]} if "description" in fields[key] else {}
    fields[key] = {**schema, **about}


def _list(schema: Schema) -> Schema:
    return {"type": "array", "items": schema}


def _or_list(schema: Schema) -> Schema:
    """Return the schema of one or of a list."""
    return {"anyOf": [schema, _list(schema)]}
