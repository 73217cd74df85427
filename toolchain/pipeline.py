"""export(): every stage from a model to a verified folder of C, one named line each."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import toolchain
from toolchain import emit, importers, lower, passes, plan, quantize, samples
from toolchain.acceptance import check_budget, verified
from toolchain.config import CalibrationMethod, Options, Rounding
from toolchain.errors import InputError
from toolchain.ir.graph import Graph
from toolchain.ir.types import Array, DType
from toolchain.lower.program import Program
from toolchain.options import Build, Data, default_name, make_options
from toolchain.report import archive, facts, html
from toolchain.samples import Samples
from toolchain.staging import staging, writable_folder
from toolchain.targets.bench import bench
from toolchain.targets.bench import compared as compared_costs
from toolchain.targets.cores import find_target
from toolchain.targets.parity import verify_target
from toolchain.verify import check
from toolchain.verify.check import Subject
from toolchain.verify.compare import interpret_batch
from toolchain.verify.harness import CompiledModel, copy_sources

MEASURED = ("parity.json", "report.html")
"""Files that hold what this machine's compilers and frameworks found, and so may differ on another."""


@dataclass(frozen=True)
class Result:
    """What an export wrote: the folder, its manifest and parity as dictionaries, and the compiled C as `run`."""

    out: Path
    manifest: dict[str, Any]
    parity: dict[str, Any]
    graph: Graph

    @property
    def name(self) -> str:
        """The model's prefix in C."""
        return str(self.manifest["name"])

    @property
    def files(self) -> tuple[Path, ...]:
        """The written files."""
        return tuple(self.out / name for name in (*self.manifest["files"], facts.FILE))

    @functools.cached_property
    def compiled(self) -> CompiledModel:
        """The C, built by the host's compiler."""
        return CompiledModel(self.out, check.interface(self.graph, self.name))

    def run(self, x: Any) -> Any:
        """Return the outputs of the C, built by the host's compiler at the first call.

        Args:
            x: Samples as `export` takes them: (samples, ...) in the framework's layout where the model has (1, ...).
                Reals are quantized for integer inputs. Of a model with states they are the steps of one sequence,
                which begins with a reset.

        Returns:
            (samples, ...) in the framework's layout, of the type the C has; {name: array} for several outputs.

        Raises:
            InputError: Samples that do not fit the model's inputs, or no C compiler.
        """
        found = self.compiled.run(samples.feeds(self.graph, samples.read_samples(x, "run")))
        outputs = {
            self.graph.port(name).name: _merge_batch(samples.to_framework(self.graph, name, array))
            for name, array in found.items()
        }
        return next(iter(outputs.values())) if len(outputs) == 1 else outputs


def _merge_batch(array: Array) -> Array:
    return array.reshape(-1, *array.shape[2:]) if array.ndim > 1 else array


def export(
    model: Any,
    out: str | Path,
    *,
    name: str | None = None,
    calibration: Any = None,
    eval: Any = None,  # noqa: A002 - the name of the flag
    example_inputs: Any = None,
    input_shape: Any = None,
    calibration_method: str | CalibrationMethod = CalibrationMethod.MINMAX,
    rounding: str | Rounding = Rounding.TFLM,
    quantize: str = "float32",
    cc: str | None = None,
    sanitize: bool = False,
    progress: quantize.Progress | None = None,
    **flags: Any,
) -> Result:
    """Turn `model` into C in the folder `out`, build it, compare it with its meaning, write the report.

    Keyword arguments are the flags of `inlay export`; `toolchain.export` has what `model` and `out` may be, and the
    errors. Samples are a path to a .npz or .npy, an array (a model of one input), a tuple in the order of the inputs,
    or {input name: array}; arrays have the framework's shape with samples along the first axis, of reals or of the
    integers the model takes.

    Args:
        model: A path, or a live model.
        out: A folder.
        name: Prefix of files, functions and macros, a C identifier; of the file's or the class's name when None.
        calibration: Representative samples, needed by int8 and int16x8; the C is also compared on them.
        eval: Samples with labels `y`: class indices, or one-hot rows. Accuracy is of the first output's largest score.
        example_inputs: What a torch.nn.Module is traced with: a tuple of tensors.
        input_shape: {input name: dimensions} where the model leaves them open; dimensions alone for a single input.
        calibration_method: How ranges follow from samples: minmax, percentile, mse, entropy or auto.
        rounding: How sums become output integers: tflm, litert or single.
        quantize: float32, int8 or int16x8. A quantized model keeps its own integers.
        cc: The host's C compiler; $CC, else gcc, when None.
        sanitize: Build with the address and undefined-behaviour sanitizers.
        progress: Called with a stage, how much of it is done, and how much there is (0: unknown).
        **flags: The other fields of `toolchain.config.Options`: per_channel, io, max_ram, verify, ...
    """
    options = make_options(
        name=name or default_name(model),
        quantize=quantize,
        calibration_method=calibration_method,
        rounding=rounding,
        input_shape=input_shape,
        **flags,
    )
    if options.max_accuracy_drop is not None and eval is None:
        raise InputError(
            "max_accuracy_drop: needs labelled samples; pass --eval FILE.npz (eval=... in Python) with the labels as y"
        )
    target = writable_folder(Path(out))
    data = Data(_optional(calibration, "calibration"), _optional(eval, "eval"))
    return _export(model, target, options, data, Build(cc, sanitize), example_inputs, progress or _silent)


