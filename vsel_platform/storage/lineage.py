"""What a published partition was made from, back to the source file."""

from typing import Any

from vsel_platform.errors import StorageError
from vsel_platform.storage.pointers import Pointer, parse_reference, read_pointer, read_version
from vsel_platform.storage.store import Store


def trace(store: Store, name: str, *, depth: int = 10) -> dict[str, Any]:
    """Tree of inputs of `table/partition=value[@version]`.

    Each node: name, version, created_at, run_id, rows, data_version, code_version, inputs (nodes).
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
        "rows": pointer.rows,
        "data_version": pointer.data_version,
        "code_version": pointer.code_version,
        "inputs": inputs,
    }


def as_text(node: dict[str, Any], indent: int = 0) -> str:
    """The tree as indented lines."""
    pad = "  " * indent
    if node.get("missing"):
        return f"{pad}{node['name']} (collected)"
    line = f"{pad}{node['name']}  {node['rows']:,} rows  {node['created_at'][:19]}  {node['data_version']}"
    return "\n".join([line, *(as_text(child, indent + 1) for child in node["inputs"])])
