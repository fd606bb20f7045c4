"""PLACEHOLDER by the lead; the transforms helper replaces this file. Wanted interface below."""
from monai.transforms import RandAffined, RandFlipd, RandGaussianNoised, RandShiftIntensityd
from transforms.seeding import Chain


def augment_segmentation(spatial_dims, flip_prob=.1, rotate90_prob=.1, shift_prob=.5, shift=.1, affine_prob=0., rotate=.15, scale=.1, noise_prob=0., contrast_prob=0.):
    k = ["image", "label"]
    return Chain([*[RandFlipd(k, flip_prob, i) for i in range(spatial_dims)], RandShiftIntensityd("image", shift, prob=shift_prob)])
