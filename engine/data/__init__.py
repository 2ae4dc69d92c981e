"""Images for training and evaluation: `build_data` opens a data set, `ImageData` hands out its batches."""

from engine.data.image_data import ImageData, build_data
from engine.data.source import BrokenImageError, DataError

__all__ = ["BrokenImageError", "DataError", "ImageData", "build_data"]
