# A model over HTTP:  docker build -t vqkit .
#   docker run -p 8000:8000 -e VQKIT_TOKEN=... -v $PWD/runs/photos:/model:ro vqkit
FROM python:3.11-slim

RUN apt-get update \
    && apt-get install -y --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 vqkit

WORKDIR /opt/vqkit
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src src
RUN pip install --no-cache-dir torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu \
    && pip install --no-cache-dir -c constraints.txt '.[studio,fast,audio]'

USER vqkit
# Compiled kernels are kept there.
ENV NUMBA_CACHE_DIR=/home/vqkit/.cache/numba
EXPOSE 8000
HEALTHCHECK --start-period=180s CMD ["python", "-c", "import os, urllib.request as u; \
u.urlopen(u.Request('http://127.0.0.1:8000/health', headers={'authorization': 'Bearer ' + os.environ['VQKIT_TOKEN']}), timeout=5)"]
ENTRYPOINT ["vqkit", "serve", "/model", "--address", "0.0.0.0"]
