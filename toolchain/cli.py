"""The command line: the only module that prints or sets an exit status."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from toolchain.errors import CheckFailedError, InlayError, InputError

if TYPE_CHECKING:
    from rich.table import Table

    from toolchain.pipeline import Result

app = typer.Typer(
    name="inlay",
    help="Turns a trained neural network into readable, verified C for microcontrollers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Compiler = Annotated[str | None, typer.Option("--cc", help="C compiler ($CC, else gcc, when not given).")]
Shapes = Annotated[
    list[str] | None, typer.Option(help="Dimensions where the model leaves them open: [NAME=]1,3,32,32; repeatable.")
]
ModelPath = Annotated[str, typer.Argument(help="A .onnx, .tflite, .keras, .h5, .pt2 file or a SavedModel folder.")]
CORES = "cortex-m0|m3|m4|m7|m33|m55, rv32imc, host"
Layout = Annotated[str, typer.Option(help="Layout of image inputs in C: nhwc or nchw.")]


def main() -> None:
    """Run the command line: status 0 done, 1 a check failed, 2 the input is wrong."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """The exit status of one command line."""
    try:
        status = typer.main.get_command(app)(args=arguments, prog_name="inlay", standalone_mode=False)
    except CheckFailedError as error:
        return _fail(str(error), 1)
    except InlayError as error:
        return _fail(str(error), 2)
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", 130)
    except typer.Exit as stop:
        return stop.exit_code
    except Exception as error:
        if not hasattr(error, "format_message"):  # a bug: its traceback is wanted
            raise
        return (
            _fail(f"{' '.join(error.format_message().split()).rstrip('.')}; see inlay --help", 2) if str(error) else 2
        )
    return status if isinstance(status, int) else 0


def _fail(message: str, status: int) -> int:
    typer.echo(f"inlay: {message}", err=True)
    return status


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
    model: ModelPath,
    out: Annotated[Path, typer.Option(help="Folder to write; replaced when inlay wrote it.")],
    name: Annotated[str | None, typer.Option(help="Prefix of everything in C; the file's name when not given.")] = None,
    quantize: Annotated[str, typer.Option(help="float32, int8 or int16x8.")] = "float32",
    per_channel: Annotated[bool, typer.Option("--per-channel/--per-tensor", help="Weight scales.")] = False,
    calibration: Annotated[str | None, typer.Option(help="Representative inputs for int8, .npz or .npy.")] = None,
    calibration_method: Annotated[str, typer.Option(help="minmax, percentile, mse, entropy or auto.")] = "minmax",
    equalize: Annotated[bool, typer.Option("--equalize/--no-equalize", help="Balance channels across layers.")] = True,
    absorb_bias: Annotated[
        bool, typer.Option("--absorb-bias/--no-absorb-bias", help="Move biases into the next layer.")
    ] = True,
    bias_correction: Annotated[
        bool, typer.Option("--bias-correction/--no-bias-correction", help="Take back mean errors.")
    ] = True,
    optimize_weights: Annotated[
        bool, typer.Option("--optimize-weights", help="Round weights with error feedback.")
    ] = False,
    io: Annotated[str | None, typer.Option(help="Type of C inputs and outputs: float32, int8 or int16.")] = None,
    input_shape: Shapes = None,
    input_layout: Layout = "nhwc",
    rounding: Annotated[str, typer.Option(help="tflm, single or litert.")] = "tflm",
    evaluation: Annotated[str | None, typer.Option("--eval", help="Labelled samples (.npz with y).")] = None,
    max_ram: Annotated[int | None, typer.Option(help="Largest arena in bytes.")] = None,
    max_flash: Annotated[int | None, typer.Option(help="Largest code and weights in bytes.")] = None,
    max_stack: Annotated[int | None, typer.Option(help="Deepest stack in bytes.")] = None,
    max_accuracy_drop: Annotated[float | None, typer.Option(help="Points the C may lose on --eval.")] = None,
    min_sqnr: Annotated[float | None, typer.Option(help="Least signal to quantization noise, in dB.")] = None,
    preserve_input: Annotated[
        bool, typer.Option("--preserve-input", help="A run leaves the inputs as they are.")
    ] = False,
    vectors: Annotated[int, typer.Option(min=1, help="Samples embedded for the self-test.")] = 1,
    verify: Annotated[bool, typer.Option("--verify/--no-verify", help="Build the C and compare it.")] = True,
    cc: Compiler = None,
    sanitize: Annotated[bool, typer.Option("--sanitize", help="Build with the address sanitizers.")] = False,
    as_json: Json = False,
) -> None:
    """Turn MODEL into C, build it, compare it with the model, write the report."""
    if max_accuracy_drop is not None and evaluation is None:
        raise InputError("--max-accuracy-drop: needs labelled samples; pass --eval FILE.npz with the labels as y")
    with _progress(quiet=as_json) as progress:
        from toolchain import pipeline

        result = pipeline.export(
            model,
            out,
            name=name,
            quantize=quantize,
            per_channel=per_channel,
            calibration=calibration,
            calibration_method=calibration_method,
            equalize=equalize,
            absorb_bias=absorb_bias,
            bias_correction=bias_correction,
            optimize_weights=optimize_weights,
            io=io,
            input_shape=parse_shapes(input_shape or []),
            input_layout=input_layout,
            rounding=rounding,
            eval=evaluation,
            max_ram=max_ram,
            max_flash=max_flash,
            max_stack=max_stack,
            max_accuracy_drop=max_accuracy_drop,
            min_sqnr=min_sqnr,
            preserve_input=preserve_input,
            vectors=vectors,
            verify=verify,
            cc=cc,
            sanitize=sanitize,
            progress=progress,
        )
    if as_json:
        _print_json({"out": str(out), "manifest": result.manifest, "parity": result.parity})
    else:
        from toolchain.report.tables import quantization_tables

        for table in (*quantization_tables(result.manifest), _summary(result)):
            _print_table(table)
        for warning in (result.manifest["quantization"] or {}).get("warnings", ()):
            typer.echo(f"inlay: warning: {warning}", err=True)


@app.command()
def verify(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="What inlay export wrote.")],
    data: Annotated[
        str | None, typer.Option(help="Inputs to compare on, .npz or .npy; seeded noise when not given.")
    ] = None,
    cc: Compiler = None,
    sanitize: Annotated[bool, typer.Option("--sanitize", help="Build with the address sanitizers.")] = False,
    target: Annotated[str | None, typer.Option(metavar="CPU", help=f"Run on an emulated core: {CORES}.")] = None,
    as_json: Json = False,
) -> None:
    """Rebuild what export wrote and compare it again."""
    from toolchain import pipeline

    parity = pipeline.verify_folder(folder, data=data, cc=cc, sanitize=sanitize, target=target)
    if as_json:
        _print_json(parity)
        return
    built = " on ".join(parity[key] for key in ("compiler", "target") if key in parity)
    table = _table(f"{folder}: {built}", ("output", "against", "samples", "differing", "largest", "allowed"))
    for row in parity["parity"]:
        counts = (str(row["samples"]), f"{row['differing']} of {row['elements']}")
        table.add_row(row["output"], row["reference"], *counts, f"{row['largest']:.3g}", f"{row['allowed']:.3g}")
    _print_table(table)


@app.command()
def inspect(model: ModelPath, input_shape: Shapes = None, input_layout: Layout = "nhwc", as_json: Json = False) -> None:
    """Layers, shapes, MACs, parameters, and everything that is unsupported."""
    from toolchain import passes, pipeline
    from toolchain.report import facts

    options = pipeline.make_options(
        name=pipeline.default_name(model),
        calibration_method="minmax",
        rounding="tflm",
        quantize="float32",
        input_shape=parse_shapes(input_shape or []),
        input_layout=input_layout,
    )
    graph = passes.optimize(pipeline.load(model, options), input_layout)
    rows = facts.layers(graph)
    ends = {"inputs": [facts.end(graph, name) for name in graph.inputs]}
    ends["outputs"] = [facts.end(graph, name) for name in graph.outputs]
    totals = {key: sum(row[key] for row in rows) for key in ("macs", "parameters")}
    if as_json:
        _print_json({**ends, "layers": rows, **totals})
        return
    table = _table(Path(model).name, ("#", "layer", "operator", "output", "type", "MACs", "parameters"))
    for row in rows:
        cells = (str(row["index"]), row["origin"], row["op"], _shape(row["shape"]), row["dtype"])
        table.add_row(*cells, f"{row['macs']:,}", f"{row['parameters']:,}")
    table.add_section()
    table.add_row("", "total", "", "", "", f"{totals['macs']:,}", f"{totals['parameters']:,}")
    _print_table(table)
    for kind, entries in ends.items():
        for entry in entries:
            typer.echo(f"{kind[:-1]} {entry['name']}: {_shape(entry['framework_shape'])} {entry['dtype']}")


@app.command()
def weights(
    model: ModelPath,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="C header to write.")] = None,
    quantize: Annotated[str, typer.Option(help="float32 or int8 (symmetric, per tensor).")] = "float32",
    as_json: Json = False,
) -> None:
    """Only the weights: framework names, shapes, C header arrays."""
    from toolchain.report import header

    if quantize not in {"float32", "int8"}:
        raise InputError(f"--quantize: found {quantize!r}, expected float32 or int8")
    import toolchain

    arrays = toolchain.extract_weights(model)
    if output is not None:
        header.write(output, arrays, quantize)
    if as_json:
        _print_json(
            [{"name": key, "shape": a.shape, "dtype": str(a.dtype), "bytes": a.nbytes} for key, a in arrays.items()]
        )
        return
    table = _table(Path(model).name, ("weight", "shape", "type", "bytes"))
    for key, array in arrays.items():
        table.add_row(key, _shape(array.shape), str(array.dtype), f"{array.nbytes:,}")
    _print_table(table)


@app.command()
def bench(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="What inlay export wrote.")],
    target: Annotated[str, typer.Option(metavar="CPU", help=f"Core to emulate, or this machine: {CORES}.")],
    compare: Annotated[Path | None, typer.Option(metavar="DIR", help="Another export to measure beside it.")] = None,
    level: Annotated[str, typer.Option("-O", metavar="LEVEL", help="Optimisation: 0, 1, 2, 3 or s.")] = "2",
    portable: Annotated[bool, typer.Option("--portable", help="Plain C, without the core's own kernels.")] = False,
    as_json: Json = False,
) -> None:
    """Flash, RAM, stack and executed instructions on an emulated core."""
    from toolchain import pipeline

    document = pipeline.bench_folder(folder, target, level=level, compare=compare, portable=portable)
    if as_json:
        _print_json(document)
        return
    from toolchain.targets import tables

    for table in tables.bench_tables(document):
        _print_table(table)


@app.command()
def ops(as_json: Json = False) -> None:
    """The operator table: which operators there are, with float and int8 forms, and what the importers read."""
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
        _print_json({"operators": rows, "importers": foreign})
        return
    table = _table("Operators", ("family", "operator", "float32", "int8", "what it is"))
    for row in rows:
        table.add_row(row["family"], row["operator"], "yes", row["int8"], row["summary"])
    _print_table(table)
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


def parse_shapes(texts: list[str]) -> dict[str, tuple[int, ...]]:
    """[NAME=]1,3,32,32 as {name: dimensions}; no name is the single input's."""
    shapes = {}
    for text in texts:
        name, _, dims = text.rpartition("=")
        if not re.fullmatch(r"\d+(,\d+)*", dims):
            raise InputError(f"--input-shape: found {text!r}, expected [NAME=]1,3,32,32")
        shapes[name] = tuple(int(dim) for dim in dims.split(","))
    return shapes


