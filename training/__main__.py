"""The command line: `python -m training COMMAND`."""

import argparse
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Final

from rich.console import Console

from service.errors import GraftError
from service.settings import ENGINES
from service.version import valid_name
from training import demo
from training.demo import WEIGHTS_UNAVAILABLE
from training.errors import DataError, SettingError, WeightsUnavailable, WorseThanChampion
from training.settings import STRATEGIES, AuditSettings, Settings

_BAD_INPUT: Final = 2
_FAILED: Final = 1
_WORSE: Final = 4
_INTERRUPTED: Final = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Returns:
        0; 2 when what was given is wrong; 3 when pre-trained weights cannot be had; 4 when the
        published version is significantly better; 1 when something else is; 130 when
        interrupted.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    options = _parser().parse_args(arguments)
    console = Console(highlight=False, soft_wrap=True)
    signal.signal(signal.SIGTERM, _interrupt)
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
        return _report(f"{error.strerror or error}{where}; nothing was published", _FAILED)
    except MemoryError:
        return _report("out of memory; a smaller --batch-size or --side may help; nothing was published", _FAILED)
    except KeyboardInterrupt:
        return _report("interrupted; nothing was published", _INTERRUPTED)
    return status


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
    _add_data(train)
    where = train.add_argument_group("where")
    where.add_argument("--models", type=Path, default=Path("models"), help="models directory")
    where.add_argument("--name", default=argparse.SUPPRESS, help="name of the model (default: DATA's own name)")
    _add_cache(where)
    network = train.add_argument_group("network")
    _add_strategy(network)
    _add_budget(network)
    _add_network(network)
    _add_gradient(train.add_argument_group("gradient training (partial, full, scratch)"))
    _add_evidence(train.add_argument_group("evidence"))


def _add_strategy(group: "argparse._ArgumentGroup") -> None:
    group.add_argument(
        "--strategy",
        choices=STRATEGIES,
        default="auto",
        help="auto: measures what the data are like, tries what is worth it within --time-budget, and says why the "
        "winner won. linear: logistic regression on the frozen backbone's features. svm: a linear support vector "
        "machine on an earlier layer. multilayer: logistic regression on several depths together. partial: then the "
        "last blocks, at a low learning rate. full: then the whole network. scratch: a basic network without "
        "pre-training, for comparison",
    )


def _add_budget(group: "argparse._ArgumentGroup") -> None:
    group.add_argument(
        "--time-budget",
        type=_number(1.0, 1e7),
        default=120.0,
        metavar="SECONDS",
        help="that auto may spend on deciding and training, from the features on; a linear head is always fitted",
    )


def _add_network(group: "argparse._ArgumentGroup") -> None:
    _add_backbone(group)
    group.add_argument(
        "--side",
        type=_integer(8, 4096),
        default=argparse.SUPPRESS,
        metavar="PX",
        help="side of the square input in pixels (default: the backbone's own; 64 for scratch)",
    )
    group.add_argument(
        "--resize",
        choices=("crop", "squash"),
        default="crop",  # by evidence: docs/decisions.md
        help="crop: the middle square, in proportion. squash: the whole picture, out of proportion",
    )


def _add_gradient(group: "argparse._ArgumentGroup") -> None:
    depth = group.add_mutually_exclusive_group()
    depth.add_argument(
        "--unfreeze", type=_integer(1, 1000), default=3, metavar="K", help="blocks that partial trains, from the end"
    )
    depth.add_argument(
        "--freeze",
        type=_integer(1, 1000),
        default=argparse.SUPPRESS,
        metavar="K",
        help="blocks that partial does not train, from the start; in place of --unfreeze",
    )
    group.add_argument(
        "--epochs",
        type=_integer(1, 100_000),
        default=argparse.SUPPRESS,
        metavar="N",
        help="most epochs; training stops earlier when validation no longer improves "
        "(default: 20 for partial, 10 for full, 30 for scratch)",
    )
    group.add_argument("--batch-size", type=_integer(1, 4096), default=32, metavar="N", help="images per gradient step")
    group.add_argument(
        "--learning-rate",
        type=_number(0.0, 10.0),
        default=argparse.SUPPRESS,
        metavar="RATE",
        help="of Adam (default: 1e-4 for partial, 2e-5 for full, 1e-3 for scratch); full warms up and cools down, "
        "and trains earlier blocks at less of it",
    )
    group.add_argument(
        "--flip",
        action="store_true",
        help="also train on mirrored pictures (full, scratch); right for photos, wrong for documents, text and hands",
    )
    group.add_argument(
        "--fresh",
        action="store_true",
        help="start anew where the same command was interrupted, and not go on from there",
    )


