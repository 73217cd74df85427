"""The commands of `inlay`, a function each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from toolchain.cli import flags, show
from toolchain.errors import InputError

app = typer.Typer(
    name="inlay",
    help="Turns a trained neural network into readable, verified C for microcontrollers.",
    epilog="Begin with inlay inspect MODEL, then inlay export MODEL --out DIR. Exit status: 0 done, 1 a check failed "
    "(parity, a limit, accuracy), 2 the input is wrong.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def _main(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        import toolchain

        typer.echo(f"inlay {toolchain.__version__}")
        raise typer.Exit


@app.command()
def export(
    model: flags.Model,
    out: flags.Out,
    name: flags.Name = None,
    quantize: flags.Quantize = "float32",
    calibration: flags.Calibration = None,
    calibration_method: flags.CalibrationMethod = "minmax",
    per_channel: flags.PerChannel = False,
    equalize: flags.Equalize = True,
    absorb_bias: flags.AbsorbBias = True,
    bias_correction: flags.BiasCorrection = True,
    optimize_weights: flags.OptimizeWeights = False,
    rounding: flags.Rounding = "tflm",
    io: flags.Ends = None,
    input_shape: flags.Shapes = None,
    input_layout: flags.Layout = "nhwc",
    preserve_input: flags.PreserveInput = False,
    max_ram: flags.MaxRam = None,
    max_flash: flags.MaxFlash = None,
    max_stack: flags.MaxStack = None,
    max_accuracy_drop: flags.MaxAccuracyDrop = None,
    min_sqnr: flags.MinSqnr = None,
    eval: flags.Eval = None,  # noqa: A002 - the name of the flag
    verify: flags.Verify = True,
    cc: flags.Compiler = None,
    sanitize: flags.Sanitize = False,
    vectors: flags.Vectors = 1,
    as_json: flags.Json = False,
) -> None:
    """Turn MODEL into C, build it, compare it with the model, write the report."""
    given = dict(locals())  # the flags are the keyword arguments of toolchain.export
    del given["as_json"]
    with show.progress(quiet=as_json) as progress:
        from toolchain import pipeline

        result = pipeline.export(**given | {"input_shape": flags.parse_shapes(input_shape), "progress": progress})
    if as_json:
        show.print_json({"out": str(out), "manifest": result.manifest, "parity": result.parity})
    else:
        show.print_export(result)


@app.command()
def verify(
    folder: flags.Exported,
    data: flags.Data = None,
    cc: flags.Compiler = None,
    sanitize: flags.Sanitize = False,
    target: flags.VerifyTarget = None,
    as_json: flags.Json = False,
) -> None:
    """Build what export wrote anew and compare it again, here or on an emulated core."""
    from toolchain import pipeline

    parity = pipeline.verify_folder(folder, data=data, cc=cc, sanitize=sanitize, target=target)
    if as_json:
        show.print_json(parity)
        return
    built = " on ".join(parity[key] for key in ("compiler", "target") if key in parity)
    table = show.table(f"{folder}: {built}", ("output", "against", "samples", "differing", "largest", "allowed"))
    for row in parity["parity"]:
        counts = (str(row["samples"]), f"{row['differing']} of {row['elements']}")
        table.add_row(row["output"], row["reference"], *counts, f"{row['largest']:.3g}", f"{row['allowed']:.3g}")
    show.print_table(table)


@app.command()
def inspect(
    model: flags.Model,
    input_shape: flags.Shapes = None,
    input_layout: flags.Layout = "nhwc",
    as_json: flags.Json = False,
) -> None:
    """Show layers, shapes, MACs and parameters of MODEL, or every layer that is unsupported."""
    from toolchain import options, passes, pipeline
    from toolchain.report import facts

    chosen = options.make_options(
        name=options.default_name(model),
        calibration_method="minmax",
        rounding="tflm",
        quantize="float32",
        input_shape=flags.parse_shapes(input_shape),
        input_layout=input_layout,
    )
    graph = passes.optimize(pipeline.load(model, chosen), input_layout)
    rows = facts.layers(graph)
    ends = {"inputs": [facts.end(graph, name) for name in graph.inputs]}
    ends["outputs"] = [facts.end(graph, name) for name in graph.outputs]
    totals = {key: sum(row[key] for row in rows) for key in ("macs", "parameters")}
    if as_json:
        show.print_json({**ends, "layers": rows, **totals})
        return
    table = show.table(Path(model).name, ("#", "layer", "operator", "output", "type", "MACs", "parameters"))
    for row in rows:
        cells = (str(row["index"]), row["origin"], row["op"], show.shape(row["shape"]), row["dtype"])
        table.add_row(*cells, f"{row['macs']:,}", f"{row['parameters']:,}")
    table.add_section()
    table.add_row("", "total", "", "", "", f"{totals['macs']:,}", f"{totals['parameters']:,}")
    show.print_table(table)
    for kind, entries in ends.items():
        for entry in entries:
            typer.echo(f"{kind[:-1]} {entry['name']}: {show.shape(entry['framework_shape'])} {entry['dtype']}")


@app.command()
def weights(
    model: flags.WeightsModel,
    output: flags.Header = None,
    quantize: flags.WeightType = "float32",
    as_json: flags.Json = False,
) -> None:
    """List the weights of MODEL by the framework's names, and write them as a C header."""
    from toolchain.report import header

    if quantize not in {"float32", "int8"}:
        raise InputError(f"--quantize: found {quantize!r}, expected float32 or int8")
    import toolchain

    arrays = toolchain.extract_weights(model)
    if output is not None:
        header.write(output, arrays, quantize)
    if as_json:
        show.print_json(
            [{"name": key, "shape": a.shape, "dtype": str(a.dtype), "bytes": a.nbytes} for key, a in arrays.items()]
        )
        return
    table = show.table(Path(model).name, ("weight", "shape", "type", "bytes"))
    for key, array in arrays.items():
        table.add_row(key, show.shape(array.shape), str(array.dtype), f"{array.nbytes:,}")
    show.print_table(table)


