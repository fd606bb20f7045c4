"""The settings of both scripts and the tables in them; those of both in `shared`."""

from medssl.config.finetune import Augment, Finetune
from medssl.config.intensity import Percentiles, Window
from medssl.config.methods import (
    BarlowSettings,
    JointViews,
    MAESettings,
    MaskedSettings,
    MethodSettings,
    PairsSettings,
    ReconContrastSettings,
    SimCLRSettings,
    SwAVSettings,
    VICRegSettings,
)
from medssl.config.networks import EncoderSettings, ResNetSettings, SwinSettings, UNetSettings, ViTSettings, encoder_sizes
from medssl.config.pretrain import Pretrain
from medssl.config.schedules import Constant, Cosine, FineTune, OneCycle, ScheduleSettings
from medssl.config.shared import AS_RESOLVED, WITHOUT_EFFECT, Shared
from medssl.config.tables import Table

__all__ = [
    "AS_RESOLVED",
    "WITHOUT_EFFECT",
    "Augment",
    "BarlowSettings",
    "Constant",
    "Cosine",
    "EncoderSettings",
    "FineTune",
    "Finetune",
    "JointViews",
    "MAESettings",
    "MaskedSettings",
    "MethodSettings",
    "OneCycle",
    "PairsSettings",
    "Percentiles",
    "Pretrain",
    "ReconContrastSettings",
    "ResNetSettings",
    "ScheduleSettings",
    "Shared",
    "SimCLRSettings",
    "SwAVSettings",
    "SwinSettings",
    "Table",
    "UNetSettings",
    "VICRegSettings",
    "ViTSettings",
    "Window",
    "encoder_sizes",
]
