import ast
from pathlib import Path

import pytest

from tests.bench.locality import matrix, postgres, redis
from tests.bench.locality.programs import PROGRAMS

CAPTURED = Path(__file__).parent / "captured"


def test_each_program_is_known_by_its_own_name() -> None:
    assert {name: program.name for name, program in PROGRAMS.items()} == {n: n for n in ("redis", "postgres", "numpy")}
    assert all(program.is_misplaced and program.mib and program.units_per_second for program in PROGRAMS.values())


@pytest.mark.parametrize("work", [4, 100, 1000, 12345])
def test_requests_and_transactions_are_split_at_three_quarters(work: int) -> None:
    first, rest = redis.batches(work)
    assert 2 * (first + rest) == work // 2 * 2
    assert abs(2 * first - 0.75 * work) <= 2
    first, rest = postgres.batches(work)
    assert postgres.CLIENTS * (first + rest) == work // postgres.CLIENTS * postgres.CLIENTS
    assert abs(postgres.CLIENTS * first - 0.75 * work) <= postgres.CLIENTS


def test_redis_stores_as_many_keys_as_fit_and_asks_for_all_of_them() -> None:
    assert redis.keys_of(128) == 119837
    words = redis.client_command(Path("/b/redis-benchmark"), Path("/f/socket"), 119837, 750)
    assert words[:3] == ["/b/redis-benchmark", "-s", "/f/socket"]
    options = dict(zip(words[3::2], words[4::2], strict=True))
    assert options == {
        "-t": "set,get",
        "-r": "119837",
        "-n": "750",
        "-d": "1000",
        "-c": "4",
        "-P": "8",
        "--precision": "3",
    }


def test_redis_writes_nothing_to_disk_and_listens_nowhere_but_in_its_folder() -> None:
    words = redis.server_command(Path("/f/redis-server"), Path("/f/socket"))
    assert dict(zip(words[1::2], words[2::2], strict=True)) == {
        "--port": "0",
        "--unixsocket": "/f/socket",
        "--save": "",
        "--appendonly": "no",
    }


def test_keys_that_hold_their_own_value_or_the_clients_are_right() -> None:
    assert redis.check("100\n60\n40\n0", 100) == "verified 100 keys, 40 of them set by the client"


@pytest.mark.parametrize("told", ["99\n60\n39\n1", "99\n60\n40\n0", "100\n60\n39\n1", "100\n100\n0\n0", "", "ERR no"])
def test_keys_that_are_wrong_or_missing_or_never_set_are_an_error(told: str) -> None:
    with pytest.raises(RuntimeError):
        redis.check(told, 100)


def test_postgres_gets_the_buffers_and_a_table_that_fits_them() -> None:
    words = postgres.server_command(Path("/p/postgres"), Path("/f/data"), Path("/f"), 96)
    assert words[:3] == ["/p/postgres", "-D", "/f/data"]
    settings = dict(word.partition("=")[::2] for word in words[4::2])
    assert settings["shared_buffers"] == "96MB"
    assert settings["unix_socket_directories"] == "/f"
    assert settings["listen_addresses"] == ""
    assert postgres.scale_of(96) == 6
    with pytest.raises(ValueError, match="16 MiB"):
        postgres.scale_of(15)


def test_pgbench_sums_the_same_rows_in_every_run_and_logs_each_sum() -> None:
    words = postgres.client_command(Path("/p/pgbench"), Path("/f/sum.sql"), 600_000, 75, Path("/f/latencies-2"))
    assert {"--file=/f/sum.sql", "--random-seed=1", "--transactions=75", "--client=1", "--log"} < set(words)
    assert "--define=accounts=600000" in words
    assert "--log-prefix=/f/latencies-2" in words
    assert words[-1] == "postgres"


def test_pgbench_tells_how_many_transactions_it_made() -> None:
    assert postgres.parse_processed((CAPTURED / "pgbench-15.20.txt").read_text(encoding="ascii")) == 40
    with pytest.raises(RuntimeError, match="refused"):
        postgres.parse_processed("pgbench: error: connection refused\n")


def test_the_sum_of_products_is_that_of_all_words_of_the_panels() -> None:
    vector = [column % matrix.FACTORS for column in range(matrix.COLUMNS)]

    def product(number: int) -> int:
        words = (place % matrix.PERIOD + number for place in range(matrix.ROWS * matrix.COLUMNS))
        return sum(word * vector[place % matrix.COLUMNS] for place, word in enumerate(words))

    assert matrix.expected_sum(0, 1, 2) == product(0)
    assert matrix.expected_sum(1, 3, 2) == product(1) + product(0) + product(1)


def test_the_jobs_figures_are_those_that_its_sum_is_expected_from() -> None:
    found: dict[str, object] = {}
    for node in ast.parse(matrix.SCRIPT.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple):
            names = [name.id for name in node.targets[0].elts if isinstance(name, ast.Name)]
            found.update(zip(names, ast.literal_eval(node.value), strict=True))
    assert found == {
        "ROWS": matrix.ROWS,
        "COLUMNS": matrix.COLUMNS,
        "PERIOD": matrix.PERIOD,
        "FACTORS": matrix.FACTORS,
    }


def test_the_job_tells_its_sum_and_the_time_of_each_product() -> None:
    assert matrix.parse_worked("worked 12345 100 250") == (12345, [100, 250])
    for line in ("", "worked", "ready"):
        with pytest.raises(RuntimeError):
            matrix.parse_worked(line)
