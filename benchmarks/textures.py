"""Procedural textures: pictures in colour that stand in for natural images where there are none, and are named so.

Each is a few layers of one colour: noise whose spectrum falls with a power of its frequency, stripes, or discs of random
size (the dead leaves of Matheron 1968, which share the edges and scales of natural images).
"""

from pathlib import Path

import numpy as np
import PIL.Image
from numpy.typing import NDArray

Plane = NDArray[np.float64]


def make_textures(folder: Path, count: int, side: int = 64) -> Path:
    """Write `count` PNG files of side x side pixels into a folder, the same every time."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        PIL.Image.fromarray(texture(np.random.default_rng(number), side)).save(folder / f"texture_{number:05d}.png")
    return folder


def texture(random: np.random.Generator, side: int) -> NDArray[np.uint8]:
    """Lay two to four layers over each other: (side, side, 3)."""
    picture = np.tile(random.uniform(0, 1, 3), (side, side, 1))
    for _ in range(random.integers(2, 5)):
        cover = [noise, stripes, leaves][random.integers(3)](random, side)[..., None]
        picture = cover * random.uniform(0, 1, 3) + (1 - cover) * picture
    return (picture * 255).round().astype(np.uint8)


def noise(random: np.random.Generator, side: int) -> Plane:
    """Noise in 0..1 with a spectrum of 1 / f to 1 / f^2."""
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side)))
    spectrum = np.fft.fft2(random.normal(size=(side, side))) / np.maximum(frequency, 1 / side) ** random.uniform(1, 2)
    plane = np.fft.ifft2(spectrum).real
    scaled: Plane = (plane - plane.min()) / np.ptp(plane)
    return scaled


def stripes(random: np.random.Generator, side: int) -> Plane:
    """Stripes in 0..1 of any direction and width."""
    x, y = np.meshgrid(np.arange(side), np.arange(side))
    turn = random.uniform(0, np.pi)
    waves: Plane = np.sin((x * np.cos(turn) + y * np.sin(turn)) * 2 * np.pi / random.uniform(4, side / 2)) / 2 + 0.5
    return waves.round() if random.random() < 0.5 else waves


def leaves(random: np.random.Generator, side: int) -> Plane:
    """Discs of shades in 0..1, small ones more often than large ones, each over the ones before."""
    x, y = np.meshgrid(np.arange(side), np.arange(side))
    plane = np.zeros((side, side))
    for _ in range(60):
        radius = min(2 / random.uniform(0.05, 1), side / 2)
        place = random.uniform(0, side, 2)
        plane[(x - place[0]) ** 2 + (y - place[1]) ** 2 < radius**2] = random.uniform(0, 1)
    return plane
