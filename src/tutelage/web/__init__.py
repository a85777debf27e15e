"""The pages where people label: FastAPI, Jinja2, htmx; no torch and no build step."""

from tutelage.web.app import create_app

__all__ = ["create_app"]
