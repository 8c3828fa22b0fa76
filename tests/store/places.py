"""The four places where products are made, and what lies there."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path

import obstore
from obstore.store import S3Store

from lcengine.store import target

BUCKET = "products"
SECRET = "a-very-secret-access-key"
KINDS = ("local", "s3", "icechunk", "icechunk-s3")


@dataclass(frozen=True)
class Backend:
    """A back end and an output that nobody else uses."""

    name: str
    output: str
    folder: Path

    @property
    def kind(self):
        return "icechunk" if self.name.startswith("icechunk") else None

    @property
    def remote(self):
        return self.output.startswith("s3://")

    @property
    def target(self):
        """A fresh one, as another process would make it."""
        return target(self.output, self.kind)

    def _bucket(self):
        return S3Store(BUCKET, prefix=self.output.removeprefix(f"s3://{BUCKET}/"))

    def files(self):
        """Content of everything below the output, by key."""
        if self.remote:
            store = self._bucket()
            keys = [m["path"] for m in obstore.list(store).collect()]
            return {key: bytes(obstore.get(store, key).bytes()) for key in keys}
        root = Path(self.output).resolve()
        found = (path for path in root.rglob("*") if path.is_file())
        return {path.relative_to(root).as_posix(): path.read_bytes() for path in found}

    def put(self, key, content):
        """Change a file or object behind everybody's back; None removes it."""
        path = Path(self.output).resolve() / key
        if content is None:
            obstore.delete(self._bucket(), key) if self.remote else path.unlink()
        elif self.remote:
            obstore.put(self._bucket(), key, content)
        else:
            path.write_bytes(content)


def backend_at(name, folder):
    if name.endswith("s3"):
        return Backend(name, f"s3://{BUCKET}/{uuid.uuid4().hex}/out.zarr", folder)
    return Backend(name, str(folder / "out.zarr"), folder)
