# One image for the web server, the worker, Prefect's server and the set-up steps, so their versions are one.
# One stage: every locked package comes as a wheel, so there is no compiler to leave behind.
FROM python:3.11-slim

# PYTHONDONTWRITEBYTECODE: all bytecode is made below, at build time. At run time the code belongs to root and
# the file system may be read-only, so trying to write more would be work for nothing.
# PREFECT_*: the only files that are written at run time are below /tmp. Prefect would copy its dashboard into
# its own package otherwise, which only root may do.
ENV PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PYTHONPATH=/app \
    PREFECT_HOME=/tmp/prefect \
    PREFECT_SERVER_UI_STATIC_DIRECTORY=/tmp/prefect-ui \
    PREFECT_SERVER_ANALYTICS_ENABLED=false \
    PREFECT_SERVER_ALLOW_EPHEMERAL_MODE=false

RUN useradd --uid 10001 --user-group --no-create-home --home-dir /tmp --shell /usr/sbin/nologin tidings

WORKDIR /app

# --no-deps: the lock is complete (pip check says so), and pip before 24 cannot match hashes to `sqlalchemy[asyncio]`.
COPY requirements.txt ./
RUN pip install --no-cache-dir --disable-pip-version-check --root-user-action=ignore \
    --only-binary=:all: --no-deps --require-hashes -r requirements.txt && pip check

COPY deploy/image/tidings deploy/image/worker-lives /usr/local/bin/
COPY server.py ./
COPY tidings ./tidings
COPY flows ./flows
COPY tasks ./tasks
COPY campaigns ./campaigns
RUN python -m compileall -q .

USER 10001:10001
EXPOSE 8000

# The web server's; docker-compose.yml gives the other services their own.
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/health', timeout=4)"]

CMD ["uvicorn", "server:app", "--host", "0.0.0.0", "--port", "8000", "--workers", "4"]
