"""How the daemon is asked and told: HTTP/JSON over a unix socket, and /metrics and health over TCP.

state    what the last ticks left to be told: a sink
api      the answers, pure: from the state to dicts; the module documents them
job_api  those about jobs and moves; workload_api: those about workloads, and the live view;
         heat_api: that about one address space
requests what comes in with a POST, taken apart strictly
access   who may ask: peer credentials
app      the two WSGI applications: paths, methods, status codes
server   the sockets and the threads behind them
client   the other end, for balancerctl; standard library only

Nothing is imported here, so that `balancerd.control.client` stays light.
"""
