"""A small server of Google Cloud Storage's JSON API, in memory.

It answers the requests of the real client, gcsfs: listing in pages, download,
upload at once and in parts, removal, and exclusive creation. The bucket
`missing` does not exist, and access to the bucket `forbidden` is denied.
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
        self.requests = []  # method and object of each
        self.lock = threading.RLock()
        self.generations = itertools.count(1)
        self.uploads = {}
        self.before = lambda method, name: None

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    def tree(self, folder):
        """Returns all files of a folder of a bucket: name to content."""
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
        """Ignores clients that were killed."""


@contextlib.contextmanager
def serving():
    """Starts a server for gcsfs, in this process and its child processes."""
    with Server() as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", server.url)
        # gcsfs then needs no login, and does not look for Google's machines.
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
        query = dict(urllib.parse.parse_qsl(url.query))
        parts = re.fullmatch(
            r"(?:/upload|/download)?/storage/v1/b/([^/]+)/o(?:/(.+))?", url.path
        )
        bucket, name = (urllib.parse.unquote(p or "") for p in parts.groups())
        if bucket == "forbidden":
            return self._fail(403, "nobody does not have storage.objects.list")
        if bucket == "missing":
            return self._fail(404, "The specified bucket does not exist.")
        if method == "POST":
            name, body, is_complete = self._upload(query, body)
            if not is_complete:
                return None
        name = f"{bucket}/{name}"
        self.server.requests.append((method, name))
        if method == "GET" and name.endswith("/"):
            return self._list(bucket, query)
        self.server.before(method, name)
        with self.server.lock:
            objects = self.server.objects
            if method == "POST":
                if query.get("ifGenerationMatch") == "0" and name in objects:
                    return self._fail(412, "conditionNotMet")
                objects[name] = body, next(self.server.generations)
                return self._send(json.dumps(self._metadata(name)).encode())
            if name not in objects:
                return self._fail(404, f"No such object: {name}")
            if method == "DELETE":
                del objects[name]
                return self._send(b"", 204)
            content = objects[name][0]
        return self._send(content)

    def _upload(self, query, body):
        """Returns name and content of an upload, and whether it is complete."""
        if query["uploadType"] == "multipart":
            _, metadata, content, _ = re.split(
                rb"\r?\n?--==0==", body, maxsplit=3
            )
            metadata = metadata.partition(b"\n\n")[2]
            return (
                json.loads(metadata)["name"],
                content.partition(b"\n\n")[2],
                True,
            )
        if "upload_id" not in query:
            number = uuid.uuid4().hex
            self.server.uploads[number] = json.loads(body)["name"], b""
            location = f"{self.server.url}{self.path}&upload_id={number}"
            self._send(b"", Location=location)
            return "", b"", False
        name, earlier = self.server.uploads[query["upload_id"]]
        body = earlier + body
        self.server.uploads[query["upload_id"]] = name, body
        size = int(self.headers["Content-Range"].rpartition("/")[2])
        if len(body) < size:
            self._send(b"", 308, Range=f"bytes=0-{len(body) - 1}")
        return name, body, len(body) == size

    def _list(self, bucket, query):
        prefix = f"{bucket}/{query.get('prefix', '')}"
        delimiter = query.get("delimiter")
        items, folders = {}, {}
        with self.server.lock:
            for name in sorted(self.server.objects):
                if not name.startswith(prefix):
                    continue
                inner, is_folder, _ = name[len(prefix) :].partition(
                    delimiter or "\0"
                )
                if is_folder:
                    folders[f"{prefix}{inner}{delimiter}"] = None
                else:
                    items[name] = self._metadata(name)
        names = sorted([*items, *folders])
        first = int(query.get("pageToken", 0))
        size = min(int(query.get("maxResults", PAGE)), PAGE)
        page = names[first : first + size]
        start = len(bucket) + 1
        answer = {
            "kind": "storage#objects",
            "items": [items[n] for n in page if n in items],
            "prefixes": [n[start:] for n in page if n in folders],
        }
        if first + size < len(names):
            answer["nextPageToken"] = str(first + size)
        return self._send(json.dumps(answer).encode())

    def _metadata(self, name):
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
        answer = {"error": {"code": status, "message": message}}
        self._send(json.dumps(answer).encode(), status)

    def _send(self, content, status=200, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
