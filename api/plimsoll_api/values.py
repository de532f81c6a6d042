"""The strings that people write in manifests: where things lie, what they are called, their digests."""

from __future__ import annotations

from typing import Annotated, Any

from plimsoll_api.rules import Pattern

#: Where an object lies: a path in a mounted claim. Reached through fsspec; further schemes come with their features.
Uri = Annotated[
    str,
    Pattern(
        r"pvc://[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?(/([A-Za-z0-9_=@+-]|\.[A-Za-z0-9_=@+-]|\.\.[A-Za-z0-9._=@+-])"
        r"[A-Za-z0-9._=@+-]*)*",
        "pvc://<claim>/<path>, such as pvc://models/digits-cnn, of the letters a to z and A to Z, digits and ._=@+- in "
        "its parts (no spaces, no accents), without a part named . or ..",
        1024,
    ),
]
Digest = Annotated[
    str, Pattern(r"sha256:[0-9a-f]{64}", 'a digest: "sha256:" and 64 hexadecimal digits in lower case', 71)
]
NAME = Pattern(
    r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?",
    "a name of lower-case letters, digits and hyphens that begins and ends with a letter or digit",
    63,
)
Name = Annotated[str, NAME]
DnsName = Annotated[
    str,
    Pattern(
        r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*",
        "a name of lower-case letters, digits, hyphens and dots",
        253,
    ),
]
ColumnName = Annotated[
    str,
    Pattern(r"[A-Za-z_][A-Za-z0-9_.-]*", "a name of letters, digits, _, . and - that begins with a letter or _", 128),
]
LabelValue = Annotated[
    str,
    Pattern(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?", "a label value of letters, digits, -, _ and .", 63),
]


_QUALIFIED = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/"
_UNQUALIFIED = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
LABEL_KEY = Pattern(
    rf"({_QUALIFIED})?{_UNQUALIFIED}",
    "a label key such as disk or kubernetes.io/arch: at most one /, before it a domain, after it at most 63 letters, "
    "digits, -, _ and .",
    317,
)
RESOURCE_NAME = Pattern(
    rf"cpu|memory|ephemeral-storage|hugepages-[0-9]+(Ki|Mi|Gi)|{_QUALIFIED}{_UNQUALIFIED}",
    "a resource: cpu, memory, ephemeral-storage, hugepages-<size>, or one of a device plugin such as nvidia.com/gpu",
    317,
)


def list_of(kind: str, *keys: str) -> dict[str, Any]:
    """Return the schema keywords that tell server-side apply how a list merges."""
    return {"x-kubernetes-list-type": kind} | ({"x-kubernetes-list-map-keys": list(keys)} if keys else {})
