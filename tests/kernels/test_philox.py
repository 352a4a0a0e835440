"""Random123's known answers, and the uniforms that are made of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from evomerge.kernels.philox import philox4x32, uniform_uint16

# Random123, tests/kat_vectors, "philox4x32 10": counter, key, expected words.
KNOWN_ANSWERS = [
    (
        (0x00000000, 0x00000000, 0x00000000, 0x00000000),
        (0x00000000, 0x00000000),
        (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8),
    ),
    (
        (0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF),
        (0xFFFFFFFF, 0xFFFFFFFF),
        (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
    ),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


def words(counter, key) -> tuple[int, ...]:
    counters = tuple(np.array([word], dtype=np.uint64) for word in counter)
    return tuple(int(word[0]) for word in philox4x32(counters, key[0] | key[1] << 32))


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_known_answers(counter, key, expected):
    assert words(counter, key) == expected


def test_many_counters_at_once_are_what_they_are_alone():
    counters = tuple(np.array([c[w] for c, _, _ in KNOWN_ANSWERS], np.uint64) for w in range(4))
    key = 0x299F31D0A4093822
    together = philox4x32(counters, key)
    for index, (counter, _, _) in enumerate(KNOWN_ANSWERS):
        alone = words(counter, (key & 0xFFFFFFFF, key >> 32))
        assert tuple(int(word[index]) for word in together) == alone


def test_uniforms_are_the_top_half_of_the_first_word():
    key = (0xA4093822, 0x299F31D0)
    uniforms = uniform_uint16(key[0] | key[1] << 32, 20)
    assert uniforms.dtype == torch.uint16
    expected = [words((index, 0, 0, 0), key)[0] >> 16 for index in range(20)]
    assert uniforms.tolist() == expected
    assert uniform_uint16(0, 1).tolist() == [0x6627]


def test_uniforms_do_not_depend_on_how_many_are_drawn():
    # More than one chunk of the implementation's, at whatever size it cuts.
    key, num_elements = 12345, (1 << 18) + 77
    long = uniform_uint16(key, num_elements)
    for count in (1, 1000, (1 << 18) - 1, 1 << 18, (1 << 18) + 1):
        assert torch.equal(long[:count], uniform_uint16(key, count))
    for index in (0, (1 << 18) - 1, 1 << 18, num_elements - 1):
        assert long[index] == words((index, 0, 0, 0), (key, 0))[0] >> 16


def test_uniforms_are_uniform():
    num_elements = 1 << 18
    shares = uniform_uint16(99, num_elements).double() / (1 << 16)
    # Five standard deviations of a mean, 1 / sqrt(12 n), and of a share, sqrt(p (1 - p) / n).
    assert abs(shares.mean().item() - 0.5) < 5 / (12 * num_elements) ** 0.5
    for density in (0.1, 0.5, 0.9):
        kept = (shares < density).double().mean().item()
        assert abs(kept - density) < 5 * (density * (1 - density) / num_elements) ** 0.5


def test_no_uniforms_of_an_empty_tensor():
    assert uniform_uint16(1, 0).shape == (0,)
