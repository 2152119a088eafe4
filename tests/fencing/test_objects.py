"""Objects that refuse a late writer, also one that is stopped between its look and its put."""

from __future__ import annotations

import obstore
import pytest
from obstore.store import LocalStore, MemoryStore, S3Store

from dagster_lifeguard.client.fencing.objects import put_object
from dagster_lifeguard.errors import ConfigError, LateWriterError
from object_server import ObjectServer


@pytest.fixture(params=["memory", "s3"])
def store(request):
    if request.param == "memory":
        yield MemoryStore()
        return
    with ObjectServer() as server:
        yield S3Store(
            "bucket",
            endpoint=server.url,
            access_key_id="nobody",
            secret_access_key="nothing",
            region="nowhere",
            client_options={"allow_http": True},
        )


def read(store, path: str = "orders") -> bytes:
    return bytes(obstore.get(store, path).bytes())


def test_a_smaller_fence_is_refused_and_any_other_let_in(store):
    for fence, data in [(3, b"a"), (3, b"b"), (12, b"c")]:
        put_object(store, "orders", data, fence)
        assert read(store) == data
    with pytest.raises(LateWriterError, match=r"written with fence 12, .* late with fence 4"):
        put_object(store, "orders", b"d", 4)
    assert read(store) == b"c"
    put_object(store, "revenue", b"e", 1)


def test_an_object_without_a_fence_is_older_than_all(store):
    obstore.put(store, "orders", b"before")
    put_object(store, "orders", b"a", 1)
    assert read(store) == b"a"


@pytest.mark.parametrize("exists", [False, True])
def test_another_puts_between_the_look_and_the_put(store, monkeypatch, exists):
    """Refused with the smaller fence, and let in with the larger, after another look."""
    if exists:
        put_object(store, "orders", b"before", 1)
    put = obstore.put
    looks = []

    def put_after(fence: int):
        def interrupted(*arguments, **keywords):
            looks.append(fence)
            monkeypatch.setattr(obstore, "put", put)
            put_object(store, "orders", b"of fence %d" % fence, fence)
            return put(*arguments, **keywords)

        return interrupted

    monkeypatch.setattr(obstore, "put", put_after(6))
    with pytest.raises(LateWriterError):
        put_object(store, "orders", b"late", 5)
    assert read(store) == b"of fence 6"
    monkeypatch.setattr(obstore, "put", put_after(7))
    put_object(store, "orders", b"of fence 8", 8)
    assert read(store) == b"of fence 8"
    assert looks == [6, 7]


def test_a_bucket_that_does_not_exist_is_an_error(store, monkeypatch):
    """It was taken for an object that another deleted, and tried again for ever."""
    puts = []

    def no_bucket(*arguments, **keywords):
        puts.append(arguments)
        assert len(puts) < 10
        raise FileNotFoundError("no such bucket")

    monkeypatch.setattr(obstore, "put", no_bucket)
    with pytest.raises(FileNotFoundError):
        put_object(store, "orders", b"a", 1)
    assert len(puts) == 1


def test_metadata_of_the_writer_is_kept_beside_the_fence():
    store = MemoryStore()
    put_object(store, "orders", b"a", 1, attributes={"Content-Type": "text/csv"})
    assert obstore.get(store, "orders").attributes == {
        "Content-Type": "text/csv",
        "lifeguardfence": "1",
    }


def test_a_store_that_cannot_put_on_condition_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="LocalStore cannot put 'orders' on condition"):
        put_object(LocalStore(tmp_path), "orders", b"a", 1)
