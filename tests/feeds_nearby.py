"""Servers on this machine that send video, as cameras and web servers do."""

from __future__ import annotations

import io
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
from PIL import Image
from video_files import HEIGHT, RATE, WIDTH, picture

Answer = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def serving(answer: Answer) -> Iterator[str]:
    """An HTTP server; `answer` sends what comes after the request. Yields its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """Whoever listened has gone."""

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def send_file(path: Path, ranges: bool = True) -> Answer:
    """The file whatever is asked for, from where it is asked for."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        data = path.read_bytes()
        start = int((handler.headers.get("Range") or "bytes=0-")[6:].split("-")[0])
        handler.send_response(206 if start else 200)
        if ranges:
            handler.send_header("Accept-Ranges", "bytes")
            handler.send_header("Content-Length", str(len(data) - start))
            if start:
                span = f"bytes {start}-{len(data) - 1}/{len(data)}"
                handler.send_header("Content-Range", span)
        handler.end_headers()
        handler.wfile.write(data[start:])

    return answer


def send_pictures(count: int, pause: float = 0.0) -> Answer:
    """Single JPEGs one after another, the way of cameras; each connection begins at 0."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "multipart/x-mixed-replace; boundary=next")
        handler.end_headers()
        for number in range(count):
            jpeg = io.BytesIO()
            Image.fromarray(picture(number)).save(jpeg, "JPEG", quality=95)
            head = f"--next\r\nContent-Type: image/jpeg\r\nContent-Length: {jpeg.tell()}\r\n\r\n"
            handler.wfile.write(head.encode() + jpeg.getvalue() + b"\r\n")
            handler.wfile.flush()
            time.sleep(pause)

    return answer


def rtp_packets(count: int) -> list[bytes]:
    """Pictures 0, 1, ... as JPEG over RTP (RFC 2435), made by FFmpeg."""
    packets = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as heard:
        heard.bind(("127.0.0.1", 0))
        heard.settimeout(0.5)
        address = f"rtp://127.0.0.1:{heard.getsockname()[1]}"
        with av.open(address, "w", format="rtp") as out:
            stream = out.add_stream(
                "mjpeg", rate=RATE, options={"huffman": "default", "qmin": "2", "qmax": "2"}
            )
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuvj420p"
            for number in range(count):
                out.mux(stream.encode(av.VideoFrame.from_ndarray(picture(number))))
                packets.append(heard.recv(65535))
    return packets


@contextmanager
def rtsp_camera(count: int) -> Iterator[str]:
    """A camera of RTSP 1.0 (RFC 2326) over TCP with `count` pictures for one caller."""
    packets = rtp_packets(count)
    about = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\nm=video 0 RTP/AVP 26\r\n"
    answers = {
        "OPTIONS": ("Public: OPTIONS, DESCRIBE, SETUP, PLAY", ""),
        "DESCRIBE": (f"Content-Type: application/sdp\r\nContent-Length: {len(about)}", about),
        "SETUP": ("Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1", ""),
        "PLAY": ("Session: 1", ""),
    }

    def serve(door: socket.socket) -> None:
        caller, _ = door.accept()
        door.close()
        with caller, caller.makefile("rb") as lines:
            asked = ""
            while asked != "PLAY":
                request = [line.decode().strip() for line in iter(lines.readline, b"\r\n")]
                asked = request[0].split()[0]
                (number,) = [line for line in request if line.lower().startswith("cseq")]
                head, body = answers[asked]
                caller.sendall(f"RTSP/1.0 200 OK\r\n{number}\r\n{head}\r\n\r\n{body}".encode())
            for packet in packets:
                caller.sendall(struct.pack(">cBH", b"$", 0, len(packet)) + packet)
                time.sleep(0.01)

    with socket.create_server(("127.0.0.1", 0)) as door:
        thread = threading.Thread(target=serve, args=(door,), daemon=True)
        thread.start()
        yield f"rtsp://127.0.0.1:{door.getsockname()[1]}/camera"
        thread.join(5)


@contextmanager
def piping(data: bytes) -> Iterator[io.TextIOWrapper]:
    """What `sys.stdin` is where these bytes come through a pipe."""
    reading, writing = os.pipe()

    def write() -> None:
        try:
            with os.fdopen(writing, "wb") as pipe:
                pipe.write(data)
        except BrokenPipeError:
            pass

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    with io.TextIOWrapper(os.fdopen(reading, "rb")) as pipe:
        yield pipe
    thread.join()
