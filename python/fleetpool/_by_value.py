"""How functions and classes of the main program are pickled: by the names that they have there, where a worker is told
what these names mean, and by value otherwise. `_shipping.py` says what for."""

from __future__ import annotations

import functools
import io
import marshal
import pickle
import sys
import types
from typing import Any, Callable

import cloudpickle

from ._shipping import ABSENT, CannotSend, Shipper, note_module

# What the reducers below are called in a worker.
_helpers = types.ModuleType("_fleetpool_worker", "The names by which pickles refer to a worker's program.")


def _helper(name: str) -> Callable[..., Any]:
    def stand_in(*_args: Any) -> None:
        raise RuntimeError("this pickle is for a fleetpool worker")

    stand_in.__name__ = stand_in.__qualname__ = name
    stand_in.__module__ = _helpers.__name__
    setattr(_helpers, name, stand_in)
    return stand_in


_main_object = _helper("main_object")
_make_cached = _helper("make_cached")
_make_function = _helper("make_function")
_set_function = _helper("set_function")
sys.modules.setdefault(_helpers.__name__, _helpers)

# What `functools.lru_cache` makes of functions; pickle knows it by its name alone.
_CACHED = type(functools.lru_cache(lambda: None))


class Pickler(cloudpickle.Pickler):
    """Pickles what belongs to the main program by the names that it has there, and notes these names."""

    def __init__(self, shipper: Shipper, inside: bool = False) -> None:
        self._file = io.BytesIO()
        super().__init__(self._file, protocol=pickle.HIGHEST_PROTOCOL)
        self._shipper = shipper
        self._main = sys.modules["__main__"].__dict__
        # Whether a layer is being pickled.
        self._inside = inside
        self.names: set[str] = set()
        self.modules: set[str] = set()

    def pickle(self, value: Any) -> bytes:
        self.dump(value)
        return self.written()

    def written(self) -> bytes:
        return self._file.getvalue()

    def pickle_namespace(self, names: set[str]) -> tuple[int, set[str]]:
        """Pickles these globals, then those that they turn out to need, until there are no more."""
        contained: set[str] = set()
        rounds = 0
        fresh = set(names)
        while fresh:
            self._dump_namespace({name: self._main[name] for name in sorted(fresh)})
            contained |= fresh
            rounds += 1
            fresh = {
                name
                for name in self.names - contained
                if name in self._main and not self._shipper.is_sent(name) and name not in self._shipper._unsent
            }
        return rounds, contained

    def _dump_namespace(self, values: dict[str, Any]) -> None:
        at = self._file.tell()
        try:
            self.dump(values)
        except Exception as error:
            self._file.seek(at)
            self._file.truncate()
            raise self._culprit(values, error) from None

    def _culprit(self, values: dict[str, Any], error: Exception) -> CannotSend:
        for name, value in values.items():
            try:
                Pickler(self._shipper, inside=True).dump({name: value})
            except Exception as reason:
                return CannotSend(name, f"{type(reason).__name__}: {reason}")
        return CannotSend(next(iter(values)), f"{type(error).__name__}: {error}")

    def reducer_override(self, obj: Any) -> Any:
        note_module(obj, self.modules)
        if isinstance(obj, types.FunctionType):
            if obj.__globals__ is self._main:
                return self._main_name(obj) or self._main_function(obj)
        elif isinstance(obj, type) and getattr(obj, "__module__", None) == "__main__":
            named = self._main_name(obj)
            if named is not None:
                return named
        elif type(obj) is _CACHED and getattr(obj, "__module__", None) == "__main__":
            parameters = obj.cache_parameters()
            made = (obj.__wrapped__, parameters["maxsize"], parameters["typed"])
            return self._main_name(obj) or (_make_cached, made)
        return super().reducer_override(obj)

    def _main_name(self, obj: Any) -> Any:
        """How a worker finds a function or class of the main program by its name, unless it is what is being sent."""
        qualname = obj.__qualname__
        root, *rest = qualname.split(".")
        found = self._main.get(root, ABSENT)
        for name in rest:
            found = getattr(found, name, ABSENT)
        if found is not obj or root in self._shipper._unsent:
            return None
        self.names.add(root)
        if self._inside and not self._shipper.is_sent(root):
            # It comes with the same layer: here, since what refers to it may need it at once, as a class its base.
            return None
        return _main_object, (qualname,)

    def _main_function(self, obj: types.FunctionType) -> Any:
        code = obj.__code__
        used = cloudpickle.cloudpickle._extract_code_globals(code)
        self.names.update(name for name in used if name in self._main)
        cells = obj.__closure__
        slots: dict[str, Any] = {
            "__name__": obj.__name__,
            "__qualname__": obj.__qualname__,
            "__module__": obj.__module__,
            "__doc__": obj.__doc__,
            "__defaults__": obj.__defaults__,
            "__kwdefaults__": obj.__kwdefaults__,
        }
        try:
            slots["__annotations__"] = obj.__annotations__
            pickle.dumps(slots["__annotations__"])
        except Exception:
            slots["__annotations__"] = {}
        submodules = self._submodules(code, used)
        if submodules:
            slots["_fleetpool_submodules"] = submodules
        state = (tuple(_content(cell) for cell in cells or ()), dict(obj.__dict__), slots)
        made = (marshal.dumps(code), obj.__module__, None if cells is None else len(cells))
        return _make_function, made, state, None, None, _set_function

    def _submodules(self, code: types.CodeType, used: dict[str, None]) -> list[types.ModuleType]:
        """Submodules that the code reaches through their packages: pickling them makes workers import them."""
        values = [self._main[name] for name in used if name in self._main]
        found: list[types.ModuleType] = cloudpickle.cloudpickle._find_imported_submodules(code, values)
        return found


def _content(cell: types.CellType) -> tuple[Any, ...]:
    try:
        return (cell.cell_contents,)
    except ValueError:
        return ()
