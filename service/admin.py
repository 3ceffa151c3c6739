"""Changes over the network of which versions are served: who may make them, and making them.

Behind /admin and behind TensorFlow Serving's HandleReloadConfigRequest. What changes is serving.json (`policy.py`), as
by `python -m service.models`.
"""

import hmac
from collections.abc import Mapping
from pathlib import Path

from service.errors import InternalError, InvalidRequest, ModelNotFound, Unauthenticated
from service.policy import BrokenPolicy, Change, Policy, change_policy
from service.routes import Routes
from service.settings import Settings, read_token


def is_possible(settings: Settings) -> bool:
    """Whether there is a token at all; without one nobody may."""
    return settings.admin_token_file != Path()


def authenticate(authorization: str, settings: Settings) -> None:
    """Lets whoever has the token pass.

    Args:
        authorization: the header or the metadata of this name.
        settings: name the token's file, which is read each time, so that it can be changed while we run.

    Raises:
        Unauthenticated: it is not `Bearer TOKEN`.
        InternalError: the token cannot be read.
    """
    try:
        token = read_token(settings.admin_token_file)
    except ValueError as error:
        raise InternalError("the admin token cannot be read; the service's log knows more") from error
    if not hmac.compare_digest(authorization.encode(errors="replace"), f"Bearer {token}".encode()):
        raise Unauthenticated("expected the header 'Authorization: Bearer' with the admin token")


def change_all(routes: Routes, settings: Settings, wishes: Mapping[str, Change]) -> None:
    """Changes the policies of models, all or none of them unless the disk refuses. Waits for the disk.

    Raises:
        ModelNotFound, InvalidRequest, InternalError: as `change`; names the model.
    """
    for dry_run in (True, False):
        for name, wish in wishes.items():
            try:
                change(routes, settings, name, wish, dry_run=dry_run)
            except (ModelNotFound, InvalidRequest, InternalError) as error:
                raise type(error)(f"{name}: {error.detail}") from error


def change(routes: Routes, settings: Settings, name: str, wish: Change, *, dry_run: bool = False) -> Policy:
    """Changes a model's policy and returns the new one. Waits for the disk.

    Raises:
        ModelNotFound, InvalidRequest: see `change_policy`.
        InternalError: serving.json cannot be understood or written; it is as it was.
    """
    known = routes.models.get(name)
    try:
        _, after = change_policy(settings.models, name, wish, known.refused if known else (), dry_run=dry_run)
    except BrokenPolicy as error:
        raise InternalError(str(error)) from error
    return after
