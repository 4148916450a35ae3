"""How functions reach workers: pickled by name where a worker can import them, by value where it cannot.

The main program is what no worker can import: running it again would run all of it. So what its functions need goes
over piece by piece, into a module `__main__` that the workers of a pool have in common with nothing else: one
namespace, so that a global which an initializer sets there is the one that tasks see, and classes that are the same
ones in all calls. What has gone over is a numbered *layer*; each function brings the list of layers that it needs, and
a worker takes in those that it lacks. A global that is bound to something else here goes over again; one that a worker
has bound to something else stays as it is there.

The other side is `agent/src/python/calls.py`.
"""

from __future__ import annotations

import functools
import io
import pickle
import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._by_value import Pickler

_MAIN = b"__main__"
# What every worker has, or none can import.
_HERE_ALONE = {"builtins", "__main__", "_fleetpool_worker"}


class Shipped:
    """A function as a pool's specification brings it."""

    __slots__ = ("code", "by_value", "names", "modules")

    def __init__(self, code: bytes, by_value: bool, names: dict[str, Any], modules: set[str]) -> None:
        self.code = code
        self.by_value = by_value
        # What a worker imports to have it.
        self.modules = modules
        # Globals of the main program that it needs, as they were.
        self.names = names

    def is_current(self, main: dict[str, Any]) -> bool:
        """Whether none of them has been bound to something else."""
        return all(main.get(name, ABSENT) is value for name, value in self.names.items())


ABSENT = object()


class _Layer:
    __slots__ = ("number", "rounds", "code", "needs", "modules")

    def __init__(self, number: int, rounds: int, code: bytes, needs: set[int], modules: set[str]) -> None:
        self.number = number
        self.rounds = rounds
        self.code = code
        self.needs = needs
        self.modules = modules


class Shipper:
    """What one pool has been given of the main program. Not for several threads at once."""

    def __init__(self) -> None:
        self._layers: list[_Layer] = []
        # By name: the object as it went over, and the layer.
        self._sent: dict[str, tuple[Any, int]] = {}
        self._unsent: dict[str, str] = {}

    def ship(self, function: Any) -> Shipped:
        """Pickles a function, a method, a partial or any other object that can be called.

        Raises what pickling it raises.
        """
        plain = _PlainPickler()
        try:
            pickled = plain.pickle(function)
        except Exception:
            pickled = None
        if pickled is not None and _MAIN not in pickled and not _is_foreign(function):
            return Shipped(pickle.dumps((None, (), {}, pickled)), False, {}, plain.modules)
        pickler = _by_value(self)
        pickled = pickler.pickle(function)
        return self._shipped(pickled, pickler)

    def ship_call(self, function: Any, args: tuple[Any, ...]) -> bytes:
        """A function and what it is to be called with, as a worker calls its pool's initializer."""
        pickler = _by_value(self)
        pickled = pickler.pickle((function, args))
        return self._shipped(pickled, pickler).code

    @property
    def count(self) -> int:
        """How many layers there are by now."""
        return len(self._layers)

    def dumps(self, value: Any) -> bytes:
        """Pickles an argument that cannot be pickled plainly. What it refers to is in the layers that there are then."""
        pickler = _by_value(self)
        pickled = pickler.pickle(value)
        self._require(pickler.names)
        return pickled

    def with_layers(self, shipped: Shipped, count: int) -> Shipped:
        """The same function, with the first `count` layers, for arguments that refer to them."""
        _, _, _, pickled = pickle.loads(shipped.code)
        names = {name: sent for name, (sent, number) in self._sent.items() if number < count}
        code = self._bundle(set(range(count)), pickled)
        return Shipped(code, True, {**names, **shipped.names}, shipped.modules | self._modules_of(set(range(count))))

    def _shipped(self, pickled: bytes, pickler: Pickler) -> Shipped:
        layers = self._require(pickler.names)
        main = sys.modules["__main__"].__dict__
        closure = self._names_of(layers) | pickler.names
        names = {name: main[name] for name in closure if name in main}
        return Shipped(self._bundle(layers, pickled), True, names, pickler.modules | self._modules_of(layers))

    def _modules_of(self, layers: set[int]) -> set[str]:
        return {module for number in layers for module in self._layers[number].modules}

    def _bundle(self, layers: set[int], pickled: bytes) -> bytes:
        needed = [(number, self._layers[number].rounds, self._layers[number].code) for number in sorted(layers)]
        return pickle.dumps((sys.version_info[:2], needed, self._unsent, pickled), pickle.HIGHEST_PROTOCOL)

    def _names_of(self, layers: set[int]) -> set[str]:
        return {name for name, (_, number) in self._sent.items() if number in layers}

    def is_sent(self, name: str) -> bool:
        """Whether workers can have the global as it is now."""
        sent = self._sent.get(name)
        return sent is not None and sent[0] is sys.modules["__main__"].__dict__.get(name, ABSENT)

    def _require(self, names: set[str]) -> set[int]:
        """Sees to it that there are layers with these globals; which ones are needed."""
        main = sys.modules["__main__"].__dict__
        names = set(names)
        while True:
            lacking = {name for name in names if name in main and not self.is_sent(name) and name not in self._unsent}
            if lacking:
                self._add_layer(lacking)
            needed = self._closure({self._sent[name][1] for name in names if name in self._sent})
            # What was needed when the layers were made may have been bound to something else since.
            stale = {name for name in self._names_of(needed) if name in main and not self.is_sent(name)}
            if not stale:
                return needed
            names |= stale

    def _closure(self, numbers: set[int]) -> set[int]:
        needed: set[int] = set()
        waiting = list(numbers)
        while waiting:
            number = waiting.pop()
            if number not in needed:
                needed.add(number)
                waiting.extend(self._layers[number].needs)
        return needed

    def _add_layer(self, names: set[str]) -> None:
        main = sys.modules["__main__"].__dict__
        number = len(self._layers)
        names = set(names)
        while True:
            pickler = _by_value(self, inside=True)
            try:
                rounds, contained = pickler.pickle_namespace(names)
                break
            except CannotSend as culprit:
                self._unsent[culprit.name] = culprit.reason
                names.discard(culprit.name)
        needs = {self._sent[name][1] for name in pickler.names - contained if name in self._sent}
        self._layers.append(_Layer(number, rounds, pickler.written(), needs, pickler.modules))
        for name in contained:
            self._sent[name] = (main[name], number)

    def main_classes(self) -> bool:
        """Sends all classes and functions of the main program, for arguments that are made of them; whether any were
        new."""
        main = sys.modules["__main__"].__dict__
        kinds = (type, types.FunctionType)
        ours = {
            name
            for name, value in list(main.items())
            if isinstance(value, kinds) and getattr(value, "__module__", None) == "__main__"
        }
        if all(self.is_sent(name) or name in self._unsent for name in ours):
            return False
        self._require(ours)
        return True