def _export(
    model: Any, out: Path, options: Options, data: Data, build: Build, example_inputs: Any, progress: quantize.Progress
) -> Result:
    progress("import", 0, 0)
    imported = load(model, options, example_inputs)
    progress("optimize", 0, 0)
    floats = passes.optimize(imported, options.input_layout)
    if data.evaluation is not None:
        check.labelled(floats, data.evaluation)  # wrong labels are said before the long stages
    progress("quantize", 0, 0)
    graph, quantization = quantized(model, floats, options, data, progress)
    progress("lower", 0, 0)
    arranged = plan.arrange(graph, options)
    floats, graph = arranged if graph is floats else floats, arranged
    program = plan.plan(lower.lower(graph, options))
    check_budget("arena", program.arena_bytes, options.max_ram, "max_ram")
    progress("emit", 0, 0)
    source = source_facts(model, floats)
    texts = emit.emit(program, self_test(graph, data.calibration, options), source=source["name"])
    with staging(out) as folder:
        copy_sources(texts, folder)
        archive.save_graph(graph, folder / archive.FILE)
        parity = verified(Subject(model, floats, graph, program), folder, options, data, build, progress)
        progress("report", 0, 0)
        document = facts.manifest(toolchain.__version__, options, source, graph, program, quantization)
        write_report(folder, document, parity)
    return Result(out, document, parity, graph)


def self_test(graph: Graph, calibration: Samples | None, options: Options) -> emit.Vectors:
    """The samples that NAME_vectors.h embeds: the first of the calibration's, else seeded noise."""
    batch = samples.head(check.trial_batch(graph, calibration), options.vectors)
    count = len(next(iter(batch.values())))
    singles = [{name: array[at : at + 1] for name, array in batch.items()} for at in range(count)]
    rows = [interpret_batch(graph, single, options.rounding) for single in singles]
    outputs = {name: np.concatenate([row[name] for row in rows]) for name in graph.outputs}
    return emit.Vectors(tuple(batch[name] for name in graph.inputs), tuple(outputs[name] for name in graph.outputs))


def load(model: Any, options: Options, example_inputs: Any = None) -> Graph:
    """The model as a graph. Raises InputError when it is missing, empty or foreign."""
    return importers.load(model, input_shape=options.input_shape, example_inputs=example_inputs)


def is_quantized(graph: Graph) -> bool:
    """Whether the graph's activations already are integers."""
    return any(tensor.type.quant is not None and tensor.data is None for tensor in graph.tensors.values())


def quantized(
    model: Any, graph: Graph, options: Options, data: Data, progress: quantize.Progress
) -> tuple[Graph, quantize.QuantizationReport | None]:
    """The graph with integer tensors when they are asked for; a model that is quantized keeps its own numbers."""
    if is_quantized(graph):
        ends = passes.integer_ends(graph, DType(options.io)) if options.io in {"int8", "int16"} else graph
        check_ends(ends, options)
        return ends, quantize.inherited(ends, passes.float_layers(ends))
    if options.quantize == "float32" and options.io in {"int8", "int16"}:
        raise InputError(
            f"io: found {options.io}, but nothing is quantized: {options.name} is a float model and quantize is "
            "float32; pass --quantize int8 or int16x8, or leave --io out"
        )
    if options.quantize == "float32":
        return graph, None
    if graph.states:
        raise InputError(
            f"{options.name}: it keeps state between runs, which quantization does not follow; export it as float32, "
            "or quantize it in TensorFlow"
        )
    if data.calibration is None:
        wanted = ", ".join(f"{graph.port(n).name} {samples.framework_shape(graph, n)}" for n in graph.inputs)
        raise InputError(
            f"{options.name}: {options.quantize} needs calibration samples; pass --calibration FILE.npz "
            f"(calibration=... in Python) with representative inputs: {wanted}"
        )
    batch = samples.feeds(graph, data.calibration)
    goal = accuracy_goal(model, graph, options, data.evaluation)
    made, report = quantize.quantize(graph, batch, options, progress, goal)
    if data.evaluation is None:
        return made, report
    mismatches = quantize.scale_mismatch(graph, batch, samples.feeds(graph, data.evaluation))
    return made, dataclasses.replace(report, warnings=(*report.warnings, *mismatches))


