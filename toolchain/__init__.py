"""inlay: neural networks as readable C for microcontrollers. `export` and `extract_weights` are the public API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from toolchain.ir.types import Array
    from toolchain.pipeline import Result

__all__ = ["__version__", "export", "extract_weights"]


def _version() -> str:
    from importlib import metadata

    try:
        return metadata.version("inlay")
    except metadata.PackageNotFoundError:
        return "0.0.0"


__version__ = _version()


def export(model: Any, out: str | Path, **options: Any) -> Result:
    """Write `model` as C into the folder `out`, build it, compare it with the model, and return what was written.

        import toolchain
        result = toolchain.export("kws.onnx", "build/kws", quantize="int8", calibration=x)
        scores = result.run(x)

    Args:
        model: A path, or a torch.nn.Module, torch.export.ExportedProgram, keras.Model, tf.Module or onnx.ModelProto.
        out: A folder that is new, empty, or of an earlier export, which is then replaced as a whole.
        **options: The keyword arguments of `toolchain.pipeline.export`, which has what each means.

    Returns:
        A `toolchain.pipeline.Result`: `manifest`, `parity`, `files`, and `run` for the compiled C.

    Raises:
        toolchain.errors.InputError: A file, an option or an array that cannot be used.
        toolchain.errors.UnsupportedError: Layers without a C form, all of them in `problems`.
        toolchain.errors.CheckFailedError: The C differs from its meaning, or exceeds a limit. On any error `out` is
            as it was.
    """
    from toolchain import pipeline

    return pipeline.export(model, out, **options)


def extract_weights(model: Any) -> dict[str, Array]:
    """Return the model's weights as {framework name: array}, in the framework's own order, layout and element type.

    Args:
        model: What `export` takes, or a state_dict: a mapping, or the file torch.save wrote of it, of which nothing
            but tensors is loaded. bfloat16 comes as float32, torch's quantized tensors as the reals they stand for.

    Raises:
        toolchain.errors.InputError: A file that is missing, damaged or holds no weights.
    """
    from toolchain.importers import weights

    return weights.extract_weights(model)
