"""export(): every stage from a model to a verified folder of C, one named line each."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import toolchain
from toolchain import emit, importers, lower, passes, plan, quantize, samples
from toolchain.config import CalibrationMethod, Options, Rounding
from toolchain.errors import CheckFailedError, InputError
from toolchain.ir.graph import Graph
from toolchain.ir.types import Array, DType
from toolchain.lower.names import check_model_name, identifier
from toolchain.lower.program import Program
from toolchain.report import archive, facts, html
from toolchain.samples import Samples
from toolchain.targets.bench import bench
from toolchain.targets.bench import compared as compared_costs
from toolchain.targets.cores import find_target
from toolchain.targets.parity import verify_target
from toolchain.verify import check
from toolchain.verify.check import Subject
from toolchain.verify.compare import interpret_batch
from toolchain.verify.compiler import Footprint, footprint
from toolchain.verify.harness import CompiledModel, copy_sources

MEASURED = ("parity.json", "report.html")
"""Files that hold what this machine's compilers and frameworks found, and so may differ on another."""
Progress = Callable[[str, int, int], None]
"""Called with a stage, how much of it is done, and how much there is (0: unknown)."""


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
        """Outputs of the C for samples in the framework's layout: an array, or {name: array} for several outputs.

        Floats are quantized for integer inputs; integer outputs come as the integers the C computes. The samples of
        a model with states are the steps of one sequence, which begins with a reset.
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
    progress: Progress | None = None,
    **flags: Any,
) -> Result:
    """Turn `model` into C in the folder `out`, build it, compare it with its meaning, write the report.

    Keyword arguments are the flags of `inlay export`, with arrays where it takes files. Raises InputError for
    what the user can mend and CheckFailedError for parity, budgets and accuracy; then `out` is untouched.
    """
    options = make_options(
        name=name or default_name(model),
        quantize=quantize,
        calibration_method=calibration_method,
        rounding=rounding,
        input_shape=input_shape,
        **flags,
    )
    target = writable_folder(Path(out))
    data = Data(_optional(calibration, "calibration"), _optional(eval, "eval"))
    return _export(model, target, options, data, Build(cc, sanitize), example_inputs, progress or _silent)


@dataclass(frozen=True, slots=True)
class Data:
    """The user's samples."""

    calibration: Samples | None
    evaluation: Samples | None


@dataclass(frozen=True, slots=True)
class Build:
    """How the host builds the C."""

    cc: str | None = None
    sanitize: bool = False


def _export(
    model: Any, out: Path, options: Options, data: Data, build: Build, example_inputs: Any, progress: Progress
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
    model: Any, graph: Graph, options: Options, data: Data, progress: Progress
) -> tuple[Graph, quantize.QuantizationReport | None]:
    """The graph with integer tensors when they are asked for; a model that is quantized keeps its own numbers."""
    if is_quantized(graph):
        ends = passes.integer_ends(graph, DType(options.io)) if options.io in {"int8", "int16"} else graph
        return ends, quantize.inherited(ends, passes.float_layers(ends))
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


def verified(
    subject: Subject, folder: Path, options: Options, data: Data, build: Build, progress: Progress
) -> dict[str, Any]:
    """Parity, footprint and accuracy as parity.json has them. Raises CheckFailedError for the first that fails."""
    document: dict[str, Any] = {"verified": options.verify}
    builds = options.verify or data.evaluation is not None
    if builds:
        progress("verify", 0, 0)
        document |= compared(subject, folder, options, data, build)
    if builds or options.max_flash is not None or options.max_stack is not None:
        progress("measure", 0, 0)
        document["footprint"] = measured(folder, options)
    return document


def compared(subject: Subject, folder: Path, options: Options, data: Data, build: Build) -> dict[str, Any]:
    """Parity and, with evaluation samples, accuracy of the built C."""
    document: dict[str, Any] = {}
    ends = check.interface(subject.graph, options.name)
    with CompiledModel(folder, ends, cc=build.cc, sanitize=build.sanitize) as compiled:
        if options.verify:
            document |= check.parity(subject, compiled, data.calibration, emit.emit)
        if data.evaluation is not None:
            document["accuracy"] = evaluated(subject, compiled, data.evaluation, options)
    return document


