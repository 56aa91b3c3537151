"""A tuning run: train an adapter as a config describes, and write a pipeline with its model card."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import spacy
from confection import Config
from jinja2 import Environment
from spacy.language import Language

from spacy_slmre.corpus.formats import all_formats
from spacy_slmre.corpus.label_sets import LabelSetReader
from spacy_slmre.instances import RelationInstance, describe_training_truncation
from spacy_slmre.models.base import RelationModel
from spacy_slmre.models.cascade import Cascade
from spacy_slmre.models.causal_lm.loading import check_architecture, resolve_quantization
from spacy_slmre.models.causal_lm.lora import LoraSettings, round_lora
from spacy_slmre.models.causal_lm.loss import as_batch
from spacy_slmre.models.causal_lm.model import SmallLM
from spacy_slmre.models.hub import DTYPES, has_gpu
from spacy_slmre.pipeline.fingerprint import pipeline_fingerprint
from spacy_slmre.pipeline.relation_extractor import RelationExtractor
from spacy_slmre.pipeline.settings import ExtractorSettings
from spacy_slmre.training.config import TrainingSettings, TuningConfig, TuningError
from spacy_slmre.training.data import PackedDataset, TrainingData, TuningSet, draw_examples, read_sets
from spacy_slmre.training.encoder import describe_shipped_encoder, load_shipped_encoder, train_encoder
from spacy_slmre.training.label_sampling import LabelSampler
from spacy_slmre.training.sampled_data import SampledDataset, describe_corpora, dev_sets
from spacy_slmre.training.trainer import SCORE, PackedTrainer, explain_out_of_memory, last_checkpoint, score_sets
from spacy_slmre.util.io import remove
from spacy_slmre.util.run_folder import METRICS_FILE, RUN_FILE, RunFolder, read_json
from spacy_slmre.util.system import ProcessGroup, hardware, peak_memory, versions

CONFIG_FILE = "tune.cfg"
# Number of sequences from which QERA estimates the inputs of each layer.
_QERA_SEQUENCES = 24
_NO_PROGRESS = nullcontext(lambda _: None)


def tune(
    config: TuningConfig,
    output: Path,
    *,
    overwrite: bool = False,
    log: Callable[[str], None] = print,
    progress: AbstractContextManager[Callable[[int], None]] = _NO_PROGRESS,
) -> dict[str, Any]:
    """Tune an adapter and write a pipeline with it.

    Repeating an interrupted run resumes it from its last checkpoint in `<output>.part`; repeating a complete run does
    nothing.

    Args:
        config: The config.
        output: Output folder, for the pipeline, `metrics.json`, `tune.cfg`, `run.json` and a model card.
        overwrite: Discard an interrupted run and replace an existing output.
        log: Reports progress.
        progress: Context manager that yields a function to show the number of documents read.

    Returns:
        The content of `metrics.json`.

    Raises:
        TuningError: The data cannot be used, the loss is not finite, or memory is insufficient.
        OutputError: The output exists and belongs to another run, or cannot be written.
    """
    processes = ProcessGroup.from_environment()
    model = config.model.settings
    inputs = [path for path in (model.base, model.adapter, config.tune.ner) if path is not None]
    with RunFolder(output, inputs=inputs, kind="folder", overwrite=overwrite, is_main=processes.is_main) as run:
        lm = _on_own_device(config.model, processes)
        # Check models before reading the corpora, which may take long.
        ner = None if config.tune.ner is None else pipeline_fingerprint(load_ner(config.tune.ner), config.tune.ner)
        base = lm.identity()
        check_architecture(lm.locate())
        encoder = describe_shipped_encoder() if config.encoder.weight else None
        log(f"Reading the corpora for {base.name} …")
        with progress as show:
            sets, sampler, described = _read_data(config, log, show)
        key: dict[str, Any] = {"config": config.text, "data": described, "base": base.to_dict()}
        # The files that the config names may change.
        key |= {"prompts": lm.style.to_dict(), "ner": ner}
        if lm.adapter is not None:
            key["adapter"] = lm.adapter.fingerprint
        if encoder is not None:
            if len(sets) > 1:
                raise TuningError("An encoder is trained on one label set: leave out [encoder], or set tune.schema.")
            key["encoder"] = encoder
        if processes.size > 1:
            key["processes"] = processes.size
        if run.completed(key) is not None:
            log(f"{output} is complete, with the same config, data and base model: nothing to do.")
            return read_json(output / METRICS_FILE)
        checkpoints = run.partial / "checkpoints"
        if last_checkpoint(checkpoints) is None:
            run.discard()  # there are no results to lose, so the run may also have another key
        run.begin(key)
        shots, seed = config.tune.shots, config.training.seed
        if examples := [example for data in sets for example in draw_examples(data, shots, seed)]:
            lm.set_prompt_style(replace(lm.style, examples=tuple(examples)))
        with run.explain_disk_errors():
            metrics = {
                **train_adapter(lm, sets, config.training, config.lora, checkpoints, sampler, log),
                "hardware": f"{hardware(lm.network.device)}, {lm.network.dtype}",
            }
            if processes.is_main:
                tuned: RelationModel = lm
                if config.encoder.weight:
                    tuned = _add_encoder(config, lm, sets[0], metrics, run.partial / "encoder", log)
                metrics["peak_memory_gb"] = peak_memory(lm.network.device)
                log("Writing the pipeline …")
                record = {"key": key, "versions": versions()}
                run.publish(_write_output(run.partial / "output", config, lm, tuned, sets, metrics, record))
        return metrics


def _read_data(
    config: TuningConfig, log: Callable[[str], None], progress: Callable[[int], None]
) -> tuple[list[TuningSet], LabelSampler | None, dict[str, Any]]:
    """Return the label sets to score, the label sampler if labels are random, and a description of all data."""
    if isinstance(config.train, LabelSetReader) and isinstance(config.dev, LabelSetReader):
        corpora, dev = config.train(), config.dev()
        for corpus in corpora:
            log(f"  {corpus.name}: {len(corpus.passages):,} training passages, {len(corpus.labels):,} labels")
        sets = dev_sets(dev, config.dev.max_pairs)
        for data in sets:
            log(f"  {data.name}: {len(data.dev):,} dev instances, {len(data.schema.positive_names):,} labels")
        assert config.sampling is not None
        described = {"train": describe_corpora(corpora), "dev": describe_corpora(dev)}
        return sets, LabelSampler(corpora, config.sampling), described
    sets = read_sets(config, log, progress)
    for data in sets:
        log(f"  {data.name}: {len(data.train):,} training and {len(data.dev):,} dev instances")
    return sets, None, {data.name: data.describe() for data in sets}


def train_adapter(
    lm: SmallLM,
    sets: Sequence[TuningSet],
    settings: TrainingSettings,
    lora: LoraSettings,
    folder: Path,
    sampler: LabelSampler | None = None,
    log: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Train a new adapter, or continue training the model's adapter; `lm.save` then saves it.

    Checkpoints are written to `folder`, and training resumes from the last one. With a `sampler`, training tasks have
    random labels, and only the dev instances of `sets` are used.

    Returns:
        "scores" on the dev sets after the adapter was rounded to its data type, "best_step" (whose weights were
        kept), "steps", "seconds" (including an interrupted run up to its last checkpoint), "tokens_per_epoch",
        "pairs_per_epoch", "truncated" (pairs with a truncated context), "skipped" (pairs that do not fit into a
        sequence) and "history" (logged metrics).

    Raises:
        TuningError: There are no training or dev instances, a loss is not finite, or memory is insufficient.
    """
    if not sets:
        raise TuningError("The training corpus has no annotated pairs.")
    for data in sets:
        for split, instances in (("training", data.train), ("dev", data.dev)):
            if not instances and (split == "dev" or sampler is None):
                raise TuningError(f"{data.name} has no {split} instances. Check the split in [corpora].")
    folder.mkdir(parents=True, exist_ok=True)
    is_new = lm.adapter is None
    schemas = {data.name: data.schema for data in sets} if sampler is None else {}
    peft_model = lm.begin_training(schemas, lora, seed=settings.seed)
    dataset: TrainingData
    if sampler is None:
        dataset = PackedDataset(lm, sets, settings, log)
    else:
        n_tasks = settings.max_steps * settings.gradient_accumulation_steps * ProcessGroup.from_environment().size
        dataset = SampledDataset(lm, sampler, sets, settings, n_tasks)
    if lora.init_lora == "qera" and is_new and not last_checkpoint(folder):
        order = np.random.default_rng(settings.seed).permutation(len(dataset))[:_QERA_SEQUENCES]
        remedy = 'Set lora.init_lora = "default", which does not need the base model in full precision.'
        with explain_out_of_memory("while LoRA weights were initialized", remedy):
            lm.init_lora_with_qera(as_batch(dataset.sequence(int(position))) for position in order)
    trainer = PackedTrainer(lm, dataset, settings, folder, model=peft_model)
    checkpointing = "" if settings.gradient_checkpointing else "set training.gradient_checkpointing = true, "
    remedy = f"To save memory, {checkpointing}lower training.max_tokens, or use a smaller base model."
    with explain_out_of_memory(f"during training with sequences of {settings.max_tokens} tokens", remedy):
        trainer.run()
    seconds = trainer.seconds
    dtype = DTYPES[settings.adapter_dtype]
    round_lora(lm.network, dtype)
    scores = trainer.scores()
    lm.export_adapter(dtype, threshold=scores["threshold"] if dataset.has_threshold else None)
    return {
        "scores": scores,
        "best_step": trainer.state.best_global_step or trainer.state.global_step,
        "steps": trainer.state.global_step,
        "seconds": seconds,
        **dataset.counts(),
        "history": trainer.state.log_history,
    }


