"""`umbel migrate`."""

import pytest

from umbel.drivers.postgres.schema import migrations

NAMES = ", ".join(each.name for each in migrations())


def test_a_store_without_tables_has_nothing_to_migrate(project):
    project.project()
    said = project.umbel("-A", "proj", "migrate")
    assert said.returncode == 0, said.stderr
    assert [line.rpartition(": ")[2] for line in said.stdout.splitlines()] == ["nothing to migrate.", "nothing to migrate."]


@pytest.mark.postgres
def test_it_makes_the_tables_says_so_and_the_second_time_that_all_is_up_to_date(project, postgres_database):
    project.write(proj=f"from umbel import Celery\napp = Celery('proj', broker='{postgres_database}', backend='{postgres_database}')")
    first, second = (project.umbel("-A", "proj", "migrate") for _ in range(2))
    assert first.stdout.splitlines() == [
        f"broker {postgres_database}: carried out {NAMES}.",
        f"results {postgres_database}: up to date.",
    ], first.stderr
    assert [line.rpartition(": ")[2] for line in second.stdout.splitlines()] == ["up to date.", "up to date."]


@pytest.mark.postgres
def test_it_shows_the_sql_and_changes_nothing(project, postgres_database):
    project.write(proj=f"from umbel import Celery\napp = Celery('proj', broker='{postgres_database}', backend='{postgres_database}')")
    said = project.umbel("-A", "proj", "migrate", "--show-sql")
    assert said.stdout.count("CREATE TABLE umbel.owners") == 1, said.stderr
    assert "carried out" in project.umbel("-A", "proj", "migrate").stdout


@pytest.mark.postgres
def test_it_makes_the_tables_of_what_is_kept_beside_a_rabbitmq(project, postgres_database):
    made = "app = Celery('proj', broker='amqp://127.0.0.1:1//')"
    project.write(proj=f"from umbel import Celery\n{made}\napp.conf.umbel_state_url = '{postgres_database}'")
    said = project.umbel("-A", "proj", "migrate")
    assert said.stdout.splitlines()[0].endswith(f": carried out {NAMES}."), said.stderr
    assert "CREATE TABLE umbel.owners" in project.umbel("-A", "proj", "migrate", "--show-sql").stdout
