"""Damage: to bytes as they lie, and to trees of dictionaries, lists and values, type by type."""

import copy
from random import Random
from typing import Any

INTEGERS = [
    *(0, 1, -1, 2, 3, 7, 127, 128, 255, 256, 65_535, 65_536, 1 << 20, 50_000_000),
    *(2**31 - 1, 2**31, -(2**31), 2**32 - 1, 2**32, 2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 10**30, 10**400),
]
FLOATS = [0.0, -0.0, 1.0, 0.5, -1.0, 1e-320, 5e-324, 1e308, -1e308, float("nan"), float("inf"), float("-inf")]
STRINGS = [
    *("", "0", "-1", "\0", "a" * 5000, "\ud800", "é", "../../etc/passwd", "/dev/zero", "NaN", "1e999", "cpu", "hashed"),
    *("exact", "mixer", "pr890", "<f8", "|V0", "|S1000000000", "O", "data", "auto", "fixed", "%s", "{}", "\n"),
]
NESTED = "\u2603nested\u2603"
"""Stands for a value nested deeper than any reader follows; a format puts it in, where it can."""


def raw(data: bytes, chance: Random) -> bytes:
    """Some bytes of it others, gone, twice, or cut off."""
    content = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 5, 20))):
        at, size = chance.randrange(len(content) + 1), chance.choice((1, 1, 2, 4, 8, 64, 1000))
        match chance.randrange(8):
            case 0 | 1:
                if at < len(content):
                    content[at] ^= 1 << chance.randrange(8)
            case 2:
                content[at : at + size] = chance.randbytes(size)
            case 3:
                width = chance.choice((1, 2, 4, 8))
                number = chance.choice(INTEGERS) % (1 << 8 * width)
                content[at : at + width] = number.to_bytes(width, chance.choice(("little", "big")))
            case 4:
                del content[at : at + size]
            case 5:
                content[at:at] = content[at : at + size] * chance.choice((1, 1, 3))
            case 6:
                content[at : at + size] = bytes([chance.choice((0, 255, 32, 48))]) * size
            case 7:
                del content[chance.choice((at, len(content) - 1, 0)) :]
    return bytes(content)


def value(old: Any, chance: Random) -> Any:
    """Another value, more often than not of the same type."""
    kind = type(old) if chance.random() < 0.6 else chance.choice((int, float, str, bool, list, dict, type(None)))
    if kind is bool:
        return not old if isinstance(old, bool) else chance.random() < 0.5
    if kind is int:
        near = isinstance(old, int) and chance.random() < 0.4
        return old + chance.choice((-1, 1, 2, -old, old)) if near else chance.choice(INTEGERS)
    if kind is float:
        return (
            old * chance.choice((-1.0, 2.0, 1e300))
            if isinstance(old, float) and chance.random() < 0.4
            else chance.choice(FLOATS)
        )
    if kind is str:
        if isinstance(old, str) and old and chance.random() < 0.5:
            return raw(old.encode(errors="replace"), chance).decode(errors="replace")
        return NESTED if chance.random() < 0.05 else chance.choice(STRINGS)
    if kind is bytes:
        return raw(old, chance) if isinstance(old, bytes) else chance.randbytes(8)
    if kind is list:
        return [old] * chance.choice((0, 1, 2, 300))
    if kind is dict:
        return {chance.choice(STRINGS): old}
    return None


def tree(old: Any, chance: Random) -> Any:
    """The same tree but for one place."""
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for key, below in list(items)[:200]:
            places.append((node, key))
            walk(below)

    whole = [old]
    walk(whole)
    node, key = chance.choice(places)
    match chance.randrange(8):
        case 0 if node is not whole:
            del node[key]
        case 1 if isinstance(node, list):
            node[key:key] = [node[key]] * chance.choice((1, 1, 2, 50))
        case 1:
            node[chance.choice(STRINGS) if chance.random() < 0.5 else f"{key}_"] = node[key]
        case 2:
            other, at = chance.choice(places)
            node[key] = copy.deepcopy(other[at])  # a copy: what lies around it would be a circle
        case _:
            node[key] = value(node[key], chance)
    return whole[0]
