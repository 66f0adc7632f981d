"""Servers of object stores for tests, each reached by its real client."""

import contextlib
import itertools
import logging

import boto3
import bucket_server
import fsspec
import pytest
from moto.server import ThreadedMotoServer

_numbers = itertools.count()


@contextlib.contextmanager
def serving_s3():
    """Starts a server of S3's protocol for s3fs; yields a bucket's address."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        boto3.client("s3").create_bucket(Bucket="bucket")
        yield "s3://bucket"
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    server.stop()


@contextlib.contextmanager
def serving(kind):
    """Starts what serves a kind of address; yields a bucket's address."""
    if kind == "s3":
        with serving_s3() as address:
            yield address
    elif kind == "gs":
        with bucket_server.serving():
            yield "gs://b"
    else:
        yield f"memory://{next(_numbers)}"
