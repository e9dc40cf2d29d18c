"""Serving of a trained model over HTTP.

`app` builds the HTTP interface, which `server` runs with uvicorn. `batches` collects waiting requests into batches, and
`process` passes the batches to a child process. In the child process, `model` opens the session, and `requests` reads
and prepares the examples in the same way as ``harness predict``. The HTTP process never imports a framework.
"""
