"""Values as bytes: the plain ones are packed by the extension, the others here. Protocol 5 keeps large buffers apart."""

from __future__ import annotations

import pickle
from typing import Any, Union

_BUFFER_BYTES_MIN = 16 << 10
_ALIGNMENT = 16
_MAIN = b"__main__"

Packed = Union[bytes, list[Any]]


def pack(value: Any) -> Packed:
    """A value that does not belong to the main program, as bytes or pieces of them."""
    buffers: list[memoryview] = []

    def keep(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes < _BUFFER_BYTES_MIN:
            return True
        buffers.append(raw)
        return False

    pickled = pickle.dumps(value, 5, buffer_callback=keep)
    return pack_buffers(pickled, buffers) if buffers else pickled


def pack_buffers(pickled: bytes, buffers: list[memoryview]) -> list[Any]:
    head = [b"\x01", len(buffers).to_bytes(4, "little"), b"\0\0\0", len(pickled).to_bytes(8, "little")]
    head += [buffer.nbytes.to_bytes(8, "little") for buffer in buffers]
    pieces: list[Any] = [b"".join(head), pickled]
    at = len(pieces[0]) + len(pickled)
    for buffer in buffers:
        pieces += [b"\0" * (-at % _ALIGNMENT), buffer]
        at += -at % _ALIGNMENT + buffer.nbytes
    return pieces


def names_main(packed: Packed) -> bool:
    """Whether a pickle refers to the main program, or may."""
    return _MAIN in (packed if isinstance(packed, bytes) else packed[1])
