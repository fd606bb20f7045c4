"""The JSON API, and the files of the page, which uses nothing else.

    GET    /api/health            whether it runs, and how many places are free
    GET    /api/models            what can be chosen, and what is taken at most
    GET    /api/example/MODEL     an image to try
    POST   /api/predict           a form with an image: 202 and an ID
    GET    /api/result/ID         how far it is, then the numbers; ?wait=SECONDS answers when it has ended
    GET    /api/result/ID/FILE    label map, pictures, volume, everything as a zip
    DELETE /api/result/ID         forgets it at once

What is refused gets a 4xx and {"error": one line}, an image that turns out to be broken as the answer for its result.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, NoReturn

from fastapi import FastAPI, Query, Request, Response
from fastapi import Path as Place
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.staticfiles import StaticFiles

from medssl import __version__
from medssl.prediction.model import Model
from medssl.prediction.preview import RESEARCH, colour_of
from medssl.web.example import made_up
from medssl.web.limits import Limits, Refusal
from medssl.web.opening import TAKEN, open_case
from medssl.web.queue import Queue
from medssl.web.results import ENDED, Job, Results, State, discard
from medssl.web.upload import receive
from medssl.web.work import NAME, content, named

PAGE, VENDOR = Path(__file__).with_name("page"), Path(__file__).with_name("vendor")
LONGEST_WAIT = 30.0  # seconds
TIDY_S = 20.0
OPENED = 2  # uploads that are unpacked and looked at together
FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["image"],
                    "properties": {
                        "image": {"type": "string", "format": "binary", "description": TAKEN},
                        "model": {"type": "string", "description": "a name of /api/models; may be absent where there is one"},
                        "flips": {"type": "string", "enum": ["true", "false"], "description": "mean over flipped images"},
                    },
                }
            }
        },
    }
}


class Error(BaseModel):
    error: str


class Health(BaseModel):
    status: str
    version: str
    places: int
    free: int


class Label(BaseModel):
    index: int
    name: str
    colour: str


class Network(BaseModel):
    name: str
    task: str
    dims: int
    data: str
    channels: list[str]
    labels: list[Label]


class Models(BaseModel):
    models: list[Network]
    note: str
    takes: str
    most_bytes: int
    most_voxels: int


class Accepted(BaseModel):
    id: str
    result: str


class Answer(BaseModel):
    id: str
    model: str
    name: str
    state: State
    ahead: int
    windows: tuple[int, int] | None
    error: str | None
    warnings: list[str]
    found: dict[str, Any] | None
    files: dict[str, str]
    note: str


@dataclass(frozen=True)
class Service:
    """What the routes share."""

    models: Mapping[str, Sequence[Model]]
    limits: Limits
    queue: Queue
    results: Results
    example: Path | None = None
    opening: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(OPENED))


def application(service: Service) -> FastAPI:
    """The routes, the page's files, and what happens at the start and the end."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.queue.start()
        tidying = asyncio.create_task(tidy(service.results))
        yield
        tidying.cancel()
        service.queue.stop()
        discard(service.results.folder)

    app = FastAPI(
        title="medssl", version=__version__, description=RESEARCH, lifespan=lifespan,
        docs_url=None, redoc_url=None, openapi_url="/api/openapi.json",
    )  # fmt: skip
    for kind, handler in HANDLERS.items():
        app.add_exception_handler(kind, handler)
    add_routes(app, service)
    app.mount("/vendor", StaticFiles(directory=VENDOR))
    app.mount("/", StaticFiles(directory=PAGE, html=True))
    return app


