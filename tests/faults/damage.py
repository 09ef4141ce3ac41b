"""Bytes as a bad disk, a broken transfer or an editor leaves them."""

import random

FLIPS = 200


def truncated(content, points=8):
    """From nothing to all but the last byte."""
    ends = {0, 1, len(content) - 1, *(len(content) * i // points for i in range(1, points))}
    return {f"first {end}": content[:end] for end in sorted(ends) if end < len(content)}


def flipped(content, flips=FLIPS, seed=0):
    """One bit each, at random places."""
    rng, found = random.Random(seed), {}
    for _ in range(flips):
        place, bit = rng.randrange(len(content)), rng.randrange(8)
        changed = bytearray(content)
        changed[place] ^= 1 << bit
        found[f"bit {bit} of byte {place}"] = bytes(changed)
    return found
