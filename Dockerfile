# syntax=docker/dockerfile:1
# Two serving images, with service/ and protos/ only:
#   docker build --target cpu -t graft:cpu .     CPU hosts: OpenVINO
#   docker build --target gpu -t graft:gpu .     GPU hosts: TensorFlow with CUDA
#   docker run --init --stop-timeout 40 -p 8501:8501 -p 8500:8500 -v "$PWD/models:/models:ro" graft:cpu
#   docker run --init --stop-timeout 40 --gpus all -p 8501:8501 -p 8500:8500 -v "$PWD/models:/models:ro" graft:gpu
ARG PYTHON=python:3.11-slim-bookworm

FROM ${PYTHON} AS environment-cpu
COPY locks/cpu.lock /tmp/cpu.lock
RUN python -m venv /srv/venv \
 && /srv/venv/bin/pip install --no-cache-dir --require-hashes --requirement /tmp/cpu.lock

FROM ${PYTHON} AS environment-gpu
COPY locks/gpu.lock /tmp/gpu.lock
RUN python -m venv /srv/venv \
 && /srv/venv/bin/pip install --no-cache-dir --require-hashes --requirement /tmp/gpu.lock

FROM ${PYTHON} AS base
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin graft
WORKDIR /srv/graft
COPY protos/ protos/
COPY service/ service/
ENV PATH=/srv/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    GRAFT_HOST=0.0.0.0 \
    GRAFT_MODELS=/models
USER graft
EXPOSE 8500 8501
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
  CMD ["python", "-c", "import http.client, os; front = http.client.HTTPConnection('127.0.0.1', os.environ.get('GRAFT_HTTP_PORT', 8501)); front.request('GET', '/readyz'); raise SystemExit(front.getresponse().status != 200)"]
ENTRYPOINT ["python", "-m", "service"]

FROM base AS gpu
COPY --from=environment-gpu /srv/venv /srv/venv

# Last, so that it is what a plain `docker build` makes.
FROM base AS cpu
COPY --from=environment-cpu /srv/venv /srv/venv