@app.command()
def bench(
    folder: flags.Exported,
    target: flags.BenchTarget,
    compare: flags.Compare = None,
    level: flags.Level = "2",
    portable: flags.Portable = False,
    native: flags.Native = False,
    as_json: flags.Json = False,
) -> None:
    """Measure flash, RAM, stack and executed instructions of an export on an emulated core."""
    from toolchain import pipeline

    document = pipeline.bench_folder(folder, target, level=level, compare=compare, portable=portable, native=native)
    if as_json:
        show.print_json(document)
        return
    from toolchain.targets import tables

    for table in tables.bench_tables(document):
        show.print_table(table)


@app.command()
def ops(as_json: flags.Json = False) -> None:
    """List the operators, their float and int8 forms, and the foreign operators that the importers read."""
    from toolchain.ops.base import FAMILIES, OPERATORS

    rows = [
        {
            "operator": name,
            "family": FAMILIES[name],
            "int8": _integer_form(cls),
            "summary": (cls.__doc__ or "").strip().splitlines()[0],
        }
        for name, cls in sorted(OPERATORS.items(), key=lambda item: (FAMILIES[item[0]], item[0]))
    ]
    foreign = {name: _foreign_operators(name) for name in ("onnx", "tflite")}
    if as_json:
        show.print_json({"operators": rows, "importers": foreign})
        return
    table = show.table("Operators", ("family", "operator", "float32", "int8", "what it is"))
    for row in rows:
        table.add_row(row["family"], row["operator"], "yes", row["int8"], row["summary"])
    show.print_table(table)
    for name, kinds in foreign.items():
        typer.echo(f"\n{name}, {len(kinds)} operators: {', '.join(kinds)}")


def _integer_form(cls: Any) -> str:
    """Whether an operator runs on int8: "yes", "in float" between conversions, or "by kind"."""
    from toolchain.ops.base import QuantRule

    if not isinstance(cls.quant_rule, QuantRule):
        return "by kind"
    return "in float" if cls.quant_rule is QuantRule.FLOAT else "yes"


def _foreign_operators(importer: str) -> list[str]:
    """The operators of a format that its importer reads; none when the format's package is not installed."""
    import importlib

    try:
        importlib.import_module(f"toolchain.importers.{importer}.convert")
        handlers = importlib.import_module(f"toolchain.importers.{importer}.layer").HANDLERS
    except (ImportError, AttributeError):
        return []
    return sorted(str(kind) for kind in handlers)
