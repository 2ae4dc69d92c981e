"""Images with boxes and masks for a detector, in COCO's layout: `build_coco_data` opens them."""

from engine.data.coco.data import CocoData, build_coco_data
from engine.data.coco.dataset import DetectionBatch
from engine.data.options import CocoOptions

__all__ = ["CocoData", "CocoOptions", "DetectionBatch", "build_coco_data"]
