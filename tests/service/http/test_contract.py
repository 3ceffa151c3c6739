"""The running service does what /openapi.json says: schemathesis asks what it allows, and what it does not."""

import os
import re
import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[3]
_TOKEN = "a-token-of-some-length"  # noqa: S105 - of a service that lives for this test


def test_the_service_does_what_the_document_says(version_factory, start_service, tmp_path):
    """Every operation, at the edges of its schema and at random: nothing is found."""
    models, token = tmp_path / "models", tmp_path / "token"
    version_factory(models)
    token.write_text(_TOKEN)
    running = start_service(models, engine="openvino/f32", admin_token_file=token, max_body_bytes=2_000_000)
    command = [sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()"]
    command += ["--config-file", str(_ROOT / "tests" / "service" / "http" / "schemathesis.toml")]
    command += ["run", f"{running.http}/openapi.json", "--header", f"Authorization: Bearer {_TOKEN}"]
    command += ["--phases", "coverage,fuzzing", "--max-examples", "2", "--generation-deterministic"]
    command += ["--continue-on-failure", "--no-color"]
    environment = os.environ | {"PYTHONPATH": str(_ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr
    assert re.search(r"^ +Tested: 34$", done.stdout, re.MULTILINE), done.stdout
