import time

from umbel.clock import Clock, SystemClock


def test_the_system_clock_shows_the_time_of_this_machine():
    clock: Clock = SystemClock()
    before = time.time()
    assert before <= clock.now() <= time.time()


def test_two_of_its_readings_never_go_back():
    clock = SystemClock()
    first = clock.monotonic(), clock.boottime()
    second = clock.monotonic(), clock.boottime()
    assert second[0] >= first[0]
    assert second[1] >= first[1]
