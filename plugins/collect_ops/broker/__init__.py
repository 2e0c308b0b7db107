"""RabbitMQ: topology, publishing with streamed confirms, taking messages. The only package that knows pika.

Promises: what `publish` calls confirmed has been confirmed by the broker and was routed to a queue; what is taken
is acked or returned by whoever took it. Messages carry ids; what they stand for is in PostgreSQL.
"""
