"""MONAI transforms for self-supervised learning and few-label fine-tuning, 2D and 3D.

They know monai, torch, numpy and einops, nothing of medssl, and can be lifted into any MONAI project. In the order in
which data meets them:

prepare       files to volumes: orientation, spacing, crop to the foreground, intensity to 0..1 (CT window, MR percentiles)
fit           images of several sizes resized to fit into one
extract       the brain in an MR image of the head, by threshold and erosion
crop          volumes to crops: random crops around foreground, padding
augment       random changes of a labelled crop for fine-tuning
corrupt       in-painting, out-painting and pixel shuffling
resized_crop  a random part at the size of a view, perhaps mirrored
jitter        random changes of intensity and colour
views         copies of a crop, each with draws of its own: those of reconstruction with contrast
joint_views   those of the joint-embedding methods: resized crops with jitter, large and local
masked        an image under boxes of random size, and where they are
in_batches    views in two steps: draws of a crop, then views of a batch on its device
corrupt_batch painting and shuffling of whole batches
joint_batch   resized crops and changes of intensity of whole batches
memory        memory of views that are gone, used again
seeding       random states that cost microseconds to seed again
"""
