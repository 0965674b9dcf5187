"""JSON Merge Patch (RFC 7386) over bytes: what a patch does not touch stays as it was written."""

from __future__ import annotations

import msgspec
from msgspec import Raw


def merged(target: bytes, patch: bytes) -> bytes:
    """The target with a patch applied: an object's members replace, null removes, anything else takes its place.

    Numbers and spacing of what is left alone are not judged. Raises ValueError when the patch is not JSON.
    """
    if patch.lstrip()[:1] != b"{":
        return patch
    members = _members(target)
    for name, value in msgspec.json.decode(patch, type=dict[str, Raw]).items():
        if bytes(value).strip() == b"null":
            members.pop(name, None)
        else:
            members[name] = Raw(merged(bytes(members.get(name, Raw(b"null"))), bytes(value)))
    return msgspec.json.encode(members)


def _members(target: bytes) -> dict[str, Raw]:
    if target.lstrip()[:1] != b"{":
        return {}
    return msgspec.json.decode(target, type=dict[str, Raw])
