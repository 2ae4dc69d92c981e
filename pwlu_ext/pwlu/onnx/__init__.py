"""What goes with ONNX beyond `torch.onnx.export` of a folded model."""

from .custom_op import custom_op_library, translation_table

__all__ = ["custom_op_library", "translation_table"]
