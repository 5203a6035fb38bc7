"""What the log says of an outage."""

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor

import pytest

from umbel.exceptions import BackendUnavailable, BrokerUnavailable
from umbel.execution.link import Link


@pytest.mark.parametrize(("exc", "server"), [(BrokerUnavailable, "broker"), (BackendUnavailable, "result backend")])
def test_an_outage_names_the_server_that_is_away_also_where_one_call_asks_two(caplog, exc, server):
    failing = [True]

    def follow_up():
        if failing.pop():
            raise exc("It does not answer.")

    async def outage():
        link = Link("result backend")
        with ThreadPoolExecutor(1) as io:
            with pytest.raises(exc):
                await link.call(io, "follow up", follow_up)
            failing.append(False)
            await link.call(io, "follow up", follow_up)

    with caplog.at_level(logging.INFO):
        asyncio.run(outage())
    lost, back = (record.getMessage() for record in caplog.records if record.name == "celery.worker.consumer")
    assert lost.startswith(f"consumer: Connection to {server} lost.")
    assert back.startswith(f"Connected to the {server} again")
