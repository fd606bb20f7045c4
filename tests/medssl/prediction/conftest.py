"""The runs that predictions are made with."""

from trained_runs import classifier, model, organs, regressor, resampler, segmenter, trained

__all__ = ["classifier", "model", "organs", "regressor", "resampler", "segmenter", "trained"]
