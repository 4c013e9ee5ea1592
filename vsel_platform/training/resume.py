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
        for file in sorted(directory.iterdir()):
            self._files.put(f"{own}/{file.name}", file)
        self._files.write(f"{own}/{WHOLE}", b"")
        for state in {name.rpartition("/")[0] for name, _ in self._files.list(self._prefix)} - {own}:
            self._files.delete_tree(state)

    def restore(self, directory: Path) -> Path | None:
        """Write the newest whole state to `directory`/checkpoint-<step>; that directory, None if there is none."""
        names = [name for name, _ in self._files.list(self._prefix)]
        states = sorted(name.rpartition("/")[0] for name in names if name.endswith(f"/{WHOLE}"))
        if not states:
            return None
        target = directory / f"checkpoint-{int(states[-1].rpartition('/')[2])}"
        target.mkdir(parents=True)
        for name in names:
            if name.startswith(states[-1] + "/") and not name.endswith(f"/{WHOLE}"):
                (target / name.rpartition("/")[2]).write_bytes(self._files.read(name))
        return target

    def clear(self) -> None:
        """Remove all states, after the trained model was published."""
        self._files.delete_tree(self._prefix)
