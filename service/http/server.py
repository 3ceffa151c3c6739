"""`python -m service.http.server SETTINGS`: the process. Gunicorn runs the application in its gevent workers."""

import os
import sys
from pathlib import Path
from typing import Any

import setproctitle
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.workers.base import Worker
from prometheus_client import multiprocess

from service.settings import LISTENING, Settings, load_settings


class _Front(BaseApplication):  # type: ignore[misc]  # gunicorn is untyped
    """Gunicorn, configured by us instead of by files and flags."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        super().__init__()

    def load_config(self) -> None:
        """Gunicorn's own settings."""
        chosen = {
            "bind": f"{self._settings.host}:{self._settings.http_port}",
            "reuse_port": True,  # the supervisor holds the port with a socket of its own; see service/ports.py
            "workers": self._settings.workers,
            "worker_class": "gevent",
            "worker_connections": 4096,
            "keepalive": 15,
            "timeout": 60,
            "graceful_timeout": max(1, round(self._settings.drain_timeout_s)),
            "limit_request_field_size": 16384,
            "control_socket_disable": True,
            "proc_name": "graft",
            "loglevel": "warning",
            "post_worker_init": _name_worker,
            "child_exit": _forget_worker,
            "pre_fork": _name_master,
            "when_ready": self._when_ready,
        }
        for name, value in chosen.items():
            self.cfg.set(name, value)

    def _when_ready(self, _: Arbiter) -> None:
        (self._settings.run_dir / f"http{LISTENING}").touch()

    def load(self) -> Any:  # noqa: ANN401 - a WSGI callable
        """Runs in the worker, after gevent has patched the standard library."""
        # Flask and what belongs to it is imported here, so that the master, which only watches, stays small.
        from service.classifier import Classifier  # noqa: PLC0415
        from service.http.app import create_app  # noqa: PLC0415
        from service.reactor import GeventReactor  # noqa: PLC0415
        from service.readiness import Readiness  # noqa: PLC0415

        settings, reactor = self._settings, GeventReactor()
        classifier = Classifier(
            reactor,
            settings.run_dir / "routes.json",
            max_queue=settings.max_queue,
            max_images=settings.max_images,
            max_image_bytes=settings.max_image_bytes,
            target_s=settings.target_p99_ms / 1e3,
            cache_bytes=settings.cache_bytes,
        )
        return create_app(classifier, Readiness(classifier, reactor), settings)


def _name_master(_: Arbiter, __: Worker) -> None:
    """Here, since gunicorn sets a title of its own after it is ready and before the first fork."""
    setproctitle.setproctitle("graft fronts")


def _name_worker(worker: Worker) -> None:
    setproctitle.setproctitle(f"graft front {worker.age - 1}")


def _forget_worker(_: Arbiter, worker: Worker) -> None:
    multiprocess.mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]  # untyped there


if __name__ == "__main__":
    os.environ.pop("GUNICORN_CMD_ARGS", None)
    settings_path = Path(sys.argv.pop(1))
    _Front(load_settings(settings_path)).run()
