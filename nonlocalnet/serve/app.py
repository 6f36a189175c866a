"""The page and its server; the only module that needs gradio."""

from __future__ import annotations

import asyncio
import logging
import socket
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from ..synthetic import CLASSES as REUNION
from ..synthetic import Reunion, draw_clip, write_clip
from . import markup
from .answer import Answer, answers
from .intake import Desk, FullError, check_picture, check_size, glance, inspect
from .limits import Limits
from .live import EVERY, Watched, follow
from .networks import Served

try:
    import gradio as gr
    import uvicorn
    from fastapi import FastAPI, Request
    from fastapi.concurrency import run_in_threadpool
    from fastapi.responses import PlainTextResponse, Response
    from starlette.requests import ClientDisconnect
    from starlette.types import ASGIApp, Message, Receive, Scope, Send
except ImportError as error:
    raise ImportError('the web app needs gradio: pip install "nonlocalnet[demo]"') from error

HERE = Path(__file__).parent
KEPT = 8  # visitors whose last answer gradio keeps in memory; its default is 10,000
SWEEP = 20.0  # seconds between two looks for what nobody asked about
SYSTEM = ("system-ui", "sans-serif")
# what the browser may load: nothing from elsewhere, whatever a page or a library asks for
POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'self';"
    " form-action 'self'; base-uri 'self'"
)
HEAD = """<div class="nl nl-head"><h1>What happens in this video?</h1>
<span class="nl-faint">A non-local network says what it is, when, and what it looks at. Videos go
to this server alone, and are deleted once they are answered.</span></div>"""
AGAIN = "() => dispatchEvent(new Event('nl-again'))"


class Host:
    """Networks, limits, and the one thread in which they work, whoever asks.

    One, so that the memory that allocators keep for each thread is there once.
    """

    def __init__(self, served: Sequence[Served], desk: Desk) -> None:
        self.served = {one.name: one for one in served}
        self.desk, self.limits = desk, desk.limits
        self.worker = ThreadPoolExecutor(1)

    @property
    def examples(self) -> bool:
        """Whether clips of the embedded data set mean something here."""
        return any(one.telling.classes == REUNION for one in self.served.values())

    def ask(self, token: str, name: str) -> Iterator[tuple[Any, ...]]:
        """What the four parts of the page show, again and again, of a video that was sent."""
        try:
            with self.desk.take(str(token)) as path:
                info = self.worker.submit(inspect, path, self.limits).result()
                work = answers(self._network(name), path, info)
                before: tuple[str | None, ...] = (None,) * 4  # what is shown is of another video
                while answer := self.worker.submit(next, work, None).result():
                    parts = _parts(answer)
                    yield tuple(  # what stays as it is need not be sent again
                        new if new != old else gr.skip()
                        for new, old in zip(parts, before, strict=True)
                    )
                    before = parts
        except UserError as error:
            yield _trouble(str(error)), "", "", ""
        except CancelledError:
            return  # the server ends
        except Exception:  # the page says so, the next visitor is answered
            traceback.print_exc()
            yield _trouble("something broke here; the server's log says what"), "", "", ""

    def look(
        self, picture: NDArray[np.uint8] | None, name: str, watched: Watched | None
    ) -> tuple[str, Watched | None]:
        """What the page shows of a camera, and what is kept until its next picture."""
        if picture is None:
            return "", None
        now = time.monotonic()
        try:
            check_picture(picture.shape[1], picture.shape[0], self.limits)
            served = self._network(name)
            watched = self.worker.submit(follow, served, picture, now, watched).result()
            return _framed(markup.seen(served, watched)), watched
        except UserError as error:
            return _trouble(str(error)), None

    def _network(self, name: str) -> Served:
        if name not in self.served:
            raise UserError(f"there is no network {name!r} here; choose one of the list")
        return self.served[name]

    def about(self, name: str) -> str:
        """What a network is, as long as there is no answer of it."""
        return _framed(markup.about(self._network(name)))


def _framed(part: str) -> str:
    return f'<div class="nl">{part}</div>'


def _trouble(sentence: str) -> str:
    return _framed(markup.trouble(sentence))


def _parts(answer: Answer) -> tuple[str, str, str, str]:
    saves = markup.files(answer) if answer.pictures or answer.missing else ""
    parts = (markup.verdict(answer), markup.when(answer), markup.where(answer), saves)
    verdict, when, where, save = map(_framed, parts)
    return verdict, when, where, save


def build(host: Host) -> gr.Blocks:
    """The page: a video, or a camera."""
    names, limits = list(host.served), host.limits
    drop, script = ((HERE / name).read_text("utf-8") for name in ("page.html", "page.js"))
    drop = drop.format(
        megabytes=limits.megabytes,
        seconds=limits.seconds,
        examples="" if host.examples else " hidden",
    )
    with gr.Blocks(analytics_enabled=False, title="nonlocalnet") as page:
        gr.HTML(HEAD)
        network = gr.Dropdown(names, value=names[0], label="Network", interactive=len(names) > 1)
        with gr.Tab("A video"):
            with gr.Row():
                with gr.Column(min_width=300):
                    chosen = gr.HTML("", html_template=drop, js_on_load=script)
                with gr.Column(min_width=300):
                    verdict, when = gr.HTML(host.about(names[0])), gr.HTML("")
            parts = [verdict, when, gr.HTML(""), gr.HTML("")]
        with gr.Tab("Live"), gr.Row():
            with gr.Column(min_width=300):
                camera = gr.Image(
                    sources=["webcam"], streaming=True, type="numpy", label="Camera",
                    webcam_options=gr.WebcamOptions(
                        mirror=False, constraints={"video": {"width": {"ideal": 640}}}
                    ),
                )  # fmt: skip
            with gr.Column(min_width=300):
                said = gr.HTML('<p class="nl-faint">Start the camera, then press record.</p>')
                watched = gr.State(None)
        chosen.submit(
            host.ask, [chosen, network], parts, concurrency_limit=1, api_name="answer",
            show_progress_on=verdict, trigger_mode="multiple",
        )  # fmt: skip
        network.change(host.about, network, verdict, queue=False, show_progress="hidden").then(
            None, js=AGAIN
        )
        camera.stream(
            host.look, [camera, network, watched], [said, watched], stream_every=EVERY,
            time_limit=limits.turn, concurrency_limit=limits.viewers, show_progress="hidden",
            api_visibility="private",
        )  # fmt: skip
    page.queue(max_size=limits.waiting + limits.viewers)
    page.state_session_capacity = KEPT + limits.viewers  # a camera's visitor is always a late one
    return page


