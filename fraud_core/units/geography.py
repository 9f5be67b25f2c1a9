"""Distances on the globe."""

import numpy as np

from fraud_core.units.arrays import Array

EARTH_RADIUS_METRES = 6_371_008.8  # mean radius, IUGG


def whole_metres(from_latitude: Array, from_longitude: Array, to_latitude: Array, to_longitude: Array) -> Array:
    """Great-circle distances by the haversine formula, in whole metres.

    Args:
        from_latitude, from_longitude, to_latitude, to_longitude: degrees, float64[n]; NaN: missing.

    Returns:
        float64[n]; NaN where a coordinate is missing.
    """
    begin, end = np.radians(from_latitude), np.radians(to_latitude)
    half_latitude = (end - begin) / 2.0
    half_longitude = np.radians(to_longitude - from_longitude) / 2.0
    chord = np.sin(half_latitude) ** 2 + np.cos(begin) * np.cos(end) * np.sin(half_longitude) ** 2
    metres: Array = np.round(2.0 * EARTH_RADIUS_METRES * np.arcsin(np.sqrt(np.minimum(chord, 1.0))))
    return metres
