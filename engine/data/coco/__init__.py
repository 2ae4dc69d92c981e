"""Object detection in COCO's format: its data, results, scores and pictures."""
