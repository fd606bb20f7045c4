"""Runs beside each other: grouped into arms, compared pair by pair, and whether that is fair."""
