"""States of a running training in the store: a killed one goes on from the last of them."""

from pathlib import Path

from vsel_platform.storage.files import FileStore

WHOLE = "whole"
"""Name of the file that is written last: a state without it is not used."""


class TrainingStates:
    """States of one training under `work/<key>/`; the key names rows, model and settings, so another is never met."""

    def __init__(self, files: FileStore, key: str) -> None:
        self._files = files
        self._prefix = f"work/{key}"

    def save(self, step: int, directory: Path) -> None:
        """Keep the files of `directory` as the state after `step`, and remove older states."""
        own = f"{self._prefix}/{step:012d}"
        for file in sorted(path for path in directory.rglob("*") if path.is_file()):
            self._files.put(f"{own}/{file.relative_to(directory).as_posix()}", file)
        self._files.write(f"{own}/{WHOLE}", b"")
        for state in {self._state_of(name) for name, _ in self._files.list(self._prefix)} - {own}:
            self._files.delete_tree(state)

    def _state_of(self, name: str) -> str:
        return f"{self._prefix}/{name.removeprefix(self._prefix + '/').partition('/')[0]}"

    def restore(self, directory: Path) -> Path | None:
        """Write the newest whole state to `directory`/checkpoint-<step>; that directory, None if there is none."""
        names = [name for name, _ in self._files.list(self._prefix)]
        states = sorted(state for name in names if name == f"{(state := self._state_of(name))}/{WHOLE}")
        if not states:
            return None
        target = directory / f"checkpoint-{int(states[-1].rpartition('/')[2])}"
        for name in names:
            if name.startswith(states[-1] + "/") and name != f"{states[-1]}/{WHOLE}":
                place = target / name.removeprefix(states[-1] + "/")
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(self._files.read(name))
        return target

    def clear(self) -> None:
        """Remove all states, after the trained model was published."""
        self._files.delete_tree(self._prefix)
