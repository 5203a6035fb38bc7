"""RabbitMQ: messages in its queues, results as messages, and an exchange as the bus."""

from umbel.drivers.amqp.backend import AmqpBackend
from umbel.drivers.amqp.broker import AmqpBroker
from umbel.drivers.amqp.bus import AmqpBus

__all__ = ["AmqpBackend", "AmqpBroker", "AmqpBus"]
