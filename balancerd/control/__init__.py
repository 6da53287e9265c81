"""How the daemon is asked and told: HTTP/JSON over a unix socket, and /metrics and health over TCP.

state    what the last ticks left to be told: a sink
api      the answers, pure: from the state to dicts; the module documents them
job_api  those about jobs and moves; workload_api: those about workloads, and the live view;
         heat_api: that about one address space; stream_api: ticks as they end
operator_api  what operators switch, and advice on placement; lease_book: the leases on it
openapi  the document of all that: operations is the table, with asked_schemas of what is taken, and told_shapes and
         order_shapes (written as shapes has it) of what is answered
requests what comes in with a POST, taken apart strictly
bodies   how they are read, within bounds
access   who may ask, by credentials, which the kernel tells
app      the WSGI application of the API: paths, methods, status codes; metrics_app: the open one; answers: their form
server   the listeners: each a door, where callers are heard until their requests are whole, and a crew that answers by
         turns, within an allowance of CPU time; an exchange is a request with its answer. listening: the sockets;
         taking, lasting: answers that do not end
client   the other end, for balancerctl; standard library only

Nothing is imported here, so that `balancerd.control.client` stays light.
"""
