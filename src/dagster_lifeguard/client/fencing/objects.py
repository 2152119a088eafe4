"""Objects in a store that refuse a late writer, by conditional puts through obstore.

The fence is stored in the object's own metadata. A writer reads the fence and then puts the object
on the condition that the object has not changed since (``If-Match``, a generation). The object
store checks the condition.

Guarantees:
    An object is replaced only if its fence is not larger. Object and fence change together.

Not guaranteed:
    - Anything about a writer that puts or deletes the object without this function, or that holds
      no pool with the others. If the object is deleted, its fence is lost.
    - On Amazon S3 the ETag of an object is a digest of its content, unless KMS encrypts it. So a
      writer that is stopped between its read and its put is accepted if the next writer has put
      exactly the same bytes as before.
    - Stores without conditional puts: obstore's ``LocalStore`` is refused with an error. fsspec is
      not supported, because its filesystems only know "if there is none yet".
    - Objects larger than one request of the store (5 GB on S3).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dagster_lifeguard.client.fencing.refusal import late
from dagster_lifeguard.errors import ConfigError, first_line

if TYPE_CHECKING:
    from collections.abc import Mapping

_FENCE = "lifeguardfence"
"""A name that the metadata of S3, Google and Azure can have."""


def put_object(
    store: Any,
    path: str,
    data: bytes,
    fence: int,
    *,
    attributes: Mapping[str, str] | None = None,
) -> None:
    """Put an object, unless a later holder has put it.

    Args:
        store: Of ``obstore.store``: S3, Google, Azure, or memory.
        path: Of the object in the store.
        data: Its content.
        fence: Of ``dagster_lifeguard.fence``.
        attributes: More metadata, such as ``{"Content-Type": "text/csv"}``.

    Raises:
        LateWriterError: The object carries a larger fence.
        ConfigError: obstore is missing, or the store cannot put on condition.
    """
    try:
        import obstore  # noqa: PLC0415 - an extra
        from obstore import exceptions  # noqa: PLC0415
    except ImportError:
        raise ConfigError(
            "obstore is not installed.", remedy="pip install 'dagster-lifeguard[objects]'"
        ) from None
    metadata = {**(attributes or {}), _FENCE: str(fence)}
    while True:
        try:
            found = obstore.get(store, path)
        except FileNotFoundError:
            mode: Any = "create"
        else:
            seen = int(found.attributes.get(_FENCE, 0))
            if seen > fence:
                raise late(path, fence, seen)
            mode = {key: found.meta[key] for key in ("e_tag", "version") if found.meta.get(key)}
        if not mode:
            raise _cannot(store, path, "its objects have no versions")
        try:
            obstore.put(store, path, data, mode=mode, attributes=metadata, use_multipart=False)
        except (exceptions.AlreadyExistsError, exceptions.PreconditionError):
            continue  # Another has put it since the look: look again.
        except FileNotFoundError:
            if mode == "create":  # It is the bucket that is not there.
                raise
            continue  # Another has deleted it since the look.
        except (NotImplementedError, exceptions.NotSupportedError) as error:
            raise _cannot(store, path, first_line(error)) from error
        return


def _cannot(store: Any, path: str, why: str) -> ConfigError:
    return ConfigError(
        f"{type(store).__name__} cannot put {path!r} on condition: {why}.",
        remedy="Use a store that can, or fenced_file for a local file.",
        names=[path],
    )