def evaluated(subject: Subject, compiled: CompiledModel, evaluation: Samples, options: Options) -> dict[str, Any]:
    """Accuracy of the source model and of the C on the same labelled samples, checked against the allowed drop."""
    accuracy = check.accuracy(subject, compiled, evaluation)
    limit = options.max_accuracy_drop
    if limit is not None and accuracy.drop > limit + 1e-9:
        raise CheckFailedError(
            f"{options.name}: the C loses {accuracy.drop:.2f} points of accuracy ({accuracy.model:.2f} % to "
            f"{accuracy.c:.2f} %), allowed {limit:g} (max_accuracy_drop); try per_channel or more calibration samples"
        )
    return {**facts.plain(accuracy), "drop": accuracy.drop}


def measured(folder: Path, options: Options) -> dict[str, Any] | None:
    """Flash and stack of the compiled model, checked against the budgets."""
    with tempfile.TemporaryDirectory(prefix="inlay-size-") as scratch:
        size: Footprint = footprint(folder, options.name, Path(scratch))
    check_budget(f"flash ({size.compiler})", size.flash, options.max_flash, "max_flash")
    if size.stack is None and options.max_stack is not None:
        raise InputError(f"{options.name}: max_stack needs gcc 10 or newer, {size.compiler} does not report stack use")
    check_budget(f"stack ({size.compiler})", size.stack or 0, options.max_stack, "max_stack")
    return facts.plain(size)  # type: ignore[no-any-return]


def check_budget(what: str, found: int, limit: int | None, flag: str) -> None:
    """Raise CheckFailedError when `found` bytes exceed the limit."""
    if limit is not None and found > limit:
        raise CheckFailedError(f"{what}: {found} bytes, allowed {limit} ({flag}); {found - limit} too many")


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


def default_name(model: Any) -> str:
    """A C identifier from the file's name or the model's class."""
    return identifier(Path(model).stem if isinstance(model, (str, Path)) else type(model).__name__).lower()


def make_options(**fields: Any) -> Options:
    """Options from flags, each checked. Raises InputError naming the flag."""
    known = set(Options.__dataclass_fields__)
    for flag in fields:
        if flag not in known:
            raise InputError(f"export: unknown option {flag}; there are {', '.join(sorted(known))}")
    check_model_name(fields["name"])
    _check_choice("quantize", fields["quantize"], ("float32", "int8", "int16x8"))
    _check_choice("io", fields.get("io"), ("float32", "int8", "int16", None))
    other = {"int8": "int16", "int16x8": "int8"}.get(fields["quantize"])
    if other is not None and fields.get("io") == other:
        raise InputError(f"io: found {other} beside quantize {fields['quantize']}, expected its own type or float32")
    _check_choice("input_layout", fields.get("input_layout", "nhwc"), ("nhwc", "nchw"))
    if fields.get("min_sqnr") is not None:
        _check_min_sqnr(fields)
    for flag in ("max_ram", "max_flash", "max_stack", "max_accuracy_drop", "min_sqnr"):
        if fields.get(flag) is not None and fields[flag] < 0:
            raise InputError(f"{flag}: found {fields[flag]}, expected 0 or more")
    fields["calibration_method"] = _enum(CalibrationMethod, fields["calibration_method"], "calibration_method")
    fields["rounding"] = _enum(Rounding, fields["rounding"], "rounding")
    fields["input_shape"] = _shapes(fields["input_shape"])
    return Options(**fields)


def _check_min_sqnr(fields: dict[str, Any]) -> None:
    if fields["quantize"] == "float32":
        raise InputError("min_sqnr: found quantize float32, which adds no noise; expected int8")
    if fields.get("max_accuracy_drop") is not None:
        raise InputError("min_sqnr: found max_accuracy_drop beside it; expected one of the two as the bar")