def _add_evidence(group: "argparse._ArgumentGroup") -> None:
    group.add_argument("--seed", type=_integer(0, 2**31 - 1), default=0, help="of the split and everything random")
    group.add_argument(
        "--test-fraction",
        type=_number(0.0, 0.9),
        default=0.15,
        metavar="SHARE",
        help="of the images, to test on; used where DATA gives no test images",
    )
    group.add_argument(
        "--validation-fraction",
        type=_number(0.0, 0.9),
        default=0.15,
        metavar="SHARE",
        help="of the images, to validate on; used where DATA gives no validation images",
    )
    _add_group_regex(group)
    group.add_argument("--engine", choices=ENGINES, default="auto", help="what evaluates the export")
    group.add_argument(
        "--champion",
        action="store_true",
        help="ask the published version about the same test images, and publish nothing (exit code 4) when the new one "
        "is significantly worse",
    )
    group.add_argument("--publish-anyway", action="store_true", help="with --champion: publish a worse version too")


def _train(options: argparse.Namespace, arguments: Sequence[str], console: Console) -> int:
    from training import train  # noqa: PLC0415 - numpy and more, which `--help` need not wait for

    name = getattr(options, "name", options.data.resolve().stem)
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
        unfreeze=getattr(options, "unfreeze", Settings.unfreeze),
        freeze=getattr(options, "freeze", None),
        flip=getattr(options, "flip", False),
        side_px=getattr(options, "side", None),
        resize=options.resize,
        epochs=getattr(options, "epochs", None),
        batch_size=getattr(options, "batch_size", Settings.batch_size),
        learning_rate=getattr(options, "learning_rate", None),
        seed=options.seed,
        test_fraction=options.test_fraction,
        validation_fraction=options.validation_fraction,
        cache=options.cache,
        group_regex=getattr(options, "group_regex", None),
        engine=options.engine,
        command=shlex.join(["python", "-m", "training", *arguments]),
        time_budget=getattr(options, "time_budget", Settings.time_budget),
        fresh=getattr(options, "fresh", False),
        champion=getattr(options, "champion", False),
        publish_anyway=getattr(options, "publish_anyway", False),
    )