def _add_encoder(
    config: TuningConfig,
    lm: SmallLM,
    data: TuningSet,
    metrics: dict[str, Any],
    folder: Path,
    log: Callable[[str], None],
) -> Cascade:
    """Train an encoder on the same data, and return it with the language model as a cascade.

    In the metrics, "scores" become those of the cascade, and "models" has the F1 of each model on the same dev
    instances: those that fit both.
    """
    start = time.perf_counter()
    settings = config.encoder
    with explain_out_of_memory("while the encoder was trained", "Tune the language model alone: --encoder.weight 0."):
        encoder = load_shipped_encoder(lm.network.device)
        cascade = Cascade(encoder, lm, settings.min_prob, settings.weight, threshold=None)

        def fit(instances: Sequence[RelationInstance]) -> list[RelationInstance]:
            fitting = cascade.truncate(instances, data.schema, ExtractorSettings.max_context_tokens)
            if warning := describe_training_truncation(instances, fitting, "max_context_tokens"):
                log(f"  Warning: {warning}")
            return [instance for instance in fitting if instance is not None]

        fitted = replace(data, train=fit(data.train), dev=fit(data.dev))
        cascade.first = train_encoder(encoder, fitted, settings, folder, seed=config.training.seed, log=log)
        alone: dict[str, RelationModel] = {"language model": lm, "encoder": cascade.first}
        metrics["models"] = {name: score_sets(model, [fitted])[SCORE] for name, model in alone.items()}
        metrics["scores"] = score_sets(cascade, [fitted])
    metrics["seconds"] += time.perf_counter() - start
    return cascade


