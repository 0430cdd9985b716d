"""The servers that other tests rely on: they answer, keep what they are given, and end."""

from tests import services


def test_postgres_makes_databases_and_ends():
    import psycopg2

    with services.postgres() as cluster:
        url = cluster.database()
        assert url != cluster.database()
        with psycopg2.connect(url) as connection, connection.cursor() as cursor:
            cursor.execute("create table t (x int); insert into t values (7); select x from t")
            assert cursor.fetchall() == [(7,)]
        connection.close()
        cluster.process.kill()
        cluster.process.start()
        port = cluster.process.port
    assert not services.is_open(port)


def test_s3_has_a_bucket_and_ends():
    with services.s3() as storage:
        storage._client().put_object(Bucket=storage.bucket, Key="a/b", Body=b"x")
        assert storage.keys() == ["a/b"] and storage.keys("c") == []
        assert services.is_healthy(storage.endpoint)
    assert not services.is_open(storage.process.port)
