"""No queue: the same work in a bare pool, as a ceiling: python pools_bare.py asyncio|threads|prefork COUNT SLOTS."""

import asyncio
import multiprocessing
import sys
from concurrent.futures import ThreadPoolExecutor

import pools_work


async def in_coroutines(numbers, slots):
    free = asyncio.Semaphore(slots)

    async def one(number):
        async with free:
            await pools_work.wait(number)

    await asyncio.gather(*(one(number) for number in numbers))


def in_threads(numbers, slots):
    with ThreadPoolExecutor(slots) as pool:
        list(pool.map(pools_work.sleep, numbers))


def in_processes(numbers, slots):
    context = multiprocessing.get_context("fork")
    begin = context.Barrier(slots)

    def work(mine):
        begin.wait()
        for number in mine:
            pools_work.compute(number)

    processes = [context.Process(target=work, args=(numbers[slot::slots],)) for slot in range(slots)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()


def main():
    way, numbers, slots = sys.argv[1], range(int(sys.argv[2])), int(sys.argv[3])
    if way == "asyncio":
        asyncio.run(in_coroutines(numbers, slots))
    else:
        {"threads": in_threads, "prefork": in_processes}[way](numbers, slots)


main()
