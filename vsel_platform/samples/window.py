"""A window over a byte stream: the part of a source file that is in memory."""

import hashlib
from typing import IO

READ_BYTES = 4 << 20


class Window:
    """Bytes of a stream around a cursor. `position` is the cursor, an offset in `data`."""

    def __init__(self, stream: IO[bytes], *, name: str = "", read_bytes: int = READ_BYTES) -> None:
        self.data = b""
        self.position = 0
        self.eof = False
        self.name = name
        self._stream = stream
        self._read_bytes = read_bytes
        self._dropped = 0
        self._digest = hashlib.sha256()

    @property
    def offset(self) -> int:
        """Offset of the cursor in the file [bytes]."""
        return self._dropped + self.position

    @property
    def left(self) -> int:
        """Bytes in memory from the cursor on."""
        return len(self.data) - self.position

    @property
    def sha256(self) -> str:
        """sha256 (hex) of all bytes read so far."""
        return self._digest.hexdigest()

    def drop(self) -> None:
        """Forget what is before the cursor, which becomes offset 0."""
        self._dropped += self.position
        self.data, self.position = self.data[self.position :], 0

    def grow(self) -> bool:
        """Append the next bytes of the stream (twice as many as are there); False at its end."""
        chunk = b"" if self.eof else self._stream.read(max(self._read_bytes, len(self.data)))
        if not chunk:
            self.eof = True
            return False
        self._digest.update(chunk)
        self.data += chunk
        return True

    def peek(self) -> int:
        """Move behind white space; the byte there, or -1 at the end of the stream."""
        while True:
            rest = self.data[self.position : self.position + 4096].lstrip(b" \t\r\n")
            self.position = min(self.position + 4096, len(self.data)) - len(rest)
            if rest:
                return rest[0]
            if self.position == len(self.data):
                self.drop()
                if not self.grow():
                    return -1

    def skip_rest(self) -> None:
        """Read to the end of the stream and forget it (its sha256 counts)."""
        self.position = len(self.data)
        self.drop()
        while self.grow():
            self.position = len(self.data)
            self.drop()