def _by_value(shipper: Shipper, inside: bool = False) -> Pickler:
    # What it stands on takes a while to import: the pool's workers start meanwhile.
    from ._by_value import Pickler

    return Pickler(shipper, inside)


class CannotSend(Exception):
    """A global of the main program that cannot be pickled, and why."""

    def __init__(self, name: str, reason: str) -> None:
        self.name = name
        self.reason = reason


class _PlainPickler(pickle.Pickler):
    """Pickles as `pickle` does, and notes the modules that unpickling will import."""

    def __init__(self) -> None:
        self._file = io.BytesIO()
        super().__init__(self._file, protocol=pickle.HIGHEST_PROTOCOL)
        self.modules: set[str] = set()

    def pickle(self, value: Any) -> bytes:
        self.dump(value)
        return self._file.getvalue()

    def reducer_override(self, obj: Any) -> Any:
        note_module(obj, self.modules)
        return NotImplemented


def note_module(obj: Any, modules: set[str]) -> None:
    if isinstance(obj, (types.FunctionType, types.BuiltinFunctionType, type)):
        name = getattr(obj, "__module__", None)
    elif isinstance(obj, types.ModuleType):
        name = obj.__name__
    else:
        return
    if isinstance(name, str) and name not in _HERE_ALONE:
        modules.add(name)


def _is_foreign(function: Any) -> bool:
    """Whether its module was asked to travel by value (`cloudpickle.register_pickle_by_value`)."""
    cloudpickle = sys.modules.get("cloudpickle")
    registered = cloudpickle.list_registry_pickle_by_value() if cloudpickle is not None else ()
    if not registered:
        return False
    while isinstance(function, functools.partial):
        function = function.func
    module = str(getattr(function, "__module__", None) or type(function).__module__)
    return any(module == name or module.startswith(name + ".") for name in registered)
