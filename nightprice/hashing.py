"""Stable hashes: the same on every machine, in every version."""

import hashlib

import numpy as np
import numpy.typing as npt


def text_key(text: str) -> int:
    """A number from 0 to 2**63 - 1 for a text: the first 63 bits of its BLAKE2b digest.

    Among a billion texts two share a number with a chance of about 5 %.

    >>> text_key("UA 1545") == text_key("UA 1545"), text_key("UA 1545") < 2**63
    (True, True)
    """
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def mix64(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Neighbouring numbers as unrelated ones, without collisions: the finalizer of splitmix64, uint64 [n].

    >>> mix64(np.array([1, 2], np.uint64)).tolist()
    [6238072747940578789, 15839785061582574730]
    """
    mixed = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
