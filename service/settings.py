"""The service's settings: one frozen object, read in one place.

Flags win over environment variables (GRAFT_*), those over the TOML file (--config), those over the defaults here. The
supervisor reads them and hands the finished object to its children in a file; nobody else looks at the environment.
"""

import argparse
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from service.log import FORMATS

LOCAL_ENGINES: Final = ("auto", "openvino", "openvino/int8", "openvino/bf16", "openvino/f32", "tensorflow")
"""Those that compute on this host."""

ENGINES: Final = (*LOCAL_ENGINES, "tensorflow-serving")
"""What `--engine` takes; a name without precision means all of its precisions, fastest first."""

MAX_PIXELS: Final = 100_000_000
"""The largest phone cameras' full resolution; 300 MB as RGB."""

LISTENING: Final = ".listening"
"""A front makes the file `http.listening` or `grpc.listening` in the run directory once connections are taken."""

_ENVIRONMENT_PREFIX: Final = "GRAFT_"
_SHORTEST_TOKEN: Final = 16


def _setting(default: Any, text: str, **rules: Any) -> Any:  # noqa: ANN401 - a dataclass field of any type
    return field(default=default, metadata={"help": text, **rules})


@dataclass(frozen=True)
class Settings:
    """What an operator can choose. Every field is a flag; `--help` and docs/operations.md say what each does."""

    # ruff: noqa: RUF009 - `_setting` only wraps dataclasses.field
    models: Path = _setting(Path("models"), "directory of MODEL/VERSION directories; every model in it is served")
    host: str = _setting("127.0.0.1", "address to listen on; 0.0.0.0 for all")
    http_port: int = _setting(8501, "TCP port for HTTP; 0 takes a free one", low=0, high=65535)
    grpc_port: int = _setting(8500, "TCP port for gRPC; 0 takes a free one", low=0, high=65535)
    workers: int = _setting(1, "HTTP front processes; one is enough for about 8 cores of engines", low=1, high=256)
    engine: str = _setting("auto", f"what computes: {', '.join(ENGINES)}", choices=ENGINES)
    engines: int = _setting(
        0, "engine processes per version; 0 means one per CPU core, or one on a GPU host", low=0, high=1024
    )
    tensorflow_serving: str = _setting(
        "", "grpc://HOST:PORT, or grpcs://HOST:PORT for TLS: what --engine tensorflow-serving asks"
    )
    tensorflow_serving_ca_file: Path = _setting(
        Path(), "PEM file with the certificates to trust there; by default the system's"
    )
    tensorflow_serving_timeout_s: float = _setting(
        5.0, "seconds that one batch may take there, retries included", low=0.001, high=3600
    )
    poll_interval_s: float = _setting(1.0, "seconds between looks at the models directory", low=0.05, high=3600)
    keep_previous_s: float = _setting(
        30.0,
        "seconds that the version that was live stays loaded, for an instant rollback",
        low=0,
        high=1e6,
    )
    load_timeout_s: float = _setting(600.0, "seconds a version may take to load and prove itself", low=1, high=86400)
    engine_timeout_s: float = _setting(
        20.0, "seconds that an engine may take for one image before it counts as hung and is replaced", low=1, high=3600
    )
    target_p99_ms: int = _setting(
        1000,
        "milliseconds in which 99 of 100 interactive images should be answered; what could not be is refused at once",
        low=1,
        high=3_600_000,
    )
    request_timeout_s: float = _setting(30.0, "seconds until a request is given up", low=0.001, high=3600)
    drain_timeout_s: float = _setting(
        30.0, "seconds that accepted requests get to finish when the service or a version ends", low=0, high=3600
    )
    drain_delay_s: float = _setting(
        0.0, "seconds of being not ready before draining, for a load balancer to notice", low=0, high=3600
    )
    max_queue: int = _setting(
        512, "most images in flight per front process, to bound memory; bulk may have half", low=1, high=1_000_000
    )
    cache_bytes: int = _setting(
        0, "bytes of answers that a front keeps for images that come again; 0 for none", low=0, high=2**40
    )
    max_images: int = _setting(128, "images in one request", low=1, high=1_000_000)
    max_body_bytes: int = _setting(64 << 20, "bytes of one request's body", low=1024, high=2**31 - 1)
    max_image_bytes: int = _setting(32 << 20, "bytes of one image file", low=1024, high=2**31 - 1)
    max_pixels: int = _setting(MAX_PIXELS, "pixels of one picture, checked before it is decoded", low=1, high=2**31 - 1)
    run_dir: Path = _setting(
        Path(), "directory for sockets and the routing table; by default one in the temporary directory, by port"
    )
    admin_token_file: Path = _setting(
        Path(), "file with the token that HTTP calls to /admin must send; without one there is no /admin"
    )
    log_level: str = _setting("info", "least severe log line to print", choices=("debug", "info", "warning", "error"))
    log_format: str = _setting("text", "form of a log line: text or json", choices=FORMATS)
    access_log: str = _setting("off", "on logs every request, with its id and how long it took", choices=("off", "on"))
    otlp_endpoint: str = _setting("", "URL of an OpenTelemetry collector (OTLP over HTTP) to send traces to")


