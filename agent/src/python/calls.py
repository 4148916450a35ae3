"""What a worker does with the functions and arguments that its pool's client has pickled.

Runs in the template process and in the workers that are forked from it, before `worker.py` and in the same
namespace; the other side is `fleetpool/_shipping.py` and the extension's `payload.rs`. Standard library only, and of it
as little as can be, by the modules behind the modules: it is what a pool's first task waits for.

A payload begins with how it is packed: 0x80 is a pickle as it is, 1 a pickle with its buffers behind it (protocol 5,
out of band), 2 raw bytes. An argument has one byte before that, how the function is to be called.
"""

import marshal
import sys
import types
from _pickle import dumps, loads

DONE, FAILED, NOT_STARTED = 0, 1, 6
OUT_OF_BAND, RAW = 1, 2
# Bytes from this size on are not worth a pickle.
RAW_BYTES_MIN = 4096
# Smaller buffers are cheaper inside the pickle.
BUFFER_BYTES_MIN = 16 << 10
ALIGNMENT = 16
# Types that have no buffers.
PLAIN = frozenset([int, float, bool, str, type(None)])


class Unfit(Exception):
    """This host cannot run the pool; the text is the reason, for people."""


# -- payloads ----------------------------------------------------------------------------------------------------


def unpack(body):
    """The value of a payload."""
    tag = body[0]
    if tag == RAW:
        return bytes(body[1:])
    if tag == OUT_OF_BAND:
        return unpack_buffers(body)
    return loads(body)