def check_ends(graph: Graph, options: Options) -> None:
    """Raise InputError where a quantized model's inputs or outputs are signed integers of another type than `io`."""
    for name in (*graph.inputs, *graph.outputs):
        dtype = graph.tensors[name].type.dtype
        if options.io is not None and dtype in {DType.INT8, DType.INT16} and dtype is not DType(options.io):
            raise InputError(
                f"io: found {options.io}, but {graph.port(name).name} of {options.name} is {dtype.value} in the model; "
                "leave --io out"
            )


def accuracy_goal(model: Any, graph: Graph, options: Options, evaluation: Samples | None) -> quantize.Goal | None:
    """The accuracy that a quantized graph must keep on the evaluation samples, None without a limit."""
    if options.max_accuracy_drop is None or evaluation is None:
        return None
    limit, whole = options.max_accuracy_drop, check.model_accuracy(model, graph, evaluation)

    def failure(before: float, best: float) -> str:
        return (
            f"{options.name}: int8 loses {whole - before:.2f} points of accuracy ({whole:.2f} % to {before:.2f} %), "
            f"half of the layers in float {whole - best:.2f}, allowed {limit:g} (max_accuracy_drop)"
        )

    measure = functools.partial(check.python_accuracy, evaluation=evaluation, rounding=options.rounding)
    return quantize.Goal("max_accuracy_drop", "% accuracy", whole - limit, measure, failure)


def write_report(folder: Path, document: dict[str, Any], parity: dict[str, Any]) -> None:
    """parity.json, report.html, and manifest.json, which hashes every file that does not depend on this machine."""
    measured_json, measured_html = MEASURED
    (folder / measured_json).write_text(facts.json_text(parity))
    (folder / measured_html).write_text(html.render(document, facts.plain(parity)))
    document["files"] = {
        path.name: None if path.name in MEASURED else facts.file_hash(path) for path in sorted(folder.iterdir())
    }
    (folder / facts.FILE).write_text(facts.json_text(document))


def source_facts(model: Any, graph: Graph) -> dict[str, Any]:
    """What the export was made from: a file's name and hash, or a live model's class and the hash of its graph."""
    if isinstance(model, (str, Path)):
        path = Path(model)
        return {"name": path.name, "sha256": facts.file_hash(path)}
    with tempfile.TemporaryDirectory(prefix="inlay-hash-") as scratch:
        archive.save_graph(graph, Path(scratch) / archive.FILE)
        digest = hashlib.sha256((Path(scratch) / archive.FILE).read_bytes()).hexdigest()
    return {"name": type(model).__name__, "sha256": digest}


def _silent(stage: str, done: int, total: int) -> None:
    del stage, done, total


def _optional(data: Any, role: str) -> Samples | None:
    return None if data is None else samples.read_samples(data, role)


def verify_folder(
    folder: str | Path,
    *,
    data: Any = None,
    cc: str | None = None,
    sanitize: bool = False,
    target: str | None = None,
) -> dict[str, Any]:
    """Rebuild what an export wrote and compare it again; the rows of parity. Raises CheckFailedError."""
    if target not in {None, "host"}:
        if cc or sanitize:
            raise InputError(f"--target {target}: --cc and --sanitize are for the host; leave one of them out")
        find_target(str(target))
    path, graph, program = read_export(folder)
    batch = samples.feeds(graph, samples.read_samples(data, "data")) if data is not None else None
    if target not in {None, "host"}:
        return verify_target(path, graph, program, str(target), batch)
    with CompiledModel(path, check.interface(graph, program.name), cc=cc, sanitize=sanitize) as compiled:
        return check.recheck(graph, program, compiled, batch, emit.emit)


def read_export(folder: str | Path) -> tuple[Path, Graph, Program]:
    """The graph an export archived, and the program it lowers to."""
    path = Path(folder)
    document = facts.read_manifest(path)
    for file in document["files"]:
        if not (path / file).is_file():
            raise InputError(f"{path / file}: not there, though the manifest lists it; export the model again")
    graph = archive.load_graph(path / archive.FILE)
    return path, graph, plan.plan(lower.lower(graph, facts.options_from(document["options"])))


def bench_folder(
    folder: str | Path,
    target: str,
    *,
    level: str = "2",
    compare: str | Path | None = None,
    portable: bool = False,
    native: bool = False,
) -> dict[str, Any]:
    """What a run of an exported folder costs on a core; with `compare`, beside another export's cost.

    `portable` builds plain C alone, `native` for all that this machine's processor has.

    Raises InputError for an unknown target or missing tools, CheckFailedError when the outputs are wrong there.
    """
    run = functools.partial(bench, portable=portable, native=native)
    this = run(*read_export(folder), target, level)
    return this if compare is None else compared_costs(this, run(*read_export(compare), target, level))
