"""The files that nodes leave: what is noticed when somebody changes them, and what is kept with them."""

from __future__ import annotations

import os
import shutil

import duckdb
import pytest
from tests.integration.test_runner import SHOP, Workshop, ran, reasons_of

from seeknal.runner.outputs import OUTPUT_KEY, output_facts, output_path

ALTERED = {"transform.totals": "output altered"}


@pytest.fixture(params=["file", "database"])
def shop(request, tmp_path):
    workshop = Workshop(request.param, tmp_path)
    workshop.write(SHOP)
    return workshop


@pytest.fixture
def hashed(shop):
    shop.write({"seeknal_project.yml": "name: shop\nhash_outputs: true\n"})
    return shop


@pytest.fixture(params=["false", "true"], ids=["without hash", "with hash"])
def hash_or_none(request, shop):
    shop.write({"seeknal_project.yml": f"name: shop\nhash_outputs: {request.param}\n"})


def totals(shop):
    return output_path(shop.path, "transform.totals")


def later(path):
    """Let a file be an hour younger than it is."""
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 3_600_000_000_000))


def kept(shop) -> dict:
    with shop.open() as backend:
        return backend.get_latest_node_state("transform.totals", "success").metadata[OUTPUT_KEY]


def test_what_a_file_is_like_is_kept_with_the_success_that_left_it(shop):
    shop.run()
    stat = totals(shop).stat()
    assert kept(shop) == {"bytes": stat.st_size, "modified_ns": stat.st_mtime_ns}
    with shop.open() as backend:
        assert OUTPUT_KEY not in backend.get_latest_node_state("command.publish").metadata


def test_the_hash_is_kept_where_the_project_says_so(hashed):
    hashed.run()
    assert len(kept(hashed)["sha256"]) == 64


@pytest.mark.usefixtures("hash_or_none")
def test_a_file_of_the_same_size_with_other_bytes_is_computed_again(shop):
    shop.run()
    content = bytearray(totals(shop).read_bytes())
    content[len(content) // 2] ^= 1
    totals(shop).write_bytes(content)
    later(totals(shop))
    (why,) = reasons_of(shop).items()
    assert why[0] == "transform.totals"
    assert shop.rows("transform.totals") == [("north", 3), ("south", 4)]
    assert ran(shop.run()) == set()


@pytest.mark.usefixtures("hash_or_none")
def test_a_file_that_was_cut_short_is_computed_again(shop):
    shop.run()
    stat = totals(shop).stat()
    totals(shop).write_bytes(totals(shop).read_bytes()[:-10])
    os.utime(totals(shop), ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert ran(shop.run()) == {"transform.totals"}
    assert shop.rows("transform.totals") == [("north", 3), ("south", 4)]


def test_a_file_that_was_touched_is_computed_again(shop):
    shop.run()
    later(totals(shop))
    assert reasons_of(shop) == ALTERED
    assert ran(shop.run()) == set()


def test_a_file_that_was_touched_and_has_its_hash_is_left_alone(hashed):
    hashed.run()
    later(totals(hashed))
    assert ran(hashed.run()) == set()


@pytest.mark.usefixtures("hash_or_none")
def test_a_file_of_an_earlier_run_of_the_same_definition_is_not_taken_for_the_newest(shop):
    shop.run()
    older = shop.path / "older.parquet"
    shutil.copy2(totals(shop), older)
    later(totals(shop))  # so that the two differ in their times whatever the clock of the file system
    shop.run(full=True)
    shutil.copy2(older, totals(shop))
    assert reasons_of(shop) == ALTERED
    assert ran(shop.run()) == set()


def test_a_project_that_begins_to_keep_hashes_computes_nothing_again(shop):
    shop.run()
    shop.write({"seeknal_project.yml": "name: shop\nhash_outputs: true\n"})
    assert ran(shop.run()) == set()


def test_what_needs_a_file_that_was_computed_again_with_the_same_rows_is_left_alone(shop):
    shop.run()
    later(totals(shop))
    assert ran(shop.run()) == {"transform.totals"}


def test_a_store_that_kept_nothing_of_its_files_asks_the_files_themselves(shop):
    first = shop.run()
    with shop.open() as backend:
        for node_id in first.nodes:
            backend.set_node_state(first.run_id, node_id, metadata={OUTPUT_KEY: None})
    later(totals(shop))
    assert ran(shop.run()) == set()
    totals(shop).write_bytes(b"not Parquet")
    assert reasons_of(shop) == {"transform.totals": "output cannot be read"}


def test_what_a_file_says_is_read_whatever_the_program_around_does_with_duckdb(tmp_path):
    path = tmp_path / "a.parquet"
    with duckdb.connect() as connection:
        connection.execute(f"COPY (SELECT 1 AS x) TO '{path}' (FORMAT parquet, KV_METADATA {{fingerprint: 'f'}})")
    unfinished = duckdb.execute("FROM range(1000000)")
    assert unfinished.fetchone() == (0,)
    try:
        assert output_facts(path) == {"fingerprint": "f"}
    finally:
        unfinished.fetchall()
