"""Swagger UI: the API's documentation as a page that can call it. Everything it loads is served from here."""

from importlib.resources import files

from fastapi import APIRouter
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse

DOCS = "/docs"
_FILES = {
    f"{DOCS}/swagger-ui.js": "swagger-ui-bundle.js",
    f"{DOCS}/swagger-ui.css": "swagger-ui.css",
    f"{DOCS}/favicon.png": "favicon.png",
}
PATHS = frozenset({"/", DOCS, *_FILES})
_SCRIPT, _STYLE, _ICON = _FILES

router = APIRouter(include_in_schema=False)


@router.get("/")
async def root() -> RedirectResponse:
    """Whoever opens the API in a browser finds its documentation."""
    return RedirectResponse(DOCS)


@router.get(DOCS)
async def docs() -> HTMLResponse:
    """The page."""
    return get_swagger_ui_html(
        openapi_url="/openapi.json",
        title="Fraud scoring",
        swagger_js_url=_SCRIPT,
        swagger_css_url=_STYLE,
        swagger_favicon_url=_ICON,
        oauth2_redirect_url=None,
        swagger_ui_parameters={"validatorUrl": None},  # which would send the document elsewhere
    )


def _serve(path: str, name: str) -> None:
    file = str(files("fastapi_offline") / "static" / name)

    @router.get(path)
    async def part() -> FileResponse:
        return FileResponse(file, headers={"Cache-Control": "max-age=86400"})


for _path, _name in _FILES.items():
    _serve(_path, _name)
