"""Images of rows: safe paths below a root, identity from one read of the file, header checks before decoding."""

import hashlib
import os
import posixpath
import stat
import warnings
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import fsspec

from vsel_platform.config import ImageSettings
from vsel_platform.identity import image_id
from vsel_platform.samples.probing import probe
from vsel_platform.samples.sample import EmbeddedImage, ImageRecord, ImageReference, Reason, RefusedRow

LOCAL_THREADS, REMOTE_THREADS = 2, 16


def path_identity(path: str) -> str:
    """Identity of an image that is not opened (`check: none`): sha256 of "path:" and its path."""
    return hashlib.sha256(b"path:" + path.encode()).hexdigest()


class ImageIndex:
    """Looks up images below a root; every distinct path is read once.

    `root` is a directory or URL; with `check: none` nothing is opened and identity is the path.
    """

    def __init__(self, root: str, settings: ImageSettings) -> None:
        self.settings = settings
        self._fs, path = fsspec.core.url_to_fs(root)
        self._remote = "file" not in self._protocols()
        self._root = path.rstrip("/") if self._remote else os.path.realpath(path)
        self._prefixes = tuple({f"{p.rstrip('/')}/" for p in (root, self._root, self._fs.unstrip_protocol(path))})
        self._known: dict[str, ImageRecord | RefusedRow] = {}

    def _protocols(self) -> tuple[str, ...]:
        given = self._fs.protocol
        return (given,) if isinstance(given, str) else tuple(given)

    def prepare(self, references: Iterable[ImageReference]) -> None:
        """Read the images that were not read before, several at a time."""
        if self.settings.check == "none":
            return
        new = list(dict.fromkeys(r for r in references if isinstance(r, str) and r not in self._known))
        if not new:
            return
        with warnings.catch_warnings():  # limits on pixels are the project file's, and they are enforced
            warnings.simplefilter("ignore")
            if len(new) == 1:
                found = [self._look_up(new[0])]
            else:
                with ThreadPoolExecutor(REMOTE_THREADS if self._remote else LOCAL_THREADS) as pool:
                    found = list(pool.map(self._look_up, new))
        self._known.update(zip(new, found, strict=True))

    def get(self, reference: ImageReference) -> ImageRecord:
        """The image of a reference. Raises RefusedRow with the reason why it cannot be used."""
        if isinstance(reference, EmbeddedImage):
            return self._embedded(reference)
        if self.settings.check == "none":
            relative = self._relative(reference)
            return ImageRecord(path_identity(relative), f"{self._root}/{relative}", reference)
        if reference not in self._known:
            self.prepare([reference])
        found = self._known[reference]
        if isinstance(found, RefusedRow):
            raise RefusedRow(found.reason, found.detail)
        return found

    def _look_up(self, reference: str) -> ImageRecord | RefusedRow:
        try:
            relative = self._relative(reference)
            read = self._read_remote if self._remote else self._read_local
            path, data = read(reference, relative)
            width, height, name = probe(data, reference, self.settings)
            url = self._fs.unstrip_protocol(path) if self._remote else path
            return ImageRecord(image_id(data), url, reference, len(data), width, height, name)
        except RefusedRow as refused:
            return refused

    def _embedded(self, image: EmbeddedImage) -> ImageRecord:
        name = image.path or "embedded image"
        self._check_size(len(image.data), name)
        if self.settings.check == "none":
            return ImageRecord(image.image_id, "", image.path or "", len(image.data))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            width, height, form = probe(image.data, name, self.settings)
        return ImageRecord(image.image_id, "", image.path or "", len(image.data), width, height, form)

    def _relative(self, reference: str) -> str:
        """Path below the root. Raises RefusedRow for a path that leads anywhere else."""
        path = reference
        if reference.startswith(self._prefixes):
            path = next(reference[len(p) :] for p in self._prefixes if reference.startswith(p))
        if "\0" in path:
            raise RefusedRow(Reason.IMAGE_OUTSIDE_ROOT, f"NUL in the path {reference!r}")
        if path.startswith("/") or "://" in path:
            raise RefusedRow(Reason.IMAGE_OUTSIDE_ROOT, f"{reference!r} is not below {self._root}")
        if ".." in path and ".." in path.split("/"):
            raise RefusedRow(Reason.IMAGE_OUTSIDE_ROOT, f"{reference!r} contains ..")
        return posixpath.normpath(path) if "//" in path or "./" in path else path

    def _read_local(self, reference: str, relative: str) -> tuple[str, bytes]:
        path = os.path.realpath(f"{self._root}/{relative}")
        if not path.startswith(self._root.rstrip("/") + "/"):
            raise RefusedRow(Reason.IMAGE_OUTSIDE_ROOT, f"{reference!r} leads to {path}")
        handle = None
        try:
            # O_NONBLOCK: a pipe in the place of an image must not stop the ingest.
            handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
            state = os.fstat(handle)
            if not stat.S_ISREG(state.st_mode):
                raise RefusedRow(Reason.IMAGE_UNREADABLE, f"{path} is not a file")
            self._check_size(state.st_size, reference)
            with os.fdopen(handle, "rb", closefd=False) as file:
                return path, self._whole(file, reference)
        except FileNotFoundError as error:
            raise RefusedRow(Reason.IMAGE_MISSING, f"no file {path}") from error
        except (OSError, ValueError) as error:
            raise RefusedRow(Reason.IMAGE_UNREADABLE, f"{path}: {error}") from error
        finally:
            if handle is not None:
                os.close(handle)

    def _read_remote(self, reference: str, relative: str) -> tuple[str, bytes]:
        path = f"{self._root}/{relative}"
        try:
            with self._fs.open(path, "rb", cache_type="none") as file:
                self._check_size(int(file.size or 0), reference)
                return path, self._whole(file, reference)
        except FileNotFoundError as error:
            raise RefusedRow(Reason.IMAGE_MISSING, f"no file {path}") from error
        except (OSError, ValueError) as error:
            raise RefusedRow(Reason.IMAGE_UNREADABLE, f"{path}: {error}") from error

    def _whole(self, file: Any, reference: str) -> bytes:
        data = bytes(file.read(self.settings.max_bytes + 1))
        self._check_size(len(data), reference)
        return data

    def _check_size(self, n_bytes: int, name: str) -> None:
        if n_bytes > self.settings.max_bytes:
            detail = f"{name}: {n_bytes} bytes, more than max_bytes {self.settings.max_bytes}"
            raise RefusedRow(Reason.IMAGE_TOO_MANY_BYTES, detail)


def default_root(source: str) -> str:
    """Root of image paths when the project file names none: the directory of the source."""
    fs, path = fsspec.core.url_to_fs(source)
    fixed = path.split("*")[0].split("?")[0].split("[")[0]
    root = fixed if fs.isdir(fixed) and fixed == path else fixed.rpartition("/")[0]
    return str(fs.unstrip_protocol(root)) if "://" in source else root
