"""Hyper-parameter search on validation: a recipe and a space of settings to a better recipe; planned by optuna."""
