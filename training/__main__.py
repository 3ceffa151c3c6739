"""The command line: `python -m training COMMAND`."""

import argparse
import re
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Final

from rich.console import Console

from service.errors import GraftError
from service.published import valid_name
from training import demo, flags
from training.demo import WEIGHTS_UNAVAILABLE
from training.errors import DataError, SettingError, WeightsUnavailable, WorseThanChampion
from training.settings import STRATEGIES, AuditSettings, Settings

_BAD_INPUT: Final = 2
_FAILED: Final = 1
_WORSE: Final = 4
_INTERRUPTED: Final = 130
_NO_MEMORY: Final = "out of memory; a smaller --batch-size or --side may help"
_OF_MEMORY: Final = re.compile(r"\bOOM\b|alloc|memory", re.IGNORECASE)
_OF_GRAPH: Final = re.compile(r"\s*(\[\[\{\{node|\[Op:|\d+ (successful operations|derived errors))")
"""Lines of TensorFlow's errors that say where in its graph, not what."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Returns:
        0; 2 when what was given is wrong; 3 when pre-trained weights cannot be had; 4 when the
        live version is significantly better; 1 when something else is; 130 when
        interrupted.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    options = _parser().parse_args(arguments)
    console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
    signal.signal(signal.SIGTERM, _interrupt)
    unpublished = "; nothing was published" if options.run in {_train, _demo} else ""
    try:
        status: int = options.run(options, arguments, console)
    except (DataError, SettingError) as error:
        return _report(str(error), _BAD_INPUT)
    except WeightsUnavailable as error:
        return _report(str(error), WEIGHTS_UNAVAILABLE)
    except WorseThanChampion as error:
        return _report(str(error), _WORSE)
    except GraftError as error:
        return _report(f"the exported version was refused, nothing was published: {error}", _FAILED)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        return _report(f"{error.strerror or error}{where}{unpublished}", _FAILED)
    except MemoryError:
        return _report(f"{_NO_MEMORY}{unpublished}", _FAILED)
    except KeyboardInterrupt:
        return _report(f"interrupted{unpublished}", _INTERRUPTED)
    except Exception as error:
        said = _of_tensorflow(error)
        if not said:
            raise
        return _report(f"{said}{unpublished}", _FAILED)
    return status


def _of_tensorflow(error: Exception) -> str:
    """What an error of TensorFlow's own, such as a GPU without memory, is to be called; empty for any other."""
    tensorflow = sys.modules.get("tensorflow")  # not imported for this: it takes seconds
    if tensorflow is None or not isinstance(error, tensorflow.errors.OpError):
        return ""
    message = error.message or ""
    # a full disk is exhausted, too
    if isinstance(error, tensorflow.errors.ResourceExhaustedError) and _OF_MEMORY.search(message):
        return _NO_MEMORY
    lines = [line.strip() for line in message.splitlines() if line.strip() and not _OF_GRAPH.match(line)]
    # an error within a graph begins with where it was, and ends with what it was
    said = lines[-1 if message.startswith("Graph execution error") else 0] if lines else type(error).__name__
    return f"TensorFlow failed: {said}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training", description=_DESCRIPTION)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_train(commands)
    _add_audit(commands)
    _add_compare(commands)
    _add_sweep(commands)
    _add_documents(commands)
    _add_demo(commands)
    return parser


_DESCRIPTION: Final = "From a folder of labelled photos to a published image classifier."


