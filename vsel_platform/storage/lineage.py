"""What a published partition was made from, back to the source file."""

from collections.abc import Iterator
from typing import Any

from vsel_platform.errors import StorageError
from vsel_platform.storage.pointers import Pointer, parse_reference, read_pointer, read_version
from vsel_platform.storage.store import Store
from vsel_platform.storage.vectors import VECTOR_SIGNALS
from vsel_platform.tables import TABLES

SHOWN_FILES = 5


def trace(store: Store, name: str, *, depth: int = 10) -> dict[str, Any]:
    """Tree of inputs of `table/partition=value[@version]`.

    Each node: name, version, created_at, run_id, rows (None for artifacts), files, data_version, code_version, inputs
    (nodes); what was read from a source has a `source`: names of its files, their number, their fingerprint.
    Raises StorageError if nothing is published under the name.
    """
    pointer = read_pointer(store.files, name)
    if pointer is None and "@" in name:
        pointer = read_version(store.files, *parse_reference(name))
    if pointer is None:
        known = sorted({p.key for p in store.pointers(name.partition("/")[0])})
        raise StorageError(f"nothing is published as {name}; known: {', '.join(known) or 'none'}")
    return _node(store, pointer, depth)


def _node(store: Store, pointer: Pointer, depth: int) -> dict[str, Any]:
    inputs = []
    for reference in pointer.inputs if depth > 0 else []:
        try:
            inputs.append(_node(store, read_version(store.files, *parse_reference(reference)), depth - 1))
        except StorageError:
            inputs.append({"name": reference, "missing": True, "inputs": []})
    return {
        "name": pointer.key,
        "version": pointer.version,
        "created_at": pointer.created_at,
        "run_id": pointer.run_id,
        "rows": pointer.rows if pointer.table in TABLES or pointer.table in VECTOR_SIGNALS else None,
        "files": len(pointer.files),
        "data_version": pointer.data_version,
        "code_version": pointer.code_version,
        "inputs": inputs,
        **_source(pointer),
    }


def _source(pointer: Pointer) -> dict[str, Any]:
    found = pointer.metadata
    if "source_content" not in found:
        return {}
    names = found.get("source_files", [])
    number = found.get("n_source_files", len(names))
    return {"source": {"files": names, "n_files": number, "fingerprint": found["source_content"]}}


def as_text(node: dict[str, Any]) -> str:
    """The tree as indented lines; what stands further up already is named without its inputs."""
    return "\n".join(_lines(node, 0, set()))


def _lines(node: dict[str, Any], indent: int, seen: set[tuple[str, str]]) -> Iterator[str]:
    pad = "  " * indent
    if node.get("missing"):
        yield f"{pad}{node['name']} (collected)"
        return
    size = f"{node['files']:,} file(s)" if node["rows"] is None else f"{node['rows']:,} rows"
    line = f"{pad}{node['name']}  {size}  {node['created_at'][:19]}  {node['data_version']}"
    key = (node["name"], node["version"])
    below = bool(node["inputs"]) or "source" in node
    if key in seen and below:
        yield f"{line}  (as above)"
        return
    seen.add(key)
    yield line
    for child in node["inputs"]:
        yield from _lines(child, indent + 1, seen)
    if "source" in node:
        yield from _source_lines(node["source"], pad + "  ")


def _source_lines(source: dict[str, Any], pad: str) -> Iterator[str]:
    shown = source["files"][:SHOWN_FILES]
    for name in shown:
        yield f"{pad}{name}  source file"
    if source["n_files"] > len(shown):
        yield f"{pad}{source['n_files'] - len(shown):,} more source files"
    yield f"{pad}source fingerprint  {source['fingerprint']}"
