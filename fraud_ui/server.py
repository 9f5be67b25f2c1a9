"""Server process of the desk: its own port, nothing loaded from elsewhere."""

import asyncio
import logging
import os
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import resources

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse, Response
from starlette.middleware.trustedhost import TrustedHostMiddleware

from fraud_core.access.addresses import must_authenticate
from fraud_core.access.api_keys import ApiKeys, KeyRing
from fraud_core.errors import SettingsError
from fraud_core.settings import Settings
from fraud_core.storage.database import open_database
from fraud_core.storage.schema import upgrade_at_start
from fraud_ui.services import Desk
from fraud_ui.sign_in import Door, token_of
from fraud_ui.uploads import add_file_routes
from fraud_ui.views.files import clear_folder

logger = logging.getLogger(__name__)

THREADS = 40
UNUSED = (
    "/gradio_api/proxy={rest:path}",
    "/gradio_api/stream/{rest:path}",
    "/gradio_api/process_recording",
    "/gradio_api/deep_link",
    "/gradio_api/{vibe:path}-edit",
    "/gradio_api/vibe-{rest:path}",
    "/gradio_api/profiling/{rest:path}",
    "/gradio_api/dev/{rest:path}",
    "/monitoring",
    "/monitoring/{rest:path}",
    "/login",
)


def must_sign_in(settings: Settings, host: str) -> bool:
    """Whether people sign in where the desk binds to this address.

    Raises:
        SettingsError: it would be open to whoever reaches an address that is not loopback.
    """
    asked = must_authenticate(settings.ui_auth, host)
    if asked is not None:
        return asked
    raise SettingsError(
        f"FRAUD_UI_AUTH=off on {host} would let everyone who reaches that address work as a lead. Let people sign in "
        "(FRAUD_UI_AUTH=users, `fraud users create`), or bind to 127.0.0.1."
    )


def create_app(desk: Desk) -> FastAPI:
    """The desk behind its door.

    Sets what Gradio reads from the environment; it must be called before anything imports Gradio.
    """
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1", "GRADIO_TEMP_DIR": str(desk.folder)}
    import gradio as gr  # noqa: PLC0415 - reads the environment when it is imported

    from fraud_ui.desk import build_ui  # noqa: PLC0415
    from fraud_ui.theme import theme  # noqa: PLC0415

    clear_folder(desk.folder)
    signs_in = desk.users is not None
    # With FRAUD_METRICS_ACCESS=key, as at the API: where people sign in, a program shows a key.
    asks_key = signs_in and desk.settings.metrics_access == "key"
    keys = KeyRing(ApiKeys.of(desk.settings)) if asks_key else None

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        desk.follower.start(desk.settings.poll_seconds)
        if keys is not None:
            keys.start()
        sweeping = asyncio.create_task(_sweep(desk))
        yield
        sweeping.cancel()
        desk.follower.stop()
        if keys is not None:
            keys.stop()

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/healthz")
    def healthz() -> PlainTextResponse:
        return PlainTextResponse("ok")

    @app.get("/metrics")
    def metrics(request: Request) -> Response:
        if keys is not None:
            scheme, _, token = request.headers.get("authorization", "").partition(" ")
            key = keys.holder_of(token.strip()) if scheme.lower() == "bearer" else None
            if key is None or not (key.allows("metrics") or key.allows("admin")):
                told = "Send a living API key of the scope `metrics` as `Authorization: Bearer ...`."
                return PlainTextResponse(told, 401, {"WWW-Authenticate": "Bearer"})
        return Response(desk.metrics.exposition(), media_type="text/plain; version=0.0.4; charset=utf-8")

    add_file_routes(app, desk.files, desk.settings)

    # Gradio's routes that this page needs not: they fetch addresses, take in files or show how it runs.
    for unused in UNUSED:
        app.add_api_route(unused, _nothing, methods=["GET", "HEAD", "POST"])

    def visit_of(request: Request) -> str | None:
        visit = desk.visits.of(token_of(request.headers))
        return visit.id if visit else None

    page = build_ui(desk).queue(default_concurrency_limit=THREADS)
    app.add_middleware(Door, visits=desk.visits, users=desk.users, visitor="" if signs_in else desk.somebody.name)
    if not signs_in:
        # Nobody signs in: a page elsewhere must not reach the desk under a name of its own that leads here.
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost", "[::1]"])
    mounted: FastAPI = gr.mount_gradio_app(
        app,
        page,
        path="/",
        auth_dependency=visit_of if signs_in else None,
        theme=theme(),
        # Not as `css`: Gradio rewrites that rule by rule, and loses every shorthand property that holds a var(). The three roots
        # lift our rules above Gradio's own.
        head=f"<style>:root:root:root {{\n{_text('style.css')}}}</style>\n{_text('head.html')}",
        footer_links=[],
        show_error=False,  # what a handler raises on purpose is shown all the same
        ssr_mode=False,
        max_file_size=desk.settings.max_upload,
    )
    return mounted


def _nothing() -> PlainTextResponse:
    return PlainTextResponse("There is nothing here.", 404)


async def _sweep(desk: Desk) -> None:
    """Remove files that nobody came back for."""
    while True:
        await asyncio.sleep(600)
        await asyncio.to_thread(desk.files.sweep)


def _text(name: str) -> str:
    return resources.files("fraud_ui").joinpath(name).read_text(encoding="utf-8")


def serve(settings: Settings, host: str | None = None, port: int | None = None) -> None:
    """Serve the desk until SIGTERM or Ctrl-C.

    Args:
        settings: all of it; host and port override what it says.
        port: 0 takes a free one; the log names it.

    Raises:
        SettingsError: the address cannot be bound, or would be open to everyone.
        SchemaError: a newer release upgraded the database.
    """
    host = settings.ui_host if host is None else host
    port = settings.ui_port if port is None else port
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", "'HTTP_422")  # Gradio's, with every click
    signs_in = must_sign_in(settings, host)
    upgrade_at_start(open_database(settings))
    desk = Desk.open(settings, signs_in=signs_in)
    config = uvicorn.Config(
        create_app(desk),
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=settings.ui_trusted_proxies != "",
        forwarded_allow_ips=settings.ui_trusted_proxies,
        timeout_graceful_shutdown=3,
    )
    try:
        socket = config.bind_socket()
    except SystemExit as error:
        raise SettingsError(f"{host}:{port} cannot be bound: it is taken, or not an address of this machine.") from error
    with_names = "people sign in" if signs_in else "nobody signs in"
    logger.info("analyst's desk on http://%s:%d, %s", host, socket.getsockname()[1], with_names)
    try:
        uvicorn.Server(config).run(sockets=[socket])
    except KeyboardInterrupt:
        pass  # uvicorn raises it again once everything is finished
    finally:
        socket.close()