def _add_compare(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    compare = commands.add_parser(
        "compare",
        help="strategies side by side on the same split; publishes nothing",
        description="Trains each strategy on DATA's training images and tests it on the same test images. Writes "
        "OUT/compare.svg and OUT/compare.json. Each starts with an empty cache, so that its seconds are its own.",
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
    where.add_argument("--out", type=Path, default=Path("comparison"), help="folder for the picture and the numbers")
    _add_cache(where)
    network = compare.add_argument_group("network")
    _add_budget(network)
    _add_network(network)
    _add_gradient(compare.add_argument_group("gradient training (partial, full, scratch)"))
    _add_evidence(compare.add_argument_group("evidence"))


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
        "Writes OUT/sweep.svg and OUT/sweep.json. Never looks at the test images.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    sweep.set_defaults(run=_sweep)
    sweep.add_argument("data", type=Path, metavar="DATA", help="as for train")
    where = sweep.add_argument_group("where")
    where.add_argument("--out", type=Path, default=Path("comparison"), help="folder for the picture and the numbers")
    _add_cache(where)
    _add_network(sweep.add_argument_group("network"))
    _add_evidence(sweep.add_argument_group("evidence"))


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
    _add_data(audit)
    where = audit.add_argument_group("where")
    where.add_argument(
        "--html", type=Path, default=argparse.SUPPRESS, metavar="FILE", help="write a page with thumbnails here"
    )
    where.add_argument(
        "--json", type=Path, default=argparse.SUPPRESS, metavar="FILE", help="list every finding here, in full"
    )
    _add_cache(where)
    labels = audit.add_argument_group("label check")
    labels.add_argument(
        "--no-label-check",
        action="store_true",
        help="do not look for wrong labels, which is what takes time: a pass of every image through the backbone, "
        "kept in the cache",
    )
    _add_backbone(labels)
    labels.add_argument(
        "--seed",
        type=_integer(0, 2**31 - 1),
        default=0,
        help="of the folds, each judged by a head fitted on the others",
    )
    _add_group_regex(labels)


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "data",
        type=Path,
        metavar="DATA",
        help="a folder of class folders; or train/val[/test] folders of class folders; or a .csv with "
        "path,label[,split]; or a .zip of the first",
    )


def _add_cache(group: "argparse._ArgumentGroup") -> None:
    group.add_argument(
        "--cache",
        type=Path,
        default=_default_cache(),
        help="folder for features that were computed and archives that were unpacked; may be deleted at any time; "
        "environment: GRAFT_CACHE",
    )


def _add_backbone(group: "argparse._ArgumentGroup") -> None:
    group.add_argument(
        "--backbone",
        default="MobileNetV2",
        help="any network of keras.applications, such as VGG16, ResNet50 or EfficientNetB0; NAME:ALPHA for a width "
        "multiplier, such as MobileNet:0.5",
    )
    group.add_argument(
        "--weights",
        default="imagenet",
        help="imagenet (downloaded by Keras into KERAS_HOME, or found there), none (random), or a weights file "
        "without top in Keras' format",
    )


def _add_group_regex(group: "argparse._ArgumentGroup") -> None:
    group.add_argument(
        "--group-regex",
        default=argparse.SUPPRESS,
        metavar="REGEX",
        help="images whose paths, relative to DATA, match with the same captured text belong together (a patient, a "
        "scanner, a document) and are never parted: '(patient[0-9]+)'",
    )


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
    documents.add_argument("--per-class", type=_integer(1, 1_000_000), default=60, metavar="N", help="pages per class")
    documents.add_argument("--seed", type=_integer(0, 2**31 - 1), default=0, help="another seed makes other pages")


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
    demo.add_argument("--http-port", type=_integer(0, 65535), default=8501, metavar="N", help="0 takes a free one")
    demo.add_argument("--grpc-port", type=_integer(0, 65535), default=8500, metavar="N", help="0 takes a free one")


def _demo(options: argparse.Namespace, _arguments: Sequence[str], console: Console) -> int:
    return demo.run(options.folder, options.http_port, options.grpc_port, console)


def _default_cache() -> Path:
    return Path(os.environ.get("GRAFT_CACHE") or Path.home() / ".cache" / "graft")


class _integer:  # noqa: N801 - argparse shows the name
    """An argparse type: a whole number between two bounds, both included."""

    def __init__(self, low: int, high: int) -> None:
        self._low, self._high = low, high

    def __call__(self, text: str) -> int:
        value = int(text) if text.lstrip("-").isdigit() else self._low - 1
        if not self._low <= value <= self._high:
            raise argparse.ArgumentTypeError(f"expected a whole number of {self._low} to {self._high}, got {text!r}")
        return value


class _number:  # noqa: N801 - argparse shows the name
    """An argparse type: a number between two bounds, both included."""

    def __init__(self, low: float, high: float) -> None:
        self._low, self._high = low, high

    def __call__(self, text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not self._low <= value <= self._high:
            raise argparse.ArgumentTypeError(f"expected a number of {self._low:g} to {self._high:g}, got {text!r}")
        return value


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _report(message: str, status: int) -> int:
    sys.stderr.write(f"error: {message}\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
