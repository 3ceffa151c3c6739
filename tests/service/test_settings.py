"""service/settings.py: flags win over the environment, that over the file, that over the defaults."""

from dataclasses import fields
from pathlib import Path

import pytest

from service.settings import Settings, load_settings, read_settings, save_settings


@pytest.fixture
def config(tmp_path):
    """A TOML file with two settings."""
    path = tmp_path / "graft.toml"
    path.write_text('http_port = 1111\nhost = "0.0.0.0"\n', encoding="utf-8")
    return path


def _refusal(capsys, arguments=(), environment=None) -> str:
    with pytest.raises(SystemExit) as stopped:
        read_settings([str(one) for one in arguments], environment or {})
    assert stopped.value.code == 2
    return capsys.readouterr().err


def test_defaults_are_the_documented_ones() -> None:
    """Nothing given: TensorFlow Serving's ports on this machine only."""
    chosen = read_settings([], {})
    assert (chosen.http_port, chosen.grpc_port, chosen.host, chosen.models) == (8501, 8500, "127.0.0.1", Path("models"))
    assert chosen == Settings()


def test_flag_over_environment_over_file_over_default(config: Path) -> None:
    """The same setting in all four places: each place wins over those below it."""
    environment = {"GRAFT_HTTP_PORT": "2222", "PATH": "x"}
    everywhere = ["--config", str(config), "--http-port", "3333"]
    assert read_settings(everywhere, environment).http_port == 3333
    assert read_settings(everywhere[:2], environment).http_port == 2222
    assert read_settings(everywhere[:2], {}).http_port == 1111
    assert read_settings([], {}).http_port == 8501
    assert read_settings(everywhere, environment).host == "0.0.0.0"  # noqa: S104 - the file's, which nobody contradicts


def test_the_file_may_be_named_by_the_environment(config: Path) -> None:
    """GRAFT_CONFIG is --config; the flag wins."""
    assert read_settings([], {"GRAFT_CONFIG": str(config)}).http_port == 1111
    other = config.with_name("other.toml")
    other.write_text("http_port = 4444\n", encoding="utf-8")
    assert read_settings(["--config", str(other)], {"GRAFT_CONFIG": str(config)}).http_port == 4444


def test_every_setting_can_be_given_as_a_flag_and_as_a_variable() -> None:
    """Each default, written as text, is read back as itself from a flag and from a variable."""
    for one in fields(Settings):
        text = str(one.default)
        flag = f"--{one.name.replace('_', '-')}"
        assert read_settings([flag, text], {}) == read_settings([], {f"GRAFT_{one.name.upper()}": text}) == Settings()


def test_types_are_those_of_the_fields() -> None:
    """Text becomes a path, an integer or seconds."""
    chosen = read_settings(["--models", "m", "--workers", "3", "--request-timeout-s", "2.5"], {})
    assert (chosen.models, chosen.workers, chosen.request_timeout_s) == (Path("m"), 3, 2.5)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--http-port", "65536"], "--http-port: expected 0 to 65535, got 65536"),
        (["--http-port", "web"], "--http-port: expected a number, got 'web'"),
        (["--http-port", "9000", "--grpc-port", "9000"], "expected two ports, got 9000 for both"),
        (["--workers", "0"], "--workers: expected 1 to 256, got 0"),
        (["--request-timeout-s", "nan"], "--request-timeout-s: expected 0.001 to 3600, got nan"),
        (["--engine", "abacus"], "--engine: expected one of auto, openvino"),
        (["--log-level", "loud"], "--log-level: expected one of debug, info, warning, error, got 'loud'"),
        (["--no-such-flag", "1"], "unrecognized arguments: --no-such-flag"),
        (["--config", "nowhere.toml"], "cannot read the settings file nowhere.toml"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_flag_says_what_was_expected(capsys, arguments: list[str], says: str) -> None:
    """Exit code 2, and the message names the flag, what it takes and what came."""
    assert says in _refusal(capsys, arguments)


def test_a_wrong_variable_is_named(capsys) -> None:
    """The message names the variable, for that is what is to be corrected."""
    message = _refusal(capsys, environment={"GRAFT_MAX_QUEUE": "0"})
    assert "GRAFT_MAX_QUEUE: expected 1 to 1000000, got 0" in message


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("htp_port = 1", "unknown setting(s): htp_port"),
        ("http_port = ", "cannot read the settings file"),
        ("http_port = 70000", "http_port: expected 0 to 65535, got 70000"),
        ("http_port = [1]", "http_port: expected a number, got [1]"),
        ("http_port = 8501.5", "http_port: expected"),
        ("models = 5", "models: expected"),
        ("host = true", "host: expected"),
    ],
)
def test_a_wrong_file_says_where(capsys, tmp_path: Path, text: str, says: str) -> None:
    """The message names the file and the key."""
    path = tmp_path / "wrong.toml"
    path.write_text(text, encoding="utf-8")
    message = _refusal(capsys, ["--config", path])
    assert says in message
    assert "wrong.toml" in message


def test_help_shows_every_setting(capsys) -> None:
    """--help ends with 0 and names each flag."""
    with pytest.raises(SystemExit) as stopped:
        read_settings(["--help"], {})
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    assert [one.name for one in fields(Settings) if f"--{one.name.replace('_', '-')}" not in shown] == []


def test_children_read_what_the_supervisor_wrote(tmp_path: Path) -> None:
    """Settings saved for the children come back equal, paths with odd characters too."""
    chosen = Settings(models=tmp_path / 'a "b" ü', http_port=1, request_timeout_s=0.25, run_dir=tmp_path)
    save_settings(tmp_path / "settings.json", chosen)
    assert load_settings(tmp_path / "settings.json") == chosen
