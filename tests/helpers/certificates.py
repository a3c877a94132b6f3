"""Self-signed certificates of loopback servers."""

import shutil
import subprocess
from pathlib import Path

import pytest


def server_certificate(folder: Path) -> Path:
    """Write the certificate of 127.0.0.1 and its key; skip the test without `openssl`."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    path = folder / "certificate.pem"
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", path]
    names = ["-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    command = ["openssl", "req", "-x509", *key, *names, "-out", folder / "public.pem"]
    subprocess.run(command, check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + (folder / "public.pem").read_bytes())
    return path
