"""Why a download failed, in words, with the way out. Each library has errors of its own."""

import errno
import re
import socket
import urllib.error

TIMEOUT = 60  # seconds without a byte after which a server counts as silent
HANDED_OUT = "start with the folder that your instructor handed out, `make lab FOLDER=…`"
RETRIES = 3  # of tensorflow_datasets: seconds in all, where its own 10 are minutes


def why(error, files=()):
    """The reason of a failed download, and what to do: two parts of a sentence.

    Args:
        error: what Keras, TensorFlow Hub or TensorFlow Datasets raised.
        files: paths of what came, in whole or in part: a web page among them is recognised.
    """
    chain = []
    while error:
        chain, error = [*chain, error], error.__cause__ or error.__context__
    text = " ".join(map(str, chain))
    if found := re.search(r"HTTP code: (\d+)|HTTP Error (\d+)|too many (\d+) error", text):
        status = next(filter(None, found.groups()))
        way = "again later" if status >= "500" else "another network, a proxy may forbid it"
        return f"the server answers HTTP {status}", f"try {way}"
    for e in chain:
        if isinstance(e, ModuleNotFoundError):
            way = "python -m pip install -r requirements-photos.lock"
            return f"the package {e.name} is not installed", way
    full = any(getattr(e, "errno", 0) == errno.ENOSPC for e in chain)
    if full or "No space left" in text or "Not enough disk space" in text:
        return "the disk is full", "make room for 4 GB or name a folder on another disk"
    if any(map(_is_page, files)):
        way = "open a web site in a browser to log in, or try another network"
        return "a web page came in its place, as proxies and logins send them", way
    broken_off = "retrieval incomplete|IncompleteRead|unexpected end of data|truncated file"
    if re.search(broken_off, text):
        return "the connection broke off in the middle of it", "run this again"
    if "valid module" in text:  # the hub's library keeps nothing of it
        way = "log in to the network in a browser, or try another network"
        return "what came is no module, perhaps a web page of a proxy or login", way
    if "checksum" in text or "file hash" in text:
        return "what came has the wrong checksum", "run this again, or try another network"
    if isinstance(chain[0], PermissionError):
        return "it cannot be written (Permission denied)", "name another folder"
    network = (urllib.error.URLError, ConnectionError, TimeoutError, socket.gaierror)
    if any(isinstance(e, network) for e in chain) or "Max retries" in text:
        reason = getattr(chain[-1], "strerror", None) or chain[-1]
        way = "connect to the network, or set HTTPS_PROXY to your proxy"
        return f"no connection ({reason})", way
    line = text.strip().partition("\n")[0].rstrip(".") or type(chain[0]).__name__
    return f"what came cannot be read ({line})", "run this again, or try another network"


def _is_page(file):
    with file.open("rb") as content:
        return content.read(100).lstrip().startswith(b"<")
