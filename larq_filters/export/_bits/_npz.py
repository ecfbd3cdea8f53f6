"""The .npz file of a network: written, and read with every byte checked."""

import hashlib
import io
import json
import os
from collections.abc import Mapping
from typing import Any

from larq_filters.export._bits._network import Network

import numpy as np

VERSION = 1
_HEAD = "network"  # the array that holds the steps, as JSON in UTF-8


def to_bytes(network: Network, more: Mapping[str, Any]) -> bytes:
    """The file, with other things of types that JSON has."""
    head = {"version": VERSION, **more, **network.to_dict()}
    head["sha256"] = _digest(head, network.arrays)
    text = json.dumps(head, ensure_ascii=False).encode()
    file = io.BytesIO()
    np.savez(file, **{_HEAD: np.frombuffer(text, np.uint8)}, **dict(network.arrays))
    return file.getvalue()


def load(path: str | os.PathLike[str]) -> tuple[Network, dict[str, Any]]:
    """The network, and what else was written.

    Raises:
        ValueError: It is no such file, or some of it is missing or changed.
        OSError: It cannot be read.
    """
    with open(path, "rb") as file:
        data = file.read()
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as loaded:
            arrays = {name: loaded[name] for name in loaded.files}
        head = json.loads(bytes(arrays.pop(_HEAD)))
        version, digest = head.get("version"), head.pop("sha256", None)
        intact = digest == _digest(head, arrays)
        network = Network.from_dict(head, arrays) if intact and version == VERSION else None
    except Exception as error:  # of many kinds, by what is wrong with it
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise ValueError(f"{_BROKEN}. Received: '{path}', {reason}") from error
    if version != VERSION:
        raise ValueError(
            "this file is of another version of larq_filters: save the bits again. Received: "
            f"'{path}' of version {version}, not {VERSION}"
        )
    if network is None:
        raise ValueError(f"{_BROKEN}. Received: '{path}', whose checksum does not match")
    return network, head


_BROKEN = "this is not a whole .npz file as Bits.save writes it: save the bits again"


def _digest(head: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    """Of all that the file says."""
    digest = hashlib.sha256(json.dumps(head, sort_keys=True).encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
