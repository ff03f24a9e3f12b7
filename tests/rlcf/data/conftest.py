"""A server to fetch from, archives to put on it, and small datasets in their published layouts."""

import io
import tarfile
import threading
import zipfile

import pytest

from tests.server import Server


@pytest.fixture
def server():
    running = Server()
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield running
    running.shutdown()
    thread.join()
    running.server_close()


@pytest.fixture
def tar_of():
    """The bytes of a tar archive of {name: content}; a content that is a TarInfo is taken as it is."""

    def pack(files, mode="w"):
        held = io.BytesIO()
        with tarfile.open(fileobj=held, mode=mode) as archive:
            for name, content in files.items():
                info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
                if not isinstance(content, tarfile.TarInfo):
                    info.size = len(content)
                archive.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
        return held.getvalue()

    return pack


@pytest.fixture
def zip_of():
    """The bytes of a zip archive of {name: content}."""

    def pack(files):
        held = io.BytesIO()
        with zipfile.ZipFile(held, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return held.getvalue()

    return pack