def _check_choice(flag: str, found: object, choices: tuple[object, ...]) -> None:
    if found not in choices:
        raise InputError(f"{flag}: found {found!r}, expected {' or '.join(str(c) for c in choices if c)}")


def _enum(kind: type[Any], value: Any, flag: str) -> Any:
    try:
        return kind(value)
    except ValueError:
        raise InputError(f"{flag}: found {value!r}, expected {', '.join(item.value for item in kind)}") from None


def _shapes(given: Any) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """A mapping, one bare shape (for a single input), or pairs, as pairs of name and dimensions."""
    if not given:
        return ()
    if isinstance(given, dict):
        pairs = list(given.items())
    elif all(isinstance(item, (int, np.integer)) for item in given):
        pairs = [("", given)]
    else:
        pairs = list(given)
    for name, dims in pairs:
        if not dims or any(int(dim) < 1 for dim in dims):
            raise InputError(f"input_shape: found {name or 'input'}={tuple(dims)}, expected dimensions of 1 or more")
    return tuple((str(name), tuple(int(dim) for dim in dims)) for name, dims in pairs)


def writable_folder(out: Path) -> Path:
    """`out` when an export may go there: new, empty, or written by inlay before."""
    if out.is_dir():
        if any(out.iterdir()) and not is_export(out):
            raise InputError(f"{out}: is not empty and inlay did not write it; choose a new folder as --out")
    elif out.exists() or out.is_symlink():
        raise InputError(f"{out}: is a file, expected a folder for --out")
    for parent in out.absolute().parents:
        if parent.exists():
            if not parent.is_dir():
                raise InputError(f"{out}: {parent.name} is a file, expected a folder")
            break
    return out


def is_export(folder: Path) -> bool:
    """Whether inlay wrote this folder."""
    try:
        return bool(facts.read_manifest(folder)["generator"] == facts.GENERATOR)
    except InputError:
        return False


@contextmanager
def staging(out: Path) -> Iterator[Path]:
    """A new folder beside `out` that takes its place at the end, or vanishes with every trace on an error."""
    made = _make_parents(out)
    folder = None
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.absolute().parent))
        folder.chmod(0o755)
        yield folder
        _replace(out, folder)
    except BaseException as error:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        for parent in made:
            parent.rmdir()
        if isinstance(error, PermissionError):
            raise InputError(f"{out}: no permission to write there; choose another folder as --out") from None
        raise


def _make_parents(out: Path) -> list[Path]:
    """Create the folders above `out`; the created ones, innermost first."""
    missing = [parent for parent in out.absolute().parents if not parent.exists()]
    try:
        out.absolute().parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out}: cannot be made ({error.strerror}); choose another folder as --out") from None
    return missing


def _replace(out: Path, folder: Path) -> None:
    """Put `folder` where `out` is; files in `out` that inlay did not write move along."""
    if not out.exists():
        folder.rename(out)
        return
    ours = {*facts.read_manifest(out)["files"], facts.FILE} if is_export(out) else set()
    for entry in list(out.iterdir()):
        if entry.name not in ours and not (folder / entry.name).exists():
            shutil.move(str(entry), folder / entry.name)
    old = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.absolute().parent))
    out.rename(old / "old")
    folder.rename(out)
    shutil.rmtree(old)


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
    graph = archive.load_graph(path / archive.FILE)
    return path, graph, plan.plan(lower.lower(graph, facts.options_from(document["options"])))


def bench_folder(
    folder: str | Path, target: str, *, level: str = "2", compare: str | Path | None = None, portable: bool = False
) -> dict[str, Any]:
    """What a run of an exported folder costs on a core; with `compare`, beside another export's cost.

    `portable` builds plain C alone.

    Raises InputError for an unknown target or missing tools, CheckFailedError when the outputs are wrong there.
    """
    this = bench(*read_export(folder), target, level, portable=portable)
    return (
        this
        if compare is None
        else compared_costs(this, bench(*read_export(compare), target, level, portable=portable))
    )
