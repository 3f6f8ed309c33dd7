"""Offers of classes that were defined in Python, identified by their source.

A plugin is identified by its files. A class of a notebook or of a script has no file of its own: its source counts, and
that of everything it uses which no installed package has.
"""

from __future__ import annotations

import ast
import builtins
import dis
import functools
import inspect
import linecache
import site
import sys
import sysconfig
import textwrap
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from pydantic.fields import ModelPrivateAttr

from alignzoo.core.digests import digest
from alignzoo.core.door import read_bytes
from alignzoo.core.errors import UserError
from alignzoo.interfaces import hookspecs
from alignzoo.registry.code import code_of_class, code_of_file
from alignzoo.registry.offers import Offer, Package, PluginError, checked_offer

IN_MEMORY = "(in memory)"
"""The package of these classes."""
LOADS = ("LOAD_GLOBAL", "LOAD_NAME")
"""Instructions that read a name of the module."""
SCALARS = (bool, int, float, complex, str, bytes, type(None), type(...), range)
PLACES = ("stdlib", "platstdlib", "purelib", "platlib")
LIBRARIES = [Path(path).resolve() for path in (*map(sysconfig.get_path, PLACES), site.getusersitepackages()) if path]
"""Folders of Python itself and of installed packages."""


def offer_in_memory(cls: Any) -> Offer:
    """Return the offer of a class that no plugin registers.

    Raises:
        UserError: It is wrong as a plugin's class would be, or its code can't be identified.
    """
    kind = next((kind for kind, (_, base) in hookspecs.KINDS.items() if _is_a(cls, base)), "")
    if not kind:
        raise UserError(f"{cls!r} is no component", expected=f"a subclass for one of {', '.join(hookspecs.KINDS)}")
    hook, base = hookspecs.KINDS[kind]
    try:
        return checked_offer(kind, hook, base, cls, Package(IN_MEMORY, _codes={cls.__module__: code_in_memory(cls)}))
    except PluginError as reason:
        raise UserError(str(reason), where=cls.__qualname__) from None


def _is_a(cls: type, base: str) -> bool:
    module, _, attribute = base.partition(":")
    parent = getattr(sys.modules.get(module), attribute, None)  # a subclass has imported it
    return isinstance(cls, type) and parent is not None and issubclass(cls, parent)


def code_in_memory(cls: type) -> str:
    """Return 32 hex digits of a class's source and of all that it uses.

    Functions, classes and values of the same notebook or script count by their source. Modules of your own count by
    their files. Installed packages count by name, as they do for a plugin.

    Raises:
        UserError: Something that it uses has neither a source nor a plain value.
    """
    found = _Sources(cls.__qualname__)
    found.add(cls)
    return digest(found.texts)