def application(host: Host) -> FastAPI:
    """The server: the page, where videos are sent, and an example where there is one."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.post("/clip")
    async def clip(request: Request) -> Response:
        try:
            return PlainTextResponse(await _receive(request, host.desk))
        except FullError as error:
            return PlainTextResponse(f"{error}.", 503)
        except UserError as error:
            return PlainTextResponse(f"{error}.", 400)
        except ClientDisconnect:
            return Response(status_code=400)

    @app.post("/gradio_api/upload")
    def elsewhere() -> Response:
        return PlainTextResponse("Videos are sent to /clip.", 404)

    @app.get("/example")
    def example(number: int = 0) -> Response:
        if not host.examples:
            return Response(status_code=404)
        return Response(_example(host.desk, number), media_type="video/mp4")

    theme = gr.themes.Default(
        primary_hue="blue", font=SYSTEM, font_mono=("ui-monospace", "monospace")
    )
    style = (HERE / "page.css").read_text("utf-8")
    gr.mount_gradio_app(
        app, build(host), "/", theme=theme, css=style, footer_links=[],
        run_history=False, enable_monitoring=False, mcp_server=False, ssr_mode=False, pwa=False,
        show_error=False, max_file_size=1,
    )  # fmt: skip
    app.add_middleware(Guarded)
    return app


async def _receive(request: Request, desk: Desk) -> str:
    """Write the body of a request to the desk; its token there. Raises `UserError`."""
    if "x-clip" not in request.headers:  # a browser lets no page of another site send it
        raise UserError("videos are sent by this server's own page")
    claimed = request.headers.get("content-length", "")
    check_size(int(claimed) if claimed.isdecimal() else 0, desk.limits)
    with desk.place(unquote(request.headers["x-clip"])) as (token, path):
        size = 0
        try:
            async with asyncio.timeout(desk.limits.patience):
                with path.open("wb") as file:
                    async for piece in request.stream():
                        size += len(piece)
                        check_size(size, desk.limits)
                        await run_in_threadpool(file.write, piece)
        except TimeoutError:
            raise UserError(f"it took longer than {desk.limits.patience:g} s to send") from None
        await run_in_threadpool(glance, path, desk.limits)
    return token


def _example(desk: Desk, number: int) -> bytes:
    with tempfile.TemporaryDirectory(dir=desk.folder) as folder:
        path = Path(folder) / "example.mp4"
        write_clip(path, draw_clip(Reunion(), 0, "test", number % 1000).frames)
        return path.read_bytes()


class Guarded:
    """Every answer tells the browser to load nothing from elsewhere."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                policy = (b"content-security-policy", POLICY.encode())
                message["headers"] = [*message.get("headers", ()), policy]
            await send(message)

        await self.app(scope, receive, guarded)


@contextmanager
def running(
    served: Sequence[Served],
    limits: Limits,
    folder: Path,
    host: str = "127.0.0.1",
    port: int = 0,
    root_path: str = "",
) -> Iterator[str]:
    """The server, in threads of its own, at the address that this gives; ends with the context.

    folder: for videos on their way, which is empty again in the end. port: 0 takes a free one.
    root_path: where a proxy puts it, such as /videos.

    Raises `UserError` for an address that cannot be listened at.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family)
    except OSError as error:
        raise UserError(
            f"{host} port {port} cannot be listened at ({error.strerror or error}); choose another"
            " --port or --host"
        ) from error
    desk, made = Desk(folder, limits), Future[uvicorn.Server]()
    asked = Host(served, desk)

    async def work() -> None:
        # made in here, where gradio finds an event loop, and leaves none of its own behind
        try:
            app = application(asked)
            made.set_result(_server(app, root_path))
        except BaseException as error:
            made.set_exception(error)
            return
        sweeping = asyncio.create_task(_sweep(desk))
        await made.result().serve(sockets=[listening])
        sweeping.cancel()

    thread = Thread(target=lambda: asyncio.run(work()), daemon=True)
    thread.start()
    server = made.result()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.05)
        shown = f"[{host}]" if ":" in host else host
        yield f"http://{shown}:{listening.getsockname()[1]}"
    finally:
        told = logging.getLogger("uvicorn.error")
        level = told.level
        told.setLevel(logging.CRITICAL)  # of those who still wait, whose connections end here
        server.should_exit = True
        thread.join(timeout=10)
        asked.worker.shutdown(cancel_futures=True)  # what is in work is finished
        told.setLevel(level)
        desk.clear()


def _server(app: FastAPI, root_path: str) -> uvicorn.Server:
    # whoever still waits for an answer when the server ends is not waited for
    config = uvicorn.Config(
        app, log_level="warning", timeout_graceful_shutdown=2, root_path=root_path
    )
    return uvicorn.Server(config)


async def _sweep(desk: Desk) -> None:
    while True:
        await asyncio.sleep(SWEEP)
        await run_in_threadpool(desk.sweep)