def _add_train(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    train = commands.add_parser(
        "train",
        help="train a model and publish it as a new version",
        description="Trains on DATA and publishes MODELS/NAME/VERSION, or nothing if anything goes wrong.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    train.set_defaults(run=_train)
    flags.add_data(train)
    where = train.add_argument_group("where")
    where.add_argument("--models", type=Path, default=Path("models"), help="models directory")
    where.add_argument("--name", default=argparse.SUPPRESS, help="name of the model (default: DATA's own name)")
    flags.add_cache(where)
    network = train.add_argument_group("network")
    flags.add_strategy(network)
    flags.add_budget(network)
    flags.add_network(network)
    flags.add_gradient(train.add_argument_group("gradient training (partial, full, scratch)"))
    flags.add_evidence(train.add_argument_group("evidence"))
    publishing = train.add_argument_group("publishing")
    publishing.add_argument(
        "--quantize",
        action="store_true",
        help="add the network in 8 bits, which CPUs with VNNI or AMX serve faster, unless it is significantly worse on "
        "the test images",
    )
    publishing.add_argument(
        "--champion",
        action="store_true",
        help="ask the live version about the same test images, and publish nothing (exit code 4) when the new one "
        "is significantly worse",
    )
    publishing.add_argument(
        "--publish-anyway", action="store_true", help="with --champion: publish a worse version too"
    )


def _train(options: argparse.Namespace, arguments: Sequence[str], console: Console) -> int:
    from training import train  # noqa: PLC0415 - numpy and more, which `--help` need not wait for

    data = options.data.resolve()
    name = getattr(options, "name", data.stem if data.is_file() else data.name)
    if not valid_name(name):
        raise SettingError(
            f"expected --name of letters, digits, '.', '_' and '-' that starts with a letter or digit, got {name!r}"
        )
    settings = _settings(options, arguments, models=options.models, name=name, strategy=options.strategy)
    train.run(settings, console)
    return 0


def _settings(
    options: argparse.Namespace, arguments: Sequence[str], *, models: Path, name: str, strategy: str
) -> Settings:
    if options.test_fraction + options.validation_fraction >= 0.95:
        raise SettingError("expected --test-fraction and --validation-fraction to leave something to train on")
    return Settings(
        data=options.data,
        models=models,
        name=name,
        strategy=strategy,
        backbone=options.backbone,
        weights=options.weights,
        unfreeze=getattr(options, "unfreeze", None),
        freeze=getattr(options, "freeze", None),
        flip=getattr(options, "flip", False),
        side_px=getattr(options, "side", None),
        resize=options.resize,
        epochs=getattr(options, "epochs", None),
        batch_size=getattr(options, "batch_size", Settings.batch_size),
        learning_rate=getattr(options, "learning_rate", None),
        precision=getattr(options, "precision", Settings.precision),
        seed=options.seed,
        test_fraction=options.test_fraction,
        validation_fraction=options.validation_fraction,
        cache=options.cache,
        group_regex=getattr(options, "group_regex", None),
        engine=options.engine,
        command=shlex.join(["python", "-m", "training", *arguments]),
        time_budget=getattr(options, "time_budget", Settings.time_budget),
        quantize=getattr(options, "quantize", False),
        fresh=getattr(options, "fresh", False),
        tensorboard=getattr(options, "tensorboard", None),
        champion=getattr(options, "champion", False),
        publish_anyway=getattr(options, "publish_anyway", False),
    )


def _add_compare(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    compare = commands.add_parser(
        "compare",
        help="strategies side by side on the same split; publishes nothing",
        description="Trains each strategy on DATA's training images and tests it on the same test images. Writes "
        "OUT/compare.html, its plots as SVG and PNG, and OUT/compare.json. Each starts with an empty cache, so that "
        "its seconds are its own.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    compare.set_defaults(run=_compare)
    compare.add_argument("data", type=Path, metavar="DATA", help="as for train")
    compare.add_argument(
        "--strategies",
        nargs="+",
        choices=STRATEGIES,
        default=["linear", "multilayer"],
        metavar="STRATEGY",
        help=f"of {', '.join(STRATEGIES)}; scratch, the basic network, is always there",
    )
    where = compare.add_argument_group("where")
    where.add_argument("--out", type=Path, default=Path("comparison"), help="folder for the page and the numbers")
    flags.add_cache(where)
    network = compare.add_argument_group("network")
    flags.add_budget(network)
    flags.add_network(network)
    flags.add_gradient(compare.add_argument_group("gradient training (partial, full, scratch)"))
    flags.add_evidence(compare.add_argument_group("evidence"))


def _compare(options: argparse.Namespace, arguments: Sequence[str], console: Console) -> int:
    from training import compare  # noqa: PLC0415 - as above

    if not options.data.exists():
        raise DataError(f"expected a folder, a .csv or a .zip file at {options.data}; there is nothing")
    options.cache.mkdir(parents=True, exist_ok=True)
    # No model is made: of models and name nothing is read.
    settings = _settings(options, arguments, models=Path(), name=options.data.stem, strategy=compare.ALWAYS)
    compare.run(settings, options.strategies, options.out, console)
    return 0


def _add_sweep(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    sweep = commands.add_parser(
        "sweep",
        help="accuracy against freeze depth: how much of the backbone suits the data as it is",
        description="Fits a cross-validated linear head to the pooled output of every block of the frozen backbone. "
        "Writes OUT/sweep.html, its plot as SVG and PNG, and OUT/sweep.json. Never looks at the test images.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    sweep.set_defaults(run=_sweep)
    sweep.add_argument("data", type=Path, metavar="DATA", help="as for train")
    where = sweep.add_argument_group("where")
    where.add_argument("--out", type=Path, default=Path("comparison"), help="folder for the page and the numbers")
    flags.add_cache(where)
    flags.add_network(sweep.add_argument_group("network"))
    flags.add_evidence(sweep.add_argument_group("evidence"))


def _sweep(options: argparse.Namespace, arguments: Sequence[str], console: Console) -> int:
    from training import sweep  # noqa: PLC0415 - as above

    if not options.data.exists():
        raise DataError(f"expected a folder, a .csv or a .zip file at {options.data}; there is nothing")
    options.cache.mkdir(parents=True, exist_ok=True)
    settings = _settings(options, arguments, models=Path(), name=options.data.stem, strategy="linear")
    sweep.run(settings, options.out, console)
    return 0


def _add_audit(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    audit = commands.add_parser(
        "audit",
        help="look at the data and train nothing",
        description="Looks for files that cannot be read, duplicates, the same picture under two labels or on two "
        "sides of given splits, uneven and small classes, tiny, blank and extreme pictures, and labels that are likely "
        "wrong. What it finds does not change the exit status.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    audit.set_defaults(run=_audit)
    flags.add_data(audit)
    where = audit.add_argument_group("where")
    where.add_argument(
        "--html", type=Path, default=argparse.SUPPRESS, metavar="FILE", help="write a page with thumbnails here"
    )
    where.add_argument(
        "--json", type=Path, default=argparse.SUPPRESS, metavar="FILE", help="list every finding here, in full"
    )
    flags.add_cache(where)
    labels = audit.add_argument_group("label check")
    labels.add_argument(
        "--no-label-check",
        action="store_true",
        help="do not look for wrong labels, which is what takes time: a pass of every image through the backbone, "
        "kept in the cache",
    )
    flags.add_backbone(labels)
    labels.add_argument(
        "--seed",
        type=flags.WholeNumber(0, 2**31 - 1),
        default=0,
        help="of the folds, each judged by a head fitted on the others",
    )
    flags.add_group_regex(labels)


def _audit(options: argparse.Namespace, arguments: Sequence[str], console: Console) -> int:
    from training.audit import command  # noqa: PLC0415 - numpy and more, which `--help` need not wait for

    settings = AuditSettings(
        data=options.data,
        cache=options.cache,
        label_check=not options.no_label_check,
        backbone=options.backbone,
        weights=options.weights,
        seed=options.seed,
        group_regex=getattr(options, "group_regex", None),
        json=getattr(options, "json", None),
        html=getattr(options, "html", None),
        command=shlex.join(["python", "-m", "training", *arguments]),
    )
    command.run(settings, console)
    return 0


def _add_documents(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    documents = commands.add_parser(
        "documents",
        help="make sample data: pages of several kinds of documents",
        description="Writes OUT/CLASS/NUMBER.jpg: scanned-looking pages of letters, forms, invoices and others.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    documents.set_defaults(run=_documents)
    documents.add_argument("out", type=Path, metavar="OUT", help="folder to write to")
    documents.add_argument(
        "--per-class", type=flags.WholeNumber(1, 1_000_000), default=60, metavar="N", help="pages per class"
    )
    documents.add_argument(
        "--seed", type=flags.WholeNumber(0, 2**31 - 1), default=0, help="another seed makes other pages"
    )


def _documents(options: argparse.Namespace, _arguments: Sequence[str], console: Console) -> int:
    from training import documents  # noqa: PLC0415 - as above
    from training.progress import Phases  # noqa: PLC0415 - as above

    with Phases(console).phase("drawing documents") as advance:
        documents.generate(options.out, options.per_class, options.seed, advance)
    return 0


def _add_demo(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    demo = commands.add_parser(
        "demo",
        help="the whole way once: sample data, training, service, two answers",
        description="Draws sample documents, trains on them, serves the result, classifies one page over HTTP and one "
        "over gRPC, and stays up until Ctrl-C.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    demo.set_defaults(run=_demo)
    demo.add_argument("--folder", type=Path, default=Path("var/demo"), help="where everything goes; made anew")
    demo.add_argument(
        "--http-port", type=flags.WholeNumber(0, 65535), default=8501, metavar="N", help="0 takes a free one"
    )
    demo.add_argument(
        "--grpc-port", type=flags.WholeNumber(0, 65535), default=8500, metavar="N", help="0 takes a free one"
    )


def _demo(options: argparse.Namespace, _arguments: Sequence[str], console: Console) -> int:
    return demo.run(options.folder, options.http_port, options.grpc_port, console)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _report(message: str, status: int) -> int:
    sys.stderr.write(f"error: {message}\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
