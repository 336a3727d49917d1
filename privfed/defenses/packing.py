"""How many bytes the tensors of an upload take when they travel packed."""

from dataclasses import replace

from torch import Tensor

from privfed.data.world import Shape
from privfed.errors import SettingsError
from privfed.messages import Uploads

INDEX_BYTES = 4  # the position of a number in its tensor travels as 32 bits


def whole_bytes(uploads: Uploads, shape: Shape) -> dict[str, Tensor]:
    """Bytes of each tensor as it is, (clients,)."""
    bare = Uploads(uploads.clients, rest=uploads.rest)
    found = {
        name: replace(bare, rows={name: rows}).bytes_up(shape)
        for name, rows in uploads.rows.items()
    }
    for name, value in uploads.dense.items():
        found[name] = replace(bare, dense={name: value}).bytes_up(shape)
    for name, value in uploads.users.items():
        found[name] = replace(bare, users={name: value}).bytes_up(shape)
    return found


def refuse_packed(name: str, uploads: Uploads) -> None:
    """Raise SettingsError where another defense has packed an upload before."""
    if uploads.packed:
        raise SettingsError(
            f"{name}: another defense has packed the upload already; keep one of "
            "top_k:of=numbers and quantize, or write top_k:of=rows first"
        )