def unpack_buffers(body):
    count = int.from_bytes(body[1:5], "little")
    lengths = memoryview(bytes(body[8 : 8 + 8 * (count + 1)])).cast("Q")
    at = 8 + 8 * (count + 1)
    pickled = body[at : at + lengths[0]]
    at += lengths[0]
    buffers = []
    for length in lengths[1:]:
        at = -(-at // ALIGNMENT) * ALIGNMENT
        # Its own memory, so that an array does not keep the other arguments alive, and can be written to.
        buffers.append(bytearray(body[at : at + length]))
        at += length
    return loads(pickled, buffers=buffers)


def pack(value):
    """A value as a payload: bytes, or a list of pieces that are not worth a copy."""
    if type(value) in PLAIN:
        return dumps(value)
    if type(value) is bytes and len(value) >= RAW_BYTES_MIN:
        return [b"\x02", value]
    buffers = []

    def keep(buffer):
        raw = buffer.raw()
        if raw.nbytes < BUFFER_BYTES_MIN:
            return True
        buffers.append(raw)
        return False

    pickled = dumps(value, 5, buffer_callback=keep)
    return pickled if not buffers else pack_buffers(pickled, buffers)


def pack_buffers(pickled, buffers):
    head = [b"\x01", len(buffers).to_bytes(4, "little"), b"\0\0\0", len(pickled).to_bytes(8, "little")]
    head += [buffer.nbytes.to_bytes(8, "little") for buffer in buffers]
    pieces = [b"".join(head), pickled]
    at = len(pieces[0]) + len(pickled)
    for buffer in buffers:
        pieces += [b"\0" * (-at % ALIGNMENT), buffer]
        at += -at % ALIGNMENT + buffer.nbytes
    return pieces


# -- errors ------------------------------------------------------------------------------------------------------


def pack_error(error):
    """An exception as a payload: a pickle of (how, what, traceback)."""
    text = traceback_of(error)
    try:
        pickled = dumps(error)
        if comes_back(error, pickled):
            return dumps(("pickle", pickled, text))
        # Its constructor does not take back what it keeps: it is put together without it.
        apart = dumps((type(error), error.args, error.__dict__))
        loads(apart)
        return dumps(("rebuild", apart, text))
    except BaseException as reason:
        what = (type(error).__name__, safe(str, error), safe(repr, error), safe(repr, reason))
        return dumps(("text", what, text))


def comes_back(error, pickled):
    """Whether an exception is the same after it was pickled: some come back with other arguments, or not at all."""
    try:
        again = loads(pickled)
    except BaseException:
        return False
    return type(again) is type(error) and safe(str, again) == safe(str, error)


def safe(function, value):
    try:
        return function(value)
    except BaseException:
        return "<%s that cannot be shown>" % type(value).__name__


def traceback_of(error):
    import traceback

    try:
        lines = traceback.format_exception(type(error), error, error.__traceback__)
    except BaseException:
        return safe(repr, error)
    # The frames of this file say nothing to whoever reads it.
    kept, skipping = [], False
    for line in lines:
        skipping = line.startswith('  File "<fleetpool worker>"')
        if not skipping:
            kept.append(line)
    return "".join(kept)


# -- calls -------------------------------------------------------------------------------------------------------


class NotSent(Exception):
    """The result cannot be pickled."""


def result_of(value):
    try:
        return pack(value)
    except BaseException as reason:
        raise NotSent(safe(repr, reason), safe(repr, value)) from None


def call(function, body):
    args, kwds = loads(body) if body[0] > RAW else unpack(body)
    value = function(*args, **kwds)
    # The shortest way for the shortest tasks.
    return dumps(value) if type(value) in PLAIN else result_of(value)


def item(function, body):
    value = function(loads(body) if body[0] > RAW else unpack(body))
    return dumps(value) if type(value) in PLAIN else result_of(value)


def star(function, body):
    return result_of(function(*unpack(body)))


def chunk(function, body):
    """All results, or the first error, as `map` wants them."""
    return results_of([function(value) for value in unpack(body)])


def star_chunk(function, body):
    return results_of([function(*values) for values in unpack(body)])


def each(function, body):
    """Every result or error, as `imap` wants them."""
    return pack([attempt_at(function, (value,)) for value in unpack(body)])


def attempt_at(function, args):
    try:
        dumped = result_of(function(*args))
    except BaseException as error:
        return False, failure(error)
    return True, dumped if type(dumped) is bytes else b"".join(dumped)


def results_of(results):
    """A list of results; the one that cannot be pickled is the one to blame."""
    try:
        return pack(results)
    except BaseException:
        for value in results:
            result_of(value)
        raise


# By the first byte of an argument.
CALLS = (call, item, star, chunk, star_chunk, each)


def run(spec, argument):
    """Runs a task; its outcome and payload. Never raises."""
    try:
        function = functions[spec]
        if type(function) is Broken:
            raise function.error
        return DONE, CALLS[argument[0]](function, argument[1:])
    except BaseException as error:
        return FAILED, failure(error)


def failure(error):
    if type(error) is NotSent:
        return dumps(("unsent", error.args, ""))
    return pack_error(explained(error))


def explained(error):
    """Says of what is missing here why it is."""
    note = None
    if isinstance(error, NameError) and getattr(error, "name", None) in unsent:
        note = "%s is a global of the main program that could not be sent to workers: %s" % (error.name, unsent[error.name])
    elif isinstance(error, ModuleNotFoundError) and context.get("remote"):
        note = "%s is not installed on host %s: install it there, or send it with py_modules= or working_dir=" % (
            error.name,
            context.get("host", ""),
        )
    if note is not None:
        # What `add_note` of 3.11 does, for all versions.
        error.__dict__.setdefault("__notes__", []).append(note)
    return error


def flush():
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (AttributeError, OSError, ValueError):
        # One of them is not there any more.
        try:
            sys.stderr.flush()
        except (AttributeError, OSError, ValueError):
            pass


# -- functions ---------------------------------------------------------------------------------------------------

# By specification: what to call, or why it cannot be had.
functions = {}
# Layers of the main program's namespace that are here.
layers = set()
# Globals of the main program that could not be pickled, and why.
unsent = {}
context = {}


class Broken:
    def __init__(self, error):
        self.error = error


def define(spec, code):
    """Makes a function ready to be called; what goes wrong is told by the tasks that call it."""
    try:
        functions[spec] = load_function(code)
    except BaseException as error:
        error.__traceback__ = None
        functions[spec] = Broken(error)


def load_function(code):
    version, needed, missing, pickled = loads(code)
    if version is not None and version != sys.version_info[:2]:
        raise RuntimeError(
            "host %s has Python %d.%d (%s), and this function was pickled by value under %d.%d, which no other version can"
            " read: put Python %d.%d on the host, name another interpreter with python=, or move the function into a module"
            " that the hosts can import" % (context["host"], *sys.version_info[:2], sys.executable, *version, *version)
        )
    unsent.update(missing)
    for number, rounds, layer in needed:
        if number not in layers:
            load_layer(rounds, layer)
            layers.add(number)
    return loads(pickled)


def load_layer(rounds, layer):
    """A layer is several pickles of one pickler: names that were found to be needed while the others were pickled."""
    import io
    import pickle

    unpickler = pickle.Unpickler(io.BytesIO(layer))
    namespace = main_globals()
    for _ in range(rounds):
        namespace.update(unpickler.load())


def main_globals():
    return sys.modules["__main__"].__dict__


def main_object(qualname):
    """What the main program calls so."""
    found = sys.modules["__main__"]
    for name in qualname.split("."):
        found = getattr(found, name)
    return found


def make_cached(function, maxsize, typed):
    """What `functools.lru_cache` has made of a function."""
    import functools

    return functools.lru_cache(maxsize, typed)(function)


def make_function(code, module, cells):
    """A function of the main program, without what it refers to."""
    closure = tuple(types.CellType() for _ in range(cells)) if cells is not None else None
    return types.FunctionType(marshal.loads(code), main_globals(), None, None, closure)


def set_function(function, state):
    """What a function refers to; apart from its making, since it may refer to itself."""
    cells, attributes, slots = state
    for cell, content in zip(function.__closure__ or (), cells):
        if content:
            cell.cell_contents = content[0]
    function.__dict__.update(attributes)
    for name, value in slots.items():
        setattr(function, name, value)


# -- a worker's surroundings -------------------------------------------------------------------------------------


class Current:
    """The task that runs: what `fleetpool.current_task()` tells."""

    index = 0
    attempt = 0


current = Current()


def load_context(blob):
    """Makes this process ready for a pool's functions. For the template, once."""
    context.update(loads(blob))
    import os

    context["host"] = os.environ.get("FLEETPOOL_HOST", "")
    same = tuple(context["version"]) == sys.version_info[:2]
    if not context.get("remote"):
        sys.path[:] = context["path"]
    elif same:
        # Of use where hosts share folders with the client, and where they are one machine.
        sys.path += [folder for folder in context["path"] if folder not in sys.path and os.path.isdir(folder)]
    for folder in [unpacked(packed) for packed in context.get("folders", ())]:
        sys.path.insert(0, folder)
    if context.get("working_dir"):
        folder = unpacked(context["working_dir"])
        os.chdir(folder)
        sys.path.insert(0, folder)
    sys.argv[:] = context["argv"]
    main = types.ModuleType("__main__")
    main.__dict__.update(context["main"])
    main.__builtins__ = __builtins__
    sys.modules["__main__"] = main
    helpers = types.ModuleType("_fleetpool_worker")
    for helper in (main_globals, main_object, make_cached, make_function, set_function):
        setattr(helpers, helper.__name__, helper)
    helpers.current, helpers.context = current, context
    sys.modules["_fleetpool_worker"] = helpers
    sys.meta_path.insert(0, Watch())
    # Before what the host has of the same name: pickles are made for the caller's version.
    sys.meta_path.insert(0, Spare())


def unpacked(packed):
    """The folder that a zip file was unpacked to: by its hash, once a host."""
    import os
    import shutil
    import tempfile
    import zipfile
    import io

    name, content = packed
    home = os.path.join(tempfile.gettempdir(), "fleetpool-%d" % os.getuid())
    os.makedirs(home, mode=0o700, exist_ok=True)
    if os.stat(home).st_uid != os.getuid():
        raise Unfit("%s belongs to somebody else: remove it, or set TMPDIR for the agent" % home)
    folder = os.path.join(home, name)
    if not os.path.isdir(folder):
        part = tempfile.mkdtemp(dir=home)
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            archive.extractall(part)
        try:
            os.rename(part, folder)
        except OSError:
            # Another pool was quicker.
            shutil.rmtree(part, ignore_errors=True)
    return folder


class Watch:
    """Sees to it that a worker knows what `multiprocessing` would have told it, if it ever asks."""

    def find_spec(self, name, path=None, target=None):
        if name == "logging":
            # It tells a process's name only where somebody has imported this before.
            import multiprocessing.process
        if name != "multiprocessing.process":
            return None
        sys.meta_path.remove(self)
        from importlib.util import find_spec

        spec = find_spec(name)
        run_module = spec.loader.exec_module

        def exec_module(module):
            run_module(module)
            as_worker(module)

        spec.loader.exec_module = exec_module
        return spec


def as_worker(process):
    """This process is no main process, and has its parent's key for managers."""
    import os

    this = process._current_process
    slot = os.environ.get("FLEETPOOL_SLOT", "1")
    this._name = "FleetpoolWorker-" + slot
    this._identity = (int(slot),)
    this._config["authkey"] = process.AuthenticationString(context["authkey"])


class Spare:
    """Modules that came with the pool."""

    def find_spec(self, name, path=None, target=None):
        source = context.get("modules", {}).get(name)
        if source is None:
            return None
        from importlib.machinery import ModuleSpec

        is_package = any(other.startswith(name + ".") for other in context["modules"])
        return ModuleSpec(name, self, is_package=is_package)

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        source = context["modules"][module.__name__]
        exec(compile(source, "<%s, sent by fleetpool>" % module.__name__, "exec"), module.__dict__)


def begin():
    """Runs the pool's initializer, in a new worker."""
    import os

    context["slot"] = int(os.environ.get("FLEETPOOL_SLOT", "0"))
    if "multiprocessing.process" in sys.modules:
        as_worker(sys.modules["multiprocessing.process"])
    code = context.get("initializer")
    if code is None:
        return
    try:
        function, args = load_function(code)
        function(*args)
    except BaseException as error:
        last = traceback_of(explained(error)).rstrip()
        raise Unfit("its initializer raised " + last.rsplit("\n", 1)[-1] + "\n" + last) from None
