"""MONAI transforms for self-supervised learning and few-label fine-tuning, 2D and 3D.

They know monai, torch, numpy and einops, nothing of medssl, and can be lifted into any MONAI project. In the order in
which data meets them:

prepare   files to volumes: orientation, spacing, crop to the foreground, intensity to 0..1 (CT window, MR percentiles)
crop      volumes to crops: random crops around foreground, padding
augment   random changes of a labelled crop for fine-tuning
corrupt   in-painting, out-painting and pixel shuffling
views     corrupted copies of a crop with draws of their own
memory    memory of views that are gone, used again
seeding   random states that cost microseconds to seed again
"""