def load_ner(name: str) -> Language:
    """Load the pipeline of `tune.ner`.

    Raises:
        TuningError: It is not installed, finds no entities, or already has a relation component.
    """
    try:
        nlp = spacy.load(name)
    except (OSError, ValueError) as error:
        raise TuningError(f'tune.ner = "{name}" cannot be loaded: {error}') from error
    if not any("doc.ents" in nlp.get_pipe_meta(pipe).assigns for pipe in nlp.pipe_names):
        raise TuningError(f'tune.ner = "{name}" has no component that sets doc.ents. Its components: {nlp.pipe_names}.')
    if found := [pipe for pipe, component in nlp.components if isinstance(component, RelationExtractor)]:
        raise TuningError(f'tune.ner = "{name}" already has the component {found[0]}. Use a pipeline without one.')
    return nlp


def _write_output(
    folder: Path,
    config: TuningConfig,
    lm: SmallLM,
    model: RelationModel,
    sets: Sequence[TuningSet],
    metrics: Mapping[str, Any],
    record: Mapping[str, Any],
) -> Path:
    remove(folder)  # an interrupted run may have left an incomplete one
    nlp = spacy.blank(config.tune.lang) if config.tune.ner is None else load_ner(config.tune.ner)
    block = config.model_block
    if isinstance(model, Cascade):
        first = {"@architectures": "spacy-slmre.UniversalEncoder.v1"}
        block = {"@architectures": "spacy-slmre.Cascade.v1", "first": first, "second": block}
        block |= {name: getattr(model, name) for name in ("min_prob", "weight", "threshold")}
    component: Any = nlp.add_pipe("slm_relations", config={"model": block})
    component.model = model
    if lm.schema is not None:
        component.set_schema(lm.schema)
    base = record["key"]["base"]
    both = " and an encoder, both" if isinstance(model, Cascade) else ""
    nlp.meta["description"] = f"Relation extraction by {base['name']} with an adapter{both} tuned by spacy-slmre"
    nlp.meta["tuning"] = {
        "regime": config.tune.regime,
        "shots": config.tune.shots,
        "dapt": (lm.locate() / RUN_FILE).exists(),
    }
    nlp.meta["performance"] = {"rel_micro_f": metrics["scores"]["micro_f1"]}
    nlp.to_disk(folder)
    (folder / CONFIG_FILE).write_text(config.text, encoding="utf-8")
    (folder / RUN_FILE).write_text(json.dumps(record, indent=2), encoding="utf-8")
    (folder / METRICS_FILE).write_text(json.dumps(metrics, indent=2), encoding="utf-8")
    (folder / "README.md").write_text(_model_card(config, lm, sets, metrics, record), encoding="utf-8")
    return folder