def add_routes(app: FastAPI, service: Service) -> None:
    """The routes of the API."""
    failures: dict[int | str, dict[str, Any]] = {
        code: {"model": Error} for code in (400, 401, 403, 404, 408, 413, 415, 421, 422, 503)
    }
    known: dict[int | str, dict[str, Any]] = {code: failures[code] for code in (401, 404, 422)}

    @app.get("/api/health")
    def health() -> Health:
        """Whether the server runs, and how many more images it takes now."""
        state = "stopping" if service.queue.draining else "ok"
        places = service.limits.places
        return Health(status=state, version=__version__, places=places, free=places - service.queue.taken)

    @app.get("/api/models", responses={401: {"model": Error}})
    def models() -> Models:
        """The networks, and what the server takes at most."""
        found = [network(name, model[0]) for name, model in service.models.items()]
        limits = service.limits
        return Models(models=found, note=RESEARCH, takes=TAKEN, most_bytes=limits.body, most_voxels=limits.voxels)

    @app.get("/api/example/{model}", response_class=Response, responses=known)
    def example(model: str) -> Response:
        """An image that a network can be tried with."""
        chosen = chosen_model(service, model)
        if service.example is not None:
            name, image = service.example.name, service.example.read_bytes()
        else:
            name, image = made_up(chosen.geometry.spatial_dims, chosen.split.channels)
        return Response(image, media_type="application/octet-stream", headers=saved_as(name))

    @app.post("/api/predict", status_code=202, openapi_extra=FORM, responses=failures)
    async def predict(request: Request) -> Accepted:
        """Take an image; its result is found under the ID of the answer."""
        with service.queue.place() as hand_over:
            job = await asyncio.to_thread(service.results.new, asyncio.get_running_loop())
            try:
                await accept(request, job, service)
            except BaseException:
                await asyncio.to_thread(discard, job.folder)
                raise
            service.results.add(job)
            hand_over(job)
        return Accepted(id=job.id, result=f"/api/result/{job.id}")

    @app.get("/api/result/{id}", responses=known)
    async def result(id: str, response: Response, wait: Annotated[float, Query(ge=0, le=LONGEST_WAIT)] = 0) -> Answer:
        """How far an image is; 422 where it turned out to be no image that can be used."""
        job = service.results.get(id)
        if wait and job.state not in ENDED:
            await ended(job, wait)
        if job.state in ENDED:
            job.read = True
            if job.state != "done":
                response.status_code = 422 if job.state == "refused" else 503 if service.queue.draining else 500
        return answer(job, service.queue)

    @app.get("/api/result/{id}/{file}", response_class=FileResponse, responses=known)
    async def file(id: str, file: Annotated[str, Place(description="a key of `files`")]) -> Response:
        """A file of a result."""
        job = service.results.get(id)
        if file not in job.files:
            raise Refusal(404, "file: found none of this name, expected one of the result's files")
        if job.files[file].name != file:  # it lies in the zip
            return Response(
                await asyncio.to_thread(content, job, file), media_type=media(file), headers=saved_as(named(job, file))
            )
        return FileResponse(job.files[file], headers=saved_as(named(job, file)), media_type=media(file))

    @app.delete("/api/result/{id}", status_code=204, responses=known)
    async def forget(id: str) -> None:
        """Forget a result and its files; a prediction under way ends."""
        await asyncio.to_thread(service.results.forget, service.results.get(id))

    @app.api_route(
        "/api/{rest:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE"], include_in_schema=False, response_model=None
    )
    async def nothing(rest: str) -> NoReturn:
        raise Refusal(404, "path: found none of this name, expected one of /api/openapi.json")


async def accept(request: Request, job: Job, service: Service) -> None:
    """Receive and check the image of a job; raises Refusal."""
    try:
        upload = await receive(request, job.folder / NAME, service.limits)
    except ClientDisconnect:
        raise Refusal(400, "body: found no end of it, expected the client to stay") from None
    if upload.fields.get("flips", "false") not in ("true", "false"):
        raise Refusal(422, "flips: found another word, expected true or false")
    name = upload.fields.get("model") or (next(iter(service.models)) if len(service.models) == 1 else "")
    model = chosen_model(service, name)
    job.model, job.name, job.flips = name, upload.name, upload.fields.get("flips") == "true"
    async with service.opening:
        job.case = await asyncio.to_thread(open_case, model, upload, service.limits)


def chosen_model(service: Service, name: str) -> Model:
    if name not in service.models:
        raise Refusal(404, f"model: found none of this name, expected one of {', '.join(service.models)}")
    return service.models[name][0]


async def ended(job: Job, seconds: float) -> None:
    """Wait for the end of a job, at most so long."""
    try:
        async with asyncio.timeout(seconds):
            await job.ended.wait()
    except TimeoutError:
        pass


async def tidy(results: Results) -> None:
    """Remove old results for ever."""
    while True:
        await asyncio.sleep(TIDY_S)
        await asyncio.to_thread(results.tidy)


def network(name: str, model: Model) -> Network:
    """What a client sees of a network: nothing of its place on this machine."""
    labels = [Label(index=k, name=title, colour=colour(k, model)) for k, title in sorted(model.labels.items())]
    channels = list(model.split.modality.values())
    data = str(model.description["data"])
    return Network(
        name=name, task=model.task, dims=model.geometry.spatial_dims, data=data, channels=channels, labels=labels
    )  # fmt: skip


def colour(k: int, model: Model) -> str:
    return "#000000" if k == 0 and model.task == "segmentation" else colour_of(k + (model.task != "segmentation"))


def answer(job: Job, queue: Queue) -> Answer:
    """A job as its client sees it."""
    files = {name: f"/api/result/{job.id}/{name}" for name in (job.files if job.state == "done" else ())}
    return Answer(
        id=job.id, model=job.model, name=job.name, state=job.state, ahead=queue.ahead(job), windows=job.windows,
        error=job.error, warnings=job.warnings, found=job.found, files=files, note=RESEARCH,
    )  # fmt: skip


def saved_as(name: str) -> dict[str, str]:
    return {"Content-Disposition": f'attachment; filename="{name}"'}


def media(file: str) -> str:
    kinds = {".png": "image/png", ".json": "application/json", ".csv": "text/csv", ".tsv": "text/tab-separated-values"}
    return kinds.get(Path(file).suffix, "application/octet-stream")


async def _refused(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Refusal)
    return JSONResponse({"error": error.line}, error.status, error.headers)


async def _wrong_path(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": f"request: {str(error.detail).lower()}"}, error.status_code, error.headers)


async def _wrong_words(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    return JSONResponse({"error": f"{first['loc'][-1]}: {str(first['msg']).lower()}"}, 422)


HANDLERS: dict[type[Exception], Callable[[Request, Exception], Any]] = {
    Refusal: _refused,
    HTTPException: _wrong_path,
    RequestValidationError: _wrong_words,
}