class _Sources:
    """The source of a class and of everything that it uses, each once."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.texts: list[str] = []
        self._seen: dict[int, tuple[int, Any]] = {}

    def add(self, value: Any, name: str = "") -> None:
        """Add a value and what it uses. `name` is what the code calls it."""
        if isinstance(value, SCALARS):
            self.texts.append(f"{name} = {value!r}")
            return
        if id(value) in self._seen:
            if callable(value):
                self.texts.append(f"{name} = {self._seen[id(value)][0]}")
            return
        self._seen[id(value)] = len(self._seen), value
        if isinstance(value, list | tuple | set | frozenset):
            self.texts.append(f"{name}: {type(value).__name__} of {len(value)}")
            for item in sorted(value, key=repr) if isinstance(value, set | frozenset) else value:
                self.add(item, name)
        elif isinstance(value, Mapping):
            self.texts.append(f"{name}: {list(map(repr, value))}")
            for item in value.values():
                self.add(item, name)
        elif isinstance(value, ModuleType):
            self._add_module(value)
        elif isinstance(value, functools.partial):
            for part in (value.func, value.args, value.keywords):
                self.add(part, name)
        elif isinstance(value, MethodType):
            self.add(value.__self__, name)
            self.add(value.__func__, name)
        elif isinstance(value, classmethod | staticmethod):
            self.add(value.__func__, name)
        elif isinstance(value, property | functools.cached_property):
            accessors = ("fget", "fset", "fdel", "func")
            for accessor in (getattr(value, key, None) for key in accessors):
                if accessor is not None:
                    self.add(accessor, name)
        elif isinstance(value, Enum):
            self.texts.append(f"{name} = {value.name}")
            self.add(type(value), name)
        elif isinstance(value, FunctionType):
            self._add_function(value)
        elif isinstance(value, type):
            self._add_class(value)
        elif isinstance(value, ModelPrivateAttr):
            self.add(value.default_factory or value.default, name)
        elif isinstance(wrapped := getattr(value, "__wrapped__", None), FunctionType):  # of functools.lru_cache
            self.texts.append(f"{name}: {type(value).__qualname__}")
            self.add(wrapped, name)
        elif isinstance(value, BuiltinFunctionType) or _is_installed(_module_of(value)):
            self.texts.append(f"{name}: {_module_of(value)} {getattr(value, '__qualname__', type(value).__qualname__)}")
            if not isinstance(value, BuiltinFunctionType):
                self._add_value(value, name)
            elif not isinstance(value.__self__, ModuleType | None):  # a method of a value, such as {...}.get
                self.add(value.__self__, name)
        else:
            raise self._unidentified(name, value)

    def _add_value(self, value: Any, name: str) -> None:
        """Add an object of a library by its text.

        That is all of it where it has no address, and the object is no array or model.
        """
        text = repr(value)
        if " at 0x" in text or any(hasattr(value, key) for key in ("shape", "state_dict", "save_pretrained")):
            raise self._unidentified(name, value)
        self.texts.append(text)

    def _add_module(self, module: ModuleType) -> None:
        self.texts.append(f"module {module.__name__}")
        if not _is_installed(module.__name__):
            self.texts.append(_code_of_module(module.__name__))

    def _add_function(self, function: FunctionType) -> None:
        named = _is_named(function)
        module = function.__module__ if named else str(function.__globals__.get("__name__"))  # a wrapper has another's
        if _has_files(module):
            self.texts.append(f"{module} {function.__qualname__}")
            self._add_files(module)
            if not named and _is_installed(module) and hasattr(function, "__wrapped__"):
                self.add(function.__wrapped__)  # a library's decorator, such as torch.no_grad()
            elif not named:
                self._add_captured(function)
            return
        self.texts.append(self._source_of_function(function))
        self._add_used(function)

    def _add_used(self, function: FunctionType) -> None:
        """Add what a function reads from its module, its closure and its defaults."""
        for name in dict.fromkeys(_globals_read(function.__code__)):
            if name in function.__globals__:
                self.add(function.__globals__[name], name)
            elif not hasattr(builtins, name):
                self.texts.append(f"{name} is undefined")
        self._add_captured(function)

    def _add_captured(self, function: FunctionType) -> None:
        """Add what a function has of the call that made it."""
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            try:
                self.add(cell.cell_contents, name)
            except ValueError:  # not assigned yet
                continue
        self.add(function.__defaults__ or (), "defaults")
        self.add(function.__kwdefaults__ or {}, "defaults")

    def _add_class(self, cls: type) -> None:
        module = cls.__module__
        self.texts.append(f"class {module if _has_files(module) else ''} {cls.__qualname__}")
        if _has_files(module):
            self._add_files(module)
            if _is_installed(module) or _is_named(cls):
                return
        members = {name: one.value for name, one in cls.__members__.items()} if issubclass(cls, Enum) else {}
        own = {name: value for name, value in vars(cls).items() if _is_own(name, value)}
        if members:  # beside these an Enum has tables of its own
            own = {name: value for name, value in own.items() if _function_in(value)} | members
        functions = [one for value in own.values() if (one := _function_in(value)) and one.__module__ == module]
        self.texts.append(self._source_of_class(cls, functions))
        for name in vars(cls).get("__annotations__", {}):
            self.texts.append(f"{name}: {getattr(cls, 'model_fields', {}).get(name)!r}")
        # Of what the body computed, the source has the expressions alone.
        for name, value in (own | vars(cls).get("__private_attributes__", {})).items():
            self.add(value, name)
        for base in cls.__bases__:
            self.add(base)

    def _add_files(self, module: str) -> None:
        if not _is_installed(module):
            self.texts.append(_code_of_module(module))

    def _source_of_class(self, cls: type, functions: list[FunctionType]) -> str:
        """Return the source of a class, or that of its functions.

        A notebook's classes have no file that `inspect` looks in. Their methods lead to the cell. A class without
        methods has its fields and variables alone.
        """
        try:
            return textwrap.dedent(inspect.getsource(cls))
        except (OSError, TypeError):
            found = (_class_around(function, cls.__name__) for function in functions)
            return next(filter(None, found), "") or "".join(map(self._source_of_function, functions))

    def _source_of_function(self, function: FunctionType) -> str:
        try:
            return textwrap.dedent(inspect.getsource(function.__code__))  # that of a wrapper, not of what it wraps
        except (OSError, TypeError):
            raise self._unidentified(function.__qualname__, function, "its source is not there") from None

    def _unidentified(self, name: str, value: Any, why: str = "") -> UserError:
        what = why or f"it uses {name or 'a value'}, a {type(value).__name__}, which has no plain value"
        return UserError(
            f"the code of {self.label} can't be identified: {what}", where=self.label,
            hint="put the class into a .py file, and name the file under `plugins` in the recipe",
        )  # fmt: skip


def _is_own(name: str, value: Any) -> bool:
    """Return True for what the body of a class has defined.

    The rest is of pydantic, `dataclasses` or Python.
    """
    if name.startswith("__"):
        function = _function_in(value)
        return function is not None and inspect.unwrap(function).__code__.co_filename != "<string>"  # of generated ones
    return name not in ("_abc_impl", "model_config")


def _is_named(value: Any) -> bool:
    """Return True if module and name lead to a function or class.

    Its file then says all that it does.
    """
    found: Any = sys.modules.get(_module_of(value))
    for part in value.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is value


def _function_in(value: Any) -> FunctionType | None:
    """Return the function of a method, a property or the like."""
    for key in ("__func__", "fget", "func", "wrapped"):
        value = getattr(value, key, None) or value
    return value if isinstance(value, FunctionType) else None


def _globals_read(code: CodeType) -> Iterator[str]:
    for instruction in dis.get_instructions(code):
        if instruction.opname in LOADS:
            yield str(instruction.argval)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _globals_read(constant)


def _module_of(value: Any) -> str:
    return str(getattr(value, "__module__", None) or type(value).__module__)


def _file_of(module: str) -> Path | None:
    file = getattr(sys.modules.get(module), "__file__", None)
    return Path(file).resolve() if file else None


def _is_installed(module: str) -> bool:
    """Return True for a module of Python, of an installed package or of alignzoo itself."""
    if module.partition(".")[0] in (*sys.builtin_module_names, *sys.stdlib_module_names, "alignzoo"):
        return True
    file = _file_of(module)
    return file is not None and any(file.is_relative_to(path) for path in LIBRARIES)


def _has_files(module: str) -> bool:
    """Return True for a module that is identified by its files."""
    return module != "__main__" and (_is_installed(module) or _file_of(module) is not None)


def _code_of_module(module: str) -> str:
    """Return the digest of a module's package, or of its file and the modules beside it."""
    file = _file_of(module)
    if file is not None and "." not in module and file.name != "__init__.py":
        return code_of_file(file, read_bytes(file))
    return code_of_class(type("", (), {"__module__": module}))


def _class_around(function: FunctionType, name: str) -> str:
    """Return the source of the class that defines a function, or "" if it is not found."""
    lines, line = linecache.getlines(function.__code__.co_filename), function.__code__.co_firstlineno
    try:
        nodes = list(ast.walk(ast.parse("".join(lines))))
    except SyntaxError:  # a notebook's magic commands
        return ""
    classes = [node for node in nodes if isinstance(node, ast.ClassDef) and node.name == name]
    around = [node for node in classes if node.lineno <= line <= (node.end_lineno or 0)]
    return textwrap.dedent("".join(lines[around[-1].lineno - 1 : around[-1].end_lineno])) if around else ""
