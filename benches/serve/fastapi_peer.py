"""The service that people write first: FastAPI around sentence-transformers, the same route and the same answer.

usage: MODEL=DIR THREADS=N uvicorn fastapi_peer:app --port 8092 --log-level warning
"""

import os

import torch
from fastapi import FastAPI
from pydantic import BaseModel
from sentence_transformers import SentenceTransformer

torch.set_num_threads(int(os.environ.get("THREADS", "2")))
# Weights that are stored in 16 bits would be multiplied in 16 bits, which is slower on processors.
model = SentenceTransformer(os.environ["MODEL"], device="cpu", model_kwargs={"dtype": torch.float32})
app = FastAPI()


class Request(BaseModel):
    inputs: str | list[str]


# Not `async`: FastAPI then runs it in its pool of threads, and other requests go on.
@app.post("/embed")
def embed(request: Request):
    texts = [request.inputs] if isinstance(request.inputs, str) else request.inputs
    return model.encode(texts, normalize_embeddings=True).tolist()