@contextmanager
def _progress(*, quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """One line per stage, with a bar where the stage counts; nothing when quiet or not on a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    bar = Progress(
        SpinnerColumn(finished_text=" "),
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        console=console,
        disable=quiet or not console.is_terminal,
        transient=True,
    )
    tasks: dict[str, Any] = {}

    def report(stage: str, done: int, total: int) -> None:
        if stage not in tasks:
            for task in tasks.values():
                bar.update(task, total=1, completed=1)
            tasks[stage] = bar.add_task(stage, total=None)
        if total:
            bar.update(tasks[stage], total=total, completed=done)

    with bar:
        yield report


def _table(title: str, columns: tuple[str, ...]) -> Table:
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    numbers = {"MACs", "parameters", "bytes", "samples", "differing", "largest", "allowed", "#"}
    for column in columns:
        table.add_column(column, justify="right" if column in numbers else "left", overflow="fold")
    return table


def _summary(result: Result) -> Table:
    """The final table of an export."""
    document, parity = result.manifest, result.parity
    table = _table(f"{result.out}", ("", document["name"]))
    table.add_row("layers", f"{len(document['layers'])}")
    table.add_row("MACs", f"{document['macs']:,}")
    for row in parity.get("parity", ()):
        how = "equal to the bit" if row["largest"] == 0 else f"largest difference {row['largest']:.3g}"
        table.add_row("parity", f"{row['output']}: {how} against {row['reference']}, {row['samples']} samples")
    if not parity["verified"]:
        table.add_row("parity", "not verified (--no-verify)")
    for name, ratio in parity.get("signal_to_noise_db", {}).items():
        table.add_row("noise", f"{name}: {ratio:.1f} dB against the float model")
    if "accuracy" in parity:
        accuracy = parity["accuracy"]
        table.add_row(
            "accuracy model", f"{accuracy['model']:.2f} % ({accuracy['reference']}, {accuracy['samples']} samples)"
        )
        if accuracy["python"] is not None:
            table.add_row("accuracy Python", f"{accuracy['python']:.2f} % (the same integers in numpy)")
        table.add_row("accuracy C", f"{accuracy['c']:.2f} %")
    table.add_row("arena", f"{document['sizes']['arena_bytes']:,} bytes")
    table.add_row("weights", f"{document['sizes']['weights_bytes']:,} bytes")
    if parity.get("footprint"):
        size = parity["footprint"]
        stack = "" if size["stack"] is None else f", stack {size['stack']:,} bytes"
        table.add_row("flash", f"{size['flash']:,} bytes{stack} ({size['compiler']})")
    table.add_row("files", " ".join(path.name for path in result.files))
    return table


def _shape(shape: Any) -> str:
    return "x".join(str(size) for size in shape) or "scalar"


def _print_table(table: Table) -> None:
    from rich.console import Console

    piped = not sys.stdout.isatty()
    Console(width=160 if piped else None).print(table)


def _print_json(document: Any) -> None:
    from toolchain.report.facts import plain

    typer.echo(json.dumps(plain(document), indent=2))


if __name__ == "__main__":
    main()