def _model_card(
    config: TuningConfig, lm: SmallLM, sets: Sequence[TuningSet], metrics: Mapping[str, Any], record: Mapping[str, Any]
) -> str:
    formats = all_formats()
    sources = [(name, len(data.schema.labels), n) for data in sets for name, n in data.sources.items()]
    path = Config().from_str(config.text)["corpora"]["train"].get("path")
    rows = [
        {
            "title": formats[name].title if name in formats else Path(path or name).name,
            "format": formats.get(name),
            "labels": n_labels,
            "pairs": n_pairs,
        }
        for name, n_labels, n_pairs in sources
    ]
    counts = {}
    if len(sets) == 1 and config.sampling is None:
        train, dev = (Counter(one.label for one in split) for split in (sets[0].train, sets[0].dev))
        counts = {name: (train[name], dev[name]) for name in sets[0].schema.names}
    restricted = [formats[name].title for name, *_ in sources if name in formats and not formats[name].redistributable]
    assert lm.adapter is not None
    lora = {**vars(config.lora), "rank": lm.adapter.config["r"], "alpha": lm.adapter.config["lora_alpha"]}
    if "adapter" in record["key"]:  # training continued with it, so these had no effect
        del lora["top_layers"], lora["init_lora"]
    settings = {f"lora.{name}": value for name, value in lora.items()}
    settings |= {f"training.{name}": value for name, value in vars(config.training).items()}
    if config.encoder.weight:
        settings |= {f"encoder.{name}": value for name, value in vars(config.encoder).items()}
    settings.pop("training.report_to")  # does not affect the result
    if config.sampling is not None:
        settings |= {f"sampling.{name}": value for name, value in vars(config.sampling).items()}
    return render_template(
        "card.md.jinja",
        base=record["key"]["base"],
        quantization=resolve_quantization(lm.locate(), lm.quantization),
        tune=config.tune,
        adapter_dtype=config.training.adapter_dtype,
        data=rows,
        label_counts=counts,
        label_sets=record["key"]["data"].get("train") if config.sampling else None,
        restricted=restricted,
        settings=settings,
        metrics=metrics,
        scores=metrics["scores"]["sets"],
        versions=record["versions"],
    )


def render_template(name: str, **values: Any) -> str:
    """Return the text of a template in this package."""
    template = (files("spacy_slmre.training") / name).read_text("utf-8")
    environment = Environment(trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    return environment.from_string(template).render(values)


def _on_own_device(lm: SmallLM, processes: ProcessGroup) -> SmallLM:
    """Give each of several processes its own GPU."""
    if processes.local_rank is not None and has_gpu() and lm.settings.device in ("auto", "cuda"):
        lm.settings = replace(lm.settings, device=f"cuda:{processes.local_rank}")
    return lm
