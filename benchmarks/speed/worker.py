"""Measure one system in its own process: cold start, speed and memory.

Usage: python worker.py TASK.json   (started by contest.py and peers.py; prints one line of JSON)

Every system only imports what it needs, so that start-up time and memory are its own. Other systems are used as
their users would, without this package.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Run = Callable[[Mapping[str, Any]], None]
"""Answers all pairs of a workload: its "sentences", or its "prompts" for prompted systems."""


class Process:
    """Records the duration of each stage, and the number of computed tokens, padding included.

    A system that finds the entities itself sets `pairs`, the number that it scored.
    """

    def __init__(self, task: Mapping[str, Any]) -> None:
        self.task = task
        self.tokens = 0
        self.pairs: int | None = None
        self.marks: dict[str, float] = {}
        self.cpu_marks: dict[str, float] = {}
        self._last, self._last_cpu = task["started"], 0.0

    def mark(self, stage: str) -> None:
        """Record the end of a stage; "import" starts with the process."""
        now, cpu = time.time(), time.process_time()
        self.marks[stage], self.cpu_marks[stage] = now - self._last, cpu - self._last_cpu
        self._last, self._last_cpu = now, cpu

    def count_packed(self, decoder: Any) -> None:
        """Count the tokens that go into a decoder of ours."""
        forward = decoder.forward

        def counting(packed: Any, *args: Any) -> Any:
            self.tokens += len(packed.tokens)
            return forward(packed, *args)

        decoder.forward = counting

    def count(self, module: Any) -> None:
        """Count the tokens that go into a torch module."""

        def hook(module: Any, args: tuple, kwargs: dict[str, Any]) -> None:
            given = [*args, kwargs.get("input_ids"), kwargs.get("inputs_embeds")]
            tensor = next(one for one in given if one is not None)
            self.tokens += tensor.shape[0] * tensor.shape[1]

        module.register_forward_pre_hook(hook, with_kwargs=True)


def ours(process: Process) -> Run:
    """Run packed label scoring with a cached instruction."""
    from spacy_slmre.models.causal_lm.model import make_small_lm
    from spacy_slmre.schema import LabelSchema
    from speed.workload import make_instances

    process.mark("import")
    task = process.task
    schema = LabelSchema.from_labels(task["labels"], task["negative"])
    lm = make_small_lm(base=task["base"], adapter=None, dtype=task["dtype"], device=task["device"]).load()
    process.mark("load")
    process.count_packed(lm.decoder)
    return lambda work: lm.top_k(make_instances(work["sentences"]), schema)


def generate(process: Process) -> Run:
    """Run Hugging Face `generate`: one prompt per pair, greedy, sorted by length, left-padded."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    process.mark("import")
    task = process.task
    tokenizer = AutoTokenizer.from_pretrained(task["plain"], padding_side="left")
    network = AutoModelForCausalLM.from_pretrained(task["plain"], dtype=getattr(torch, task["dtype"]))
    network = network.to(task["device"]).eval()
    process.mark("load")
    process.count(network.get_decoder())

    def run(work: Mapping[str, Any]) -> None:
        prompts = sorted(work["prompts"], key=len)
        for start in range(0, len(prompts), task["batch"]):
            batch = tokenizer(
                prompts[start : start + task["batch"]], return_tensors="pt", padding=True, add_special_tokens=False
            ).to(network.device)
            with torch.inference_mode():
                written = network.generate(
                    **batch, max_new_tokens=task["new_tokens"], do_sample=False, pad_token_id=tokenizer.eos_token_id
                )
            tokenizer.batch_decode(written[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)

    return run


def rel(process: Process) -> Run:
    """Run spacy-llm's REL task: one prompt per sentence, its relations generated as lines of JSON."""
    import spacy
    import spacy_llm  # noqa: F401
    import transformers  # noqa: F401

    from spacy_slmre.llm.hugging_face import HuggingFaceChat

    process.mark("import")
    task = process.task
    nlp = spacy.blank("en")
    model = {"@llm_models": "spacy-slmre.HuggingFace.v1", "base": task["plain"], "dtype": task["dtype"]}
    model |= {"device": task["device"], "batch_size": task["batch"]}
    labels = {"@llm_tasks": "spacy.REL.v1", "labels": task["labels"]}
    pipe = nlp.add_pipe("llm", config={"task": labels, "model": model})
    chat = pipe._model  # spacy-llm has no public name for it
    assert isinstance(chat, HuggingFaceChat)
    chat.load()
    process.mark("load")
    process.count(chat.load()[0].get_decoder())

    def run(work: Mapping[str, Any]) -> None:
        docs = [nlp.make_doc(sentence["text"]) for sentence in work["sentences"]]
        for doc, sentence in zip(docs, work["sentences"], strict=True):
            doc.ents = [doc.char_span(start, end, kind) for start, end, kind in sentence["mentions"]]
        chat.max_new_tokens = work["new_tokens"]
        list(nlp.pipe(docs, batch_size=task["batch"]))

    return run


def llama_cpp(process: Process) -> Run:
    """Run llama.cpp on the GGUF file; each prompt reuses what it shares with the previous one."""
    import llama_cpp

    process.mark("import")
    task = process.task
    if not task["repack"]:
        defaults = llama_cpp.llama_cpp.llama_model_default_params

        def params() -> Any:
            changed = defaults()
            changed.use_extra_bufts = False
            return changed

        llama_cpp.llama_cpp.llama_model_default_params = params
    llama = llama_cpp.Llama(
        task["gguf"],
        n_ctx=2048,
        n_threads=task["threads"],
        n_threads_batch=task["threads"],
        n_gpu_layers=0 if task["device"] == "cpu" else -1,
        verbose=False,
    )
    process.mark("load")
    evaluate = llama.eval

    def counting(tokens: list[int]) -> None:
        process.tokens += len(tokens)
        evaluate(tokens)

    llama.eval = counting

    def run(work: Mapping[str, Any]) -> None:
        for prompt in work["prompts"]:
            llama.create_completion(prompt, max_tokens=task["new_tokens"], temperature=0.0)

    return run


def encoder(process: Process) -> Run:
    """Run our encoder classifier with a new head, in torch or OpenVINO, with markers in the text or after it."""
    from spacy_slmre.models.encoder.model import make_encoder_classifier
    from spacy_slmre.schema import LabelSchema
    from speed.workload import make_instances

    process.mark("import")
    task = process.task
    schema = LabelSchema.from_labels(task["labels"], task["negative"])
    model = make_encoder_classifier(
        base=task["encoder"],
        dtype=task["dtype"],
        device=task["device"],
        runtime=task["runtime"],
        markers=task["markers"],
    )
    model.start(schema.names, ("PER", "LOC", "ORG"))
    model._scorer()
    process.mark("load")
    batches = model._batches

    def counting(*args: Any) -> Any:
        for rows, inputs in batches(*args):
            # Token ids; with levitated markers, the new token of each token.
            process.tokens += inputs[2 if task["markers"] == "levitated" else 0].numel()
            yield rows, inputs

    model._batches = counting  # type: ignore[method-assign]
    return lambda work: model.top_k(make_instances(work["sentences"]), schema)


def classification(process: Process) -> Run:
    """Run a Hugging Face text-classification pipeline on the same encoder, with markers around the pair."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline
    from transformers.utils import logging

    process.mark("import")
    task = process.task
    logging.set_verbosity_error()  # the head is new on purpose
    network = AutoModelForSequenceClassification.from_pretrained(
        task["encoder"], num_labels=len(task["labels"]), dtype=getattr(torch, task["dtype"])
    )
    tokenizer = AutoTokenizer.from_pretrained(task["encoder"])
    classify = pipeline("text-classification", model=network, tokenizer=tokenizer, device=task["device"], batch_size=32)
    process.mark("load")
    process.count(network)

    def marked(sentence: Mapping[str, Any], pair: list[int]) -> str:
        text = sentence["text"]
        marks = list(zip((sentence["mentions"][place] for place in pair), ("@", "#"), strict=True))
        for (start, end, kind), mark in sorted(marks, reverse=True):
            text = f"{text[:start]}{mark} * {kind} * {text[start:end]} {mark}{text[end:]}"
        return text

    def run(work: Mapping[str, Any]) -> None:
        texts = [marked(sentence, pair) for sentence in work["sentences"] for pair in sentence["pairs"]]
        classify(sorted(texts, key=len), truncation=True)

    return run


def glirel(process: Process) -> Run:
    """Run GLiREL with all labels in its prompt; it scores all pairs of a sentence together."""
    import torch
    from glirel import GLiREL

    from speed.random_weights import make_glirel

    process.mark("import")
    task = process.task
    published = task["glirel"]
    model = GLiREL.from_pretrained(published) if published else make_glirel(task["encoder"], task["size"])
    model = model.to(task["device"]).eval()
    process.mark("load")
    process.count(model.token_rep_layer.bert_layer.model)

    def run(work: Mapping[str, Any]) -> None:
        for sentence in work["sentences"]:
            words, spans = split(sentence)
            with torch.inference_mode():
                model.predict_relations(words, task["labels"], threshold=0.0, ner=spans, top_k=1)

    def split(sentence: Mapping[str, Any]) -> tuple[list[str], list[list[Any]]]:
        """Return words, and mentions as [first word, last word, type, text]."""
        text, words, spans, position = sentence["text"], [], [], 0
        for start, end, kind in sentence["mentions"]:
            words += text[position:start].split()
            name = text[start:end].split()
            spans.append([len(words), len(words) + len(name) - 1, kind, text[start:end]])
            words += name
            position = end
        return words + text[position:].split(), spans

    return run


def component(process: Process) -> Run:
    """Run our component in a spaCy pipeline, with given entities or after spaCy's NER."""
    import spacy

    from spacy_slmre.pipeline.relation_extractor import RelationExtractor

    process.mark("import")
    task = process.task
    nlp = spacy.load(task["ner"], enable=["tok2vec", "ner"])
    model = {"dtype": task["dtype"], "device": task["device"], **task["model"]}
    pipe = nlp.add_pipe(task["component"], config={"model": model})
    assert isinstance(pipe, RelationExtractor)

    def set_labels(labels: list[str]) -> None:
        if labels != [name for name in pipe.labels if name != task["negative"]]:
            pipe.set_schema(labels)
            if task["component"] == "rel_classifier":
                pipe.model.start(pipe.schema.names, task["types"])  # type: ignore[attr-defined]
            pipe.load()

    set_labels(task["first"]["labels"])
    process.mark("load")

    def run(work: Mapping[str, Any]) -> None:
        set_labels(work["labels"])
        if work["given"]:
            docs = list(pipe.pipe(entities(nlp.make_doc(one["text"]), one) for one in work["sentences"]))
        else:
            docs = list(nlp.pipe(one["text"] for one in work["sentences"]))
        process.pairs = sum(doc._.relations_report["scored"] for doc in docs)

    def entities(doc: Any, sentence: Mapping[str, Any]) -> Any:
        doc.ents = [doc.char_span(*mention) for mention in sentence["mentions"]]
        return doc

    return run


def gliner2(process: Process) -> Run:
    """Run GLiNER2 or GLiNER2.5, which find the arguments of all labels themselves."""
    from gliner2 import AutoExtractor

    process.mark("import")
    task = process.task
    model = AutoExtractor.from_pretrained(task["weights"], map_location=task["device"]).eval()
    process.mark("load")
    process.count(model.encoder)
    # No score exceeds 1: random weights would find hundreds of relations, and writing them takes time.
    return lambda work: model.batch_extract_relations(
        [one["text"] for one in work["sentences"]], work["labels"], threshold=1.0
    )


def relex(process: Process) -> Run:
    """Run GLiNER-Relex, which finds entities and their relations; given entities only limit what it returns."""
    from functools import partial

    from gliner import GLiNER

    process.mark("import")
    task = process.task
    model = GLiNER.from_pretrained(task["weights"], local_files_only=True, map_location=task["device"])
    # Random weights would find hundreds of entities: keep as many as the sentences have.
    core = model.model
    core.select_span_target_embedding = partial(core.select_span_target_embedding, top_k=task["entities"])
    process.mark("load")
    process.count(core.token_rep_layer)

    def run(work: Mapping[str, Any]) -> None:
        spans = [[{"start": start, "end": end} for start, end, _ in one["mentions"]] for one in work["sentences"]]
        model.inference(
            [one["text"] for one in work["sentences"]],
            task["types"],
            work["labels"],
            relation_threshold=1.0,
            input_spans=spans if work["given"] else None,
        )

    return run


def rebel(process: Process) -> Run:
    """Run REBEL: it generates the triplets of its own labels with three beams."""
    import torch
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    process.mark("import")
    task = process.task
    tokenizer = AutoTokenizer.from_pretrained(task["weights"])
    model = AutoModelForSeq2SeqLM.from_pretrained(task["weights"]).to(task["device"]).eval()
    process.mark("load")

    def run(work: Mapping[str, Any]) -> None:
        texts = [one["text"] for one in work["sentences"]]
        batch = tokenizer(texts, return_tensors="pt", padding=True).to(task["device"])
        length = task["new_tokens"]
        with torch.inference_mode():
            written = model.generate(
                batch["input_ids"],
                attention_mask=batch["attention_mask"],
                min_new_tokens=length,
                max_new_tokens=length,
                num_beams=3,
                length_penalty=0.0,
            )
        tokenizer.batch_decode(written)

    return run


SYSTEMS: dict[str, Callable[[Process], Run]] = {
    "ours": ours,
    "generate": generate,
    "rel": rel,
    "llama_cpp": llama_cpp,
    "encoder": encoder,
    "classification": classification,
    "glirel": glirel,
    "component": component,
    "gliner2": gliner2,
    "relex": relex,
    "rebel": rebel,
}


def peak_memory() -> float:
    """Return the peak resident memory of this process in GB.

    On Linux `getrusage` would include the memory of the process that started this one.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text(encoding="utf-8").split("VmHWM:")[1].split()[0]) * 1024 / 1e9
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def measure(task: Mapping[str, Any]) -> dict[str, Any]:
    """Start the system, answer one pair, and then each workload of the task."""
    process = Process(task)
    run = SYSTEMS[task["system"]](process)
    run(task["first"])
    process.mark("first")
    works = {}
    for name, work in task["works"].items():
        if "warm_up" in work:
            run(work["warm_up"])
        process.tokens, started, cpu = 0, time.perf_counter(), time.process_time()
        run(work)
        works[name] = {
            "seconds": time.perf_counter() - started,
            "cpu_seconds": time.process_time() - cpu,
            "sentences": len(work["sentences"]),
            "pairs": process.pairs or sum(len(sentence["pairs"]) for sentence in work["sentences"]),
            "tokens": process.tokens,
        }
    result = {"cold": process.marks, "cpu_cold": process.cpu_marks, "works": works, "peak_gb": peak_memory()}
    if task["device"].startswith("cuda") and "torch" in sys.modules:
        result["peak_gpu_gb"] = sys.modules["torch"].cuda.max_memory_allocated() / 1e9
    return result


if __name__ == "__main__":
    # The package of the benchmark is one folder up.
    sys.path[0] = str(Path(__file__).parent.parent)
    print(json.dumps(measure(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))))
