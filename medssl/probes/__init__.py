"""Probes: how good a frozen encoder's features are, by classifiers simple enough that the features decide."""