def read_settings(arguments: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """Puts the settings together.

    Args:
        arguments: the command line without the program's name.
        environment: the process's environment.

    Raises:
        SystemExit: an unknown or invalid setting (exit code 2, message on standard error), or --help (0).
    """
    parser = _parser()
    given = vars(parser.parse_args(arguments))
    config = given.pop("config") or environment.get(f"{_ENVIRONMENT_PREFIX}CONFIG")
    values: dict[str, Any] = {}
    for one in fields(Settings):
        name = f"{_ENVIRONMENT_PREFIX}{one.name.upper()}"
        if name in environment:
            values[one.name] = (environment[name], name)
    chosen = {}
    for name, value in _read_file(parser, Path(config)).items() if config else ():
        chosen[name] = (value, f"{config}: {name}")
    chosen |= values | {name: (value, _flag(name)) for name, value in given.items() if value is not None}
    try:
        settings = Settings(**{name: _convert(name, value, where) for name, (value, where) in chosen.items()})
        if settings.admin_token_file != Path():
            read_token(settings.admin_token_file)
        if settings.http_port == settings.grpc_port != 0:
            raise ValueError(f"--http-port and --grpc-port: expected two ports, got {settings.http_port} for both")
        _check_remote(settings)
        _check_collector(settings.otlp_endpoint)
        return settings
    except ValueError as error:
        parser.error(str(error))


def read_token(path: Path) -> str:
    """Reads the admin token.

    Raises:
        ValueError: it cannot be read, or is no token.
    """
    try:
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read the admin token file {path}: {error}") from error
    if len(token) < _SHORTEST_TOKEN or not token.isprintable() or " " in token:
        raise ValueError(f"{path}: expected a token of at least {_SHORTEST_TOKEN} characters without spaces")
    return token


def _check_remote(settings: Settings) -> None:
    asked = settings.engine == "tensorflow-serving"
    try:
        url = urlsplit(settings.tensorflow_serving)
        good = url.scheme in {"grpc", "grpcs"} and url.hostname and url.port and not url.path
    except ValueError:
        good = False
    if (asked or settings.tensorflow_serving) and not good:
        raise ValueError(
            f"--tensorflow-serving: expected grpc://HOST:PORT or grpcs://HOST:PORT, got {settings.tensorflow_serving!r}"
        )
    file = settings.tensorflow_serving_ca_file
    if file != Path() and not file.is_file():
        raise ValueError(f"--tensorflow-serving-ca-file: there is no file {file}")


def _check_collector(endpoint: str) -> None:
    if not endpoint:
        return
    try:
        url = urlsplit(endpoint)
        good = url.scheme in {"http", "https"} and url.hostname and url.port != 0 and not url.query
    except ValueError:
        good = False
    if not good:
        raise ValueError(f"--otlp-endpoint: expected a URL such as http://localhost:4318, got {endpoint!r}")
    try:
        installed = find_spec("opentelemetry.exporter.otlp.proto.http") and find_spec("opentelemetry.sdk")
    except ModuleNotFoundError:  # not even the package that it would be in
        installed = None
    if not installed:
        raise ValueError("--otlp-endpoint: expected OpenTelemetry; in the checkout: pip install '.[otel]'")


def save_settings(path: Path, settings: Settings) -> None:
    """Writes the finished settings for the supervisor's children."""
    path.write_text(json.dumps(asdict(settings), default=str), encoding="utf-8")


def load_settings(path: Path) -> Settings:
    """Reads what `save_settings` wrote."""
    values = json.loads(path.read_text(encoding="utf-8"))
    return Settings(**{name: _convert(name, value, name) for name, value in values.items()})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m service",
        description="Serves every model under a models directory over HTTP and gRPC.",
        epilog=f"Each flag is also an environment variable ({_ENVIRONMENT_PREFIX}HTTP_PORT) and a key of the TOML file "
        "(http_port). Flags win over variables, variables over the file.",
    )
    parser.add_argument("--config", metavar="FILE", help="TOML file with any of these settings")
    for one in fields(Settings):
        default = one.default if one.default is not MISSING else None
        shown = "" if default == Path() else f" (default: {default})"
        parser.add_argument(
            _flag(one.name), dest=one.name, metavar=_metavar(one.name, one.type), help=one.metadata["help"] + shown
        )
    return parser


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _metavar(name: str, kind: Any) -> str:  # noqa: ANN401 - a dataclass field's type
    return "FILE" if name.endswith("_file") else {int: "N", float: "SECONDS", Path: "DIR"}.get(kind, "VALUE")


def _read_file(parser: argparse.ArgumentParser, path: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        parser.error(f"cannot read the settings file {path}: {error}")
    unknown = values.keys() - {one.name for one in fields(Settings)}
    if unknown:
        parser.error(f"{path}: unknown setting(s): {', '.join(sorted(unknown))}")
    return values


def _convert(name: str, value: Any, where: str) -> Any:  # noqa: ANN401 - of whatever type the field has
    one = next(one for one in fields(Settings) if one.name == name)
    kind: Any = one.type
    if kind in (int, float):
        # what TOML and JSON hold already has a type: true is no number, and 8501.5 no port
        if isinstance(value, bool) or (kind is int and isinstance(value, float)):
            raise ValueError(f"{where}: expected {'an integer' if kind is int else 'a number'}, got {value!r}")
        try:
            value = kind(value)
        except (TypeError, ValueError):
            raise ValueError(f"{where}: expected a number, got {value!r}") from None
        low, high = one.metadata["low"], one.metadata["high"]
        if not low <= value <= high:
            raise ValueError(f"{where}: expected {low} to {high}, got {value}")
        return value
    if not isinstance(value, str | Path):
        raise ValueError(f"{where}: expected text, got {value!r}")
    value = kind(value)
    choices = one.metadata.get("choices")
    if choices and value not in choices:
        raise ValueError(f"{where}: expected one of {', '.join(choices)}, got {value!r}")
    return value
