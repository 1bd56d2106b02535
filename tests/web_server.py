"""A web server for tests: the files of a folder, on this machine only.

with web_server.serve(folder) as web:
    urllib.request.urlopen(web.url + "/index.json")
    assert web.asked == ["/index.json"]
"""

import contextlib
import functools
import http.server
import threading

JOIN_TIMEOUT_S = 20


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass

    def do_GET(self):
        self.server.asked.append(self.path)
        target = self.server.moved.get(self.path)
        if target is None:
            return super().do_GET()
        self.send_response(302)
        self.send_header("Location", target)
        self.end_headers()


@contextlib.contextmanager
def serve(folder):
    """Serve a folder by HTTP.

    Yields an object with `url` (without "/" at its end) and `port`; `asked`, the paths that were
    asked for; `moved`, path -> URL of what is elsewhere, to be filled in.
    """
    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.asked = []
        server.moved = {}
        server.port = server.server_address[1]
        server.url = "http://127.0.0.1:%d" % server.port
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join(JOIN_TIMEOUT_S)
