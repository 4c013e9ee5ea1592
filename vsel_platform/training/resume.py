"""States of a running training in the store: a killed one goes on from the last of them."""

from pathlib import Path
from typing import Self

from vsel_platform.storage.files import FileStore

WHOLE = "whole"
"""Name of the file that is written last: a state without it is not used."""


class TrainingStates:
    """States of one training under `work/<key>/`; the key names rows, model and settings, so another is never met.

    `kind` names how the model is shared among processes, where a state can be read in no other way: states of another
    kind are passed by, and go with the first one that is saved.
    """

    def __init__(self, files: FileStore, key: str, kind: str = "whole-model") -> None:
        self._files, self._key, self._kind = files, key, kind
        self._prefix = f"work/{key}"

    def of_kind(self, kind: str) -> Self:
        """The same training's states of a kind."""
        return type(self)(self._files, self._key, kind)

    def save(self, step: int, directory: Path) -> None:
        """Keep the files of `directory` as the state after `step`, and remove older states and those of other kinds."""
        own = f"{self._prefix}/{step:012d}-{self._kind}"
        for file in sorted(path for path in directory.rglob("*") if path.is_file()):
            self._files.put(f"{own}/{file.relative_to(directory).as_posix()}", file)
        self._files.write(f"{own}/{WHOLE}", b"")
        for state in {self._state_of(name) for name, _ in self._files.list(self._prefix)} - {own}:
            self._files.delete_tree(state)

    def _state_of(self, name: str) -> str:
        return f"{self._prefix}/{name.removeprefix(self._prefix + '/').partition('/')[0]}"

    def restore(self, directory: Path) -> Path | None:
        """Write the newest whole state of the kind to `directory`/checkpoint-<step>; that directory, None if there is
        none."""
        names = [name for name, _ in self._files.list(self._prefix)]
        whole = (state for name in names if name == f"{(state := self._state_of(name))}/{WHOLE}")
        states = sorted(state for state in whole if state.endswith(f"-{self._kind}"))
        if not states:
            return None
        step = states[-1].rpartition("/")[2].removesuffix(f"-{self._kind}")
        target = directory / f"checkpoint-{int(step)}"
        for name in names:
            if name.startswith(states[-1] + "/") and name != f"{states[-1]}/{WHOLE}":
                place = target / name.removeprefix(states[-1] + "/")
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(self._files.read(name))
        return target

    def clear(self) -> None:
        """Remove all states, of every kind, after the trained model was published."""
        self._files.delete_tree(self._prefix)
