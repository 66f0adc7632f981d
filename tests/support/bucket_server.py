"""A small server of Google Cloud Storage's JSON API, in memory.

What the real client, gcsfs, asks of it over HTTP, and no more: listing in
pages, download, upload at once and in parts, removal, and creation by one
alone. Told apart by their names are buckets that nobody made (`missing`) and
that nobody may see (`forbidden`).
"""

import base64
import contextlib
import hashlib
import http.server
import itertools
import json
import re
import threading
import urllib.parse
import uuid

import pytest

PAGE = 1000  # objects, as at Google


class Server(http.server.ThreadingHTTPServer):
    """The server; `with` starts and ends it."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects = {}  # bucket/name: content, generation
        self.asked = []  # method and object of each request
        self.lock = threading.RLock()
        self.generations = itertools.count(1)
        self.uploads = {}
        self.before = lambda method, name: None

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    def tree(self, folder):
        """What lies in a folder of a bucket, as `sample_runs.tree`."""
        with self.lock:
            return {
                name.removeprefix(f"{folder}/"): content
                for name, (content, _) in sorted(self.objects.items())
                if name.startswith(f"{folder}/")
            }

    def __enter__(self):
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self._thread.join()
        self.server_close()

    def handle_error(self, request, client_address):
        """A client that was killed is none of the server's business."""


@contextlib.contextmanager
def serving():
    """A server that gcsfs, here and in processes begun here, speaks to."""
    with Server() as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", server.url)
        # Nobody need log in to it, nor look whether this is Google's machine.
        patch.setenv("NO_GCE_CHECK", "true")
        yield server


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):  # noqa: N802 - the base class's name
        self._answer("GET")

    def do_POST(self):  # noqa: N802
        self._answer("POST")

    def do_DELETE(self):  # noqa: N802
        self._answer("DELETE")

    def log_message(self, *_):
        pass

    def _answer(self, method):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        url = urllib.parse.urlsplit(self.path)
        asked = dict(urllib.parse.parse_qsl(url.query))
        found = re.fullmatch(
            r"(?:/upload|/download)?/storage/v1/b/([^/]+)/o(?:/(.+))?", url.path
        )
        bucket, name = (urllib.parse.unquote(p or "") for p in found.groups())
        if bucket == "forbidden":
            return self._fail(403, "nobody does not have storage.objects.list")
        if bucket == "missing":
            return self._fail(404, "The specified bucket does not exist.")
        if method == "POST":
            name, body, ends = self._uploaded(asked, body, bucket)
            if not ends:
                return None
        name = f"{bucket}/{name}"
        self.server.asked.append((method, name))
        if method == "GET" and name.endswith("/"):
            return self._list(bucket, asked)
        self.server.before(method, name)
        with self.server.lock:
            objects = self.server.objects
            if method == "POST":
                if asked.get("ifGenerationMatch") == "0" and name in objects:
                    return self._fail(412, "conditionNotMet")
                objects[name] = body, next(self.server.generations)
                return self._say(json.dumps(self._about(name)).encode())
            if name not in objects:
                return self._fail(404, f"No such object: {name}")
            if method == "DELETE":
                del objects[name]
                return self._say(b"", 204)
            content = objects[name][0]
        return self._say(content)

    def _uploaded(self, asked, body, bucket):
        """Name and content of an upload, and whether it is all there."""
        if asked["uploadType"] == "multipart":
            _, about, content, _ = re.split(rb"\r?\n?--==0==", body, maxsplit=3)
            about = about.partition(b"\n\n")[2]
            return (
                json.loads(about)["name"],
                content.partition(b"\n\n")[2],
                True,
            )
        if "upload_id" not in asked:
            number = uuid.uuid4().hex
            self.server.uploads[number] = json.loads(body)["name"], b""
            where = f"{self.server.url}{self.path}&upload_id={number}"
            self._say(b"", Location=where)
            return "", b"", False
        name, before = self.server.uploads[asked["upload_id"]]
        body = before + body
        self.server.uploads[asked["upload_id"]] = name, body
        whole = int(self.headers["Content-Range"].rpartition("/")[2])
        if len(body) < whole:
            self._say(b"", 308, Range=f"bytes=0-{len(body) - 1}")
        return name, body, len(body) == whole

    def _list(self, bucket, asked):
        prefix = f"{bucket}/{asked.get('prefix', '')}"
        cut = asked.get("delimiter")
        items, folders = {}, {}
        with self.server.lock:
            for name in sorted(self.server.objects):
                if not name.startswith(prefix):
                    continue
                inner, there, _ = name[len(prefix) :].partition(cut or "\0")
                if there:
                    folders[f"{prefix}{inner}{cut}"] = None
                else:
                    items[name] = self._about(name)
        names = sorted([*items, *folders])
        first = int(asked.get("pageToken", 0))
        size = min(int(asked.get("maxResults", PAGE)), PAGE)
        page = names[first : first + size]
        inside = len(bucket) + 1
        said = {
            "kind": "storage#objects",
            "items": [items[n] for n in page if n in items],
            "prefixes": [n[inside:] for n in page if n in folders],
        }
        if first + size < len(names):
            said["nextPageToken"] = str(first + size)
        return self._say(json.dumps(said).encode())

    def _about(self, name):
        content, generation = self.server.objects[name]
        bucket, _, inner = name.partition("/")
        return {
            "bucket": bucket,
            "name": inner,
            "size": str(len(content)),
            "generation": str(generation),
            "md5Hash": base64.b64encode(hashlib.md5(content).digest()).decode(),
        }

    def _fail(self, status, message):
        said = {"error": {"code": status, "message": message}}
        self._say(json.dumps(said).encode(), status)

    def _say(self, content, status=200, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
