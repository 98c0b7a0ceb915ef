# One image, two commands:
#
#   docker build -t usher .
#   docker run ... usher receive     hears Whop
#   docker run ... usher work        acts
#
# deploy/compose.yaml runs both beside a Valkey. There is no embedded server and no test tool in
# the image: it is installed from requirements/production.txt, every package checked by its hash.

FROM python:3.12-slim AS build

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ONLY_BINARY=:all:
RUN python -m venv /opt/usher
ENV PATH=/opt/usher/bin:$PATH

WORKDIR /src
COPY requirements/production.txt requirements/
RUN pip install --require-hashes -r requirements/production.txt

# What builds Usher itself is pinned as well; it stays behind in this stage.
RUN python -m venv /opt/builder \
 && printf '%s' 'setuptools==84.2.1 --hash=sha256:ca140b45d5325a9478f880e351484f62fef15f336462e449ca0c03c873d589c2' \
    > requirements/build.txt \
 && /opt/builder/bin/pip install --require-hashes -r requirements/build.txt
COPY pyproject.toml README.md LICENSE ./
COPY webhooks webhooks
COPY worker worker
RUN /opt/builder/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /dist . \
 && pip install --no-deps /dist/usher-*.whl \
 && python -m compileall -q /opt/usher/lib


FROM python:3.12-slim

# The files belong to root and the process does not: it cannot change itself. It writes nothing, so
# the file system may be read-only.
RUN groupadd --system --gid 10001 usher \
 && useradd --system --uid 10001 --gid usher --no-create-home --home-dir /nonexistent \
    --shell /usr/sbin/nologin usher
COPY --from=build /opt/usher /opt/usher
ENV PATH=/opt/usher/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    USHER_HOST=0.0.0.0 USHER_PORT=8000 USHER_RULES=/etc/usher/rooms.toml USHER_LOG=json

USER 10001:10001
WORKDIR /etc/usher
EXPOSE 8000
ENTRYPOINT ["usher"]
CMD ["--help"]
