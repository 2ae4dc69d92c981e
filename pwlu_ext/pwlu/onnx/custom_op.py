"""The operator pwlu::folded in ONNX files, and its library for ONNX Runtime's CPU provider."""

from collections.abc import Callable
from typing import Any

from ..inference.folded import FOLDED
from ..library import library_file

DOMAIN, VERSION = "pwlu", 1


def custom_op_library() -> str:
    """Return the file for `onnxruntime.SessionOptions.register_custom_ops_library`.

    It computes float32, on the session's threads, and needs neither torch nor Python.

    Raises:
        RuntimeError: it is not built; the message has the command.
    """
    path = library_file("_onnx")
    if path is None:
        raise RuntimeError(
            "pwlu: the operator for ONNX Runtime is not built. Build it with: "
            "PWLU_ONNXRUNTIME_INCLUDE=FOLDER pip install ./pwlu_ext -- where FOLDER has onnxruntime_c_api.h "
            "of ONNX Runtime 1.17 or newer."
        )
    return str(path)


def translation_table() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Return the `custom_translation_table` for `torch.onnx.export` of `pwlu.fold(model, form="operator")`.

    Raises:
        ModuleNotFoundError: onnxscript is not installed.
    """
    from onnx import defs
    from onnxscript.values import Op, Opset

    parameter, attribute = defs.OpSchema.FormalParameter, defs.OpSchema.Attribute
    schema = defs.OpSchema(
        "folded",
        DOMAIN,
        VERSION,
        inputs=[parameter(name, "T") for name in ("x", "left", "interval", "slopes", "offsets")],
        outputs=[parameter("y", "T")],
        type_constraints=[("T", ["tensor(float)"], "")],
        attributes=[attribute("channel_dim", defs.OpSchema.AttrType.INT)],
    )
    operator = Op(Opset(DOMAIN, VERSION), schema.name, schema)

    def folded(x: Any, left: Any, interval: Any, slopes: Any, offsets: Any, channel_dim: int) -> Any:
        return operator(x, left, interval, slopes, offsets, channel_dim=channel_dim)

    return {FOLDED: folded}
