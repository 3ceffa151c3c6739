"""`python -m service.http.server SETTINGS`: the process. Gunicorn runs the application in its gevent workers."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import setproctitle
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.config import Config
from gunicorn.glogging import Logger
from gunicorn.workers.base import Worker
from prometheus_client import multiprocess

from service.garbage import settle
from service.http.worker import FrontWorker
from service.log import configure_log
from service.ports import at
from service.settings import LISTENING, Settings, load_settings

if TYPE_CHECKING:
    from service.exchange import Observer
    from service.http.plain import PlainRequests


class _Front(BaseApplication):  # type: ignore[misc]  # gunicorn is untyped
    """Gunicorn, configured by us instead of by files and flags."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._observer: Observer | None = None
        self.plain: PlainRequests | None = None
        super().__init__()

    @property
    def listening(self) -> Path:
        """The file that says that connections are taken."""
        return self._settings.run_dir / f"http{LISTENING}"

    def load_config(self) -> None:
        """Gunicorn's own settings."""
        chosen = {
            "bind": at(self._settings.host, self._settings.http_port),
            "reuse_port": True,  # the supervisor holds the port with a socket of its own; see service/ports.py
            "workers": self._settings.workers,
            "worker_class": FrontWorker,
            "worker_connections": 4096,
            "keepalive": 15,
            "timeout": 60,
            "graceful_timeout": max(1, round(self._settings.drain_timeout_s)),
            "limit_request_field_size": 16384,
            "control_socket_disable": True,
            "proc_name": "graft",
            "loglevel": "warning",
            "logger_class": _Log,
            "post_worker_init": _begin_worker,
            "child_exit": _forget_worker,
            "worker_exit": self._close,
            "pre_fork": _name_master,
            "when_ready": self._when_ready,
        }
        for name, value in chosen.items():
            self.cfg.set(name, value)

    def _when_ready(self, _: Arbiter) -> None:
        self.listening.touch()

    def load(self) -> Any:  # noqa: ANN401 - a WSGI callable
        """Runs in the worker, after gevent has patched the standard library."""
        # Flask and what belongs to it is imported here, so that the master, which only watches, stays small.
        from service import exchange  # noqa: PLC0415
        from service.classifier import Classifier  # noqa: PLC0415
        from service.http.app import create_app  # noqa: PLC0415
        from service.http.observed import observed  # noqa: PLC0415
        from service.http.plain import PlainRequests  # noqa: PLC0415
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
        readiness = Readiness(classifier, reactor, target_s=settings.target_p99_ms / 1e3)
        app = create_app(classifier, readiness, settings)
        self._observer = exchange.Observer(settings)
        self.plain = PlainRequests(
            classifier,
            reactor,
            self._observer,
            limit_s=settings.request_timeout_s,
            max_body_bytes=settings.max_body_bytes,
        )
        return observed(app.wsgi_app, self._observer)

    def _close(self, _: Arbiter, __: Worker) -> None:
        """In the worker, at its end."""
        if self._observer:
            self._observer.close()


class _Log(Logger):  # type: ignore[misc]  # gunicorn is untyped
    """Gunicorn's own lines in the form of all others."""

    def setup(self, cfg: Config) -> None:
        """Called by gunicorn."""
        super().setup(cfg)
        self.error_log.handlers.clear()
        self.error_log.propagate = True


def _name_master(_: Arbiter, __: Worker) -> None:
    """Here, since gunicorn sets a title of its own after it is ready and before the first fork."""
    setproctitle.setproctitle("graft fronts")


def _begin_worker(worker: Worker) -> None:
    setproctitle.setproctitle(f"graft front {worker.age - 1}")
    settle()


def _forget_worker(_: Arbiter, worker: Worker) -> None:
    multiprocess.mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]  # untyped there


if __name__ == "__main__":
    os.environ.pop("GUNICORN_CMD_ARGS", None)
    chosen = load_settings(Path(sys.argv.pop(1)))
    configure_log(chosen.log_level, chosen.log_format)
    _Front(chosen).run()
