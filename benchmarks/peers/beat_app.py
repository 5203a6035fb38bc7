"""What `benchmarks/beat.py` lets run: an app without periodic tasks of its own; or one of Celery with as many as the environment says."""

import os

kind, url = os.environ["BENCH_KIND"], os.environ["BENCH_URL"]

if "DJANGO_SETTINGS_MODULE" in os.environ:
    import django

    django.setup()

if kind.startswith("umbel"):
    from umbel import Umbel

    app = Umbel("bench", broker=url)
else:
    from celery import Celery
    from celery.schedules import crontab

    app = Celery("bench", broker=url)
    app.conf.redbeat_redis_url = url
    app.conf.beat_max_loop_interval = 5  # as django-celery-beat has it: RedBeat's 300 s are how long an edit may wait
    idle, each = int(os.environ.get("BENCH_IDLE", "0")), int(os.environ.get("BENCH_EACH", "0"))
    if idle:
        night = [crontab(minute=minute, hour=3, day_of_month=29, month_of_year=2) for minute in range(60)]
        app.conf.beat_schedule = {
            **{f"idle{n}": {"task": "bench.nothing", "args": [f"idle{n}"], "schedule": night[n % 60]} for n in range(idle)},
            **{f"each{n}": {"task": "bench.nothing", "args": [f"each{n}"], "schedule": 1.0} for n in range(each)},
        }
